"""The AsyncDiff paper's own numbers (Tables 1 and 2): printed beside ours, and never as ours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

METRICS = ("image_reward", "hpsv2", "clip", "pickscore")
"""The paper's metrics by the names of our rewards."""
PAPER_POLICIES = {"baseline": None, "learned": 0.5, "lifted": 1.0}
"""The paper's methods by the names of our policies, each with its bound: the base model,
0.5 + r* and 2 × r*."""


class PaperRow(NamedTuple):
    """A method's line in a table of the paper."""

    policy: str
    bound: float | None
    metrics: Mapping[str, float]
    """Means, by reward."""
    mean_deviation: float


class PaperResults(NamedTuple):
    """A backbone on a dataset in a table of the paper."""

    table: int
    model: str
    dataset: str
    """The data set as the paper writes it, like the model."""
    steps: int
    rows: tuple[PaperRow, ...]


_TABLES = {"sd35": (1, "SD3.5-Medium", 15), "flux": (2, "FLUX.1-dev", 10)}
_DATASETS = {"coco2014": "MS-COCO 2014", "t2i-compbench": "T2I-CompBench"}
_NUMBERS = {  # METRICS and the mean deviation, a line per policy
    ("sd35", "coco2014"): (
        (0.9043, 0.2754, 0.2683, 22.27, 0.0),
        (0.9243, 0.2766, 0.2685, 22.28, 0.192),
        (0.9670, 0.2798, 0.2669, 22.28, 0.398),
    ),
    ("sd35", "t2i-compbench"): (
        (0.8642, 0.2698, 0.2754, 22.09, 0.0),
        (0.8969, 0.2722, 0.2754, 22.11, 0.231),
        (0.9377, 0.2729, 0.2757, 22.10, 0.106),
    ),
    ("flux", "coco2014"): (
        (0.7791, 0.2769, 0.2592, 22.60, 0.0),
        (0.9267, 0.2871, 0.2600, 22.74, 0.499),
        (0.9452, 0.2920, 0.2601, 22.70, 0.959),
    ),
    ("flux", "t2i-compbench"): (
        (0.7197, 0.2747, 0.2655, 22.46, 0.0),
        (0.8725, 0.2854, 0.2673, 22.57, 0.499),
        (0.8584, 0.2866, 0.2667, 22.52, 0.640),
    ),
}


def reported(backbone: str, dataset: str) -> PaperResults | None:
    """What the paper reports of a backbone on a dataset; None for what it has not measured.

    Args:
        backbone: as in the registry: "sd35" or "flux".
        dataset: as the sources of prompts are named: "coco2014" or "t2i-compbench".
    """
    numbers = _NUMBERS.get((backbone, dataset))
    if numbers is None:
        return None
    table, model, steps = _TABLES[backbone]
    rows = (
        PaperRow(policy, bound, dict(zip(METRICS, line, strict=False)), line[-1])
        for (policy, bound), line in zip(PAPER_POLICIES.items(), numbers, strict=True)
    )
    return PaperResults(table, model, _DATASETS[dataset], steps, tuple(rows))
