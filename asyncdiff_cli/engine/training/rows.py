"""The lines of metrics.jsonl: of an iteration, of an evaluation, and warnings."""

from __future__ import annotations

from typing import Annotated, final

from pydantic import Field, model_validator
from typing_extensions import NotRequired, TypedDict

from asyncdiff_cli.engine.reading import Read


class RewardMetrics(TypedDict):
    """A reward's scores of an iteration's images."""

    raw: float
    """Their mean."""
    std: float
    """Their standard deviation within a group, the mean over the groups."""
    z: NotRequired[float]
    """Their mean in units of the baseline's held-out scores; within a group it is 0."""


class ByStep(TypedDict):
    """D or ω before γ by decision, [K − 1], over an iteration's images."""

    mean: list[float]
    std: list[float]


class CompositeMetric(TypedDict, total=False):
    """The weighted mean of the rewards' z over an iteration's images, where there are such."""

    composite: float


class ScaleMetric(TypedDict, total=False):
    """ω by decision, where the module scales velocities."""

    scale: ByStep


class PolicyMetrics(ScaleMetric):
    """How the module decided in an iteration.

    α and β are means by decision, [K − 1], or by each action of each decision.
    """

    deviation: ByStep
    alpha: list[float]
    beta: list[float]
    entropy: float


class UpdateMetrics(TypedDict):
    """How far an iteration moved the module."""

    approximate_kl: float
    """KL(π_old ‖ π) per trajectory."""
    clip_fraction: float
    """The share of trajectories that pass no gradient."""
    grad_norm: float
    """The largest before clipping."""


class PairedMetric(TypedDict):
    """A held-out metric's mean beside the baseline's: `statistics.Difference` as JSON."""

    mean: float
    difference: float
    low: float
    high: float
    n: int


@final
class IterationRow(CompositeMetric, PolicyMetrics, UpdateMetrics):
    """The line of an iteration."""

    iteration: int
    """Counted from 1."""
    steps: int
    """K."""
    seconds: float
    images_per_second: float
    shares: dict[str, float]
    """Shares of the time, by what it was spent on."""
    rewards: dict[str, RewardMetrics]


@final
class BaselineRow(TypedDict):
    """The line of the synchronous sampler's held-out scores, which come before all iterations."""

    iteration: int
    held_out: dict[str, float]


@final
class EvaluationRow(TypedDict):
    """The line of an evaluation on the held-out prompts."""

    iteration: int
    held_out: dict[str, PairedMetric]
    """The comparisons by reward, and the composite."""
    deviation: list[float]
    """The mean D before γ by decision, [K − 1]."""
    best: int
    """The iteration with the best held-out composite so far."""


@final
class WarningRow(TypedDict):
    """The line of a sign that something is going wrong."""

    iteration: int
    warning: str


MetricRow = IterationRow | BaselineRow | EvaluationRow | WarningRow
Event = tuple[str, MetricRow]
"""("iteration" | "evaluation" | "warning", its line)."""


class RecordedPair(Read):
    """What is read of a `PairedMetric`."""

    mean: float
    difference: float
    low: float
    high: float
    n: int


class RecordedReward(Read):
    """What is read of `RewardMetrics`."""

    raw: float


class RecordedDeviations(Read):
    """What is read of `ByStep`."""

    mean: list[float]
    std: list[float]


class RecordedRow(Read):
    """What is read of a line, whichever version of this program has written it."""

    iteration: Annotated[int, Field(ge=0)]
    rewards: dict[str, RecordedReward] = Field({})
    composite: float = 0.0
    deviation: RecordedDeviations | list[float] = Field([])
    held_out: dict[str, RecordedPair | float] = Field({})
    best: int | None = None
    warning: str = ""

    @model_validator(mode="after")
    def _check_deviation(self) -> RecordedRow:
        if self.rewards and not isinstance(self.deviation, RecordedDeviations):
            raise ValueError("deviation: an iteration has its mean and std")
        return self
