"""A training recipe: one frozen object with every setting of a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
)

from asyncdiff_cli.engine.backbones.choice import (
    DEFAULT_BACKBONE,
    NEUTRAL,
    ModelChoice,
    ModelSettings,
)
from asyncdiff_cli.engine.backbones.registry import REGISTRY, branches, evaluations
from asyncdiff_cli.engine.checks import unknown
from asyncdiff_cli.engine.fields import (
    Bound,
    Count,
    GuidanceScale,
    NotEmpty,
    Seed,
    Steps,
    no_switch,
    not_empty,
)
from asyncdiff_cli.engine.limits import (
    MAX_COUNT,
    MAX_LAYERS,
    MAX_NUMBER,
    MAX_PATCH,
    MAX_SIDE,
    MAX_STEPS,
    MAX_TOKENS,
    MAX_WIDTH,
)
from asyncdiff_cli.engine.policies.actions import DEVIATION, SCALING, SPACING, check_actions
from asyncdiff_cli.engine.policies.specs import read_policy
from asyncdiff_cli.engine.rewards import EMBEDDED, PUBLISHED, checked

HELD_IN = ("fp16", "bf16", "fp32")
SCALES = ("group", "baseline")
DECIDED_BY = {
    "fixed": (DEVIATION,),
    "schedule": (DEVIATION,),
    "spectral": (DEVIATION,),
    "calibrated": (DEVIATION,),
    "velocity-scale": (SCALING,),
    "combined": (DEVIATION, SCALING),
    "scaled-schedule": (DEVIATION, SCALING),
}
"""Policies that a module can begin at, and what each of them decides."""
BASELINE_NAMES = ("group", "leave_one_out", "james_stein")
LEAST_GROUPS = 5
"""Groups from which the baseline "james_stein" shrinks: Stein's estimate needs four others."""


def _known(kind: str, names: Sequence[str]) -> AfterValidator:
    def check(value: str) -> str:
        if value not in names:
            raise ValueError(unknown(kind, value, names))
        return value

    return AfterValidator(check)


Dtype = Annotated[str, _known("dtype", HELD_IN)]
RewardName = Annotated[str, AfterValidator(checked)]
Weight = Annotated[float, BeforeValidator(no_switch), Field(ge=0, le=MAX_NUMBER)]
Every = Annotated[int, Field(ge=0, le=MAX_COUNT)]
NotNegative = Annotated[float, Field(ge=0, le=MAX_NUMBER)]
Positive = Annotated[float, Field(gt=0, le=MAX_NUMBER)]


class _Settings(BaseModel):
    """Checks that read several fields are validators of the last of them.

    `info.data` holds those of the fields before it that are valid, so that one faulty field does
    not hide the faults of others, as it does with a validator of the whole model.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, validate_default=True
    )

    @field_validator("*", mode="before")
    @classmethod
    def _refuse_switches(cls, value: Any, info: ValidationInfo) -> Any:
        switch = cls.model_fields[info.field_name or ""].annotation is bool
        return value if switch else no_switch(value)


class TPMSettings(_Settings):
    """The size of the timestep prediction module."""

    width: Annotated[Count, Field(le=MAX_WIDTH)] = 256
    """Channels of a token."""
    layers: Annotated[Count, Field(le=MAX_LAYERS)] = 4
    """Transformer layers."""
    heads: Annotated[Count, Field(le=MAX_WIDTH)] = 8
    """Attention heads: even, because they start in opposite pairs, and a divisor of the width."""
    patch_size: Annotated[Count, Field(le=MAX_PATCH)] = 8
    """Side of the latent patches that make a token."""
    text_tokens: Annotated[Count, Field(le=MAX_TOKENS)] = 4
    """How many tokens the sequence embedding of the prompt is pooled into."""
    global_tokens: Annotated[Count, Field(le=MAX_TOKENS)] = 4
    """How many tokens the head reads."""

    @field_validator("heads")
    @classmethod
    def _check_heads(cls, heads: int, info: ValidationInfo) -> int:
        if heads % 2:
            raise ValueError(f"heads start in opposite pairs, so {heads} is not even")
        if (width := info.data.get("width", heads)) % heads:
            raise ValueError(f"width {width} is not divisible by heads {heads}")
        return heads


class EstimatorSettings(_Settings):
    """How the policy gradient is estimated; the defaults are the paper's.

    What is at its default is no part of a run's identity, which older runs lack it in.
    """

    baseline: Annotated[str, _known("baseline", BASELINE_NAMES)] = "group"
    """What a reward is compared with: the mean of the "group", of the others in it
    ("leave_one_out", arXiv 2402.14740), or that one drawn toward the mean of the other groups
    ("james_stein", arXiv 2511.22177), which takes five groups or more, and scale_rewards baseline:
    elsewhere all groups have the same mean."""
    antithetic: bool = False
    """Draw the ratios of every second image of a group as the mirror images of those before it, by
    the inverse distribution function of 1 − u in place of u."""
    correlation: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """How alike the decisions of an image are drawn: the correlation of the normal numbers that
    their ratios are drawn by; 0 for each by itself, as in the paper. Decisions that are drawn apart
    hardly move their mean, and with it the picture; those that are drawn alike do (exploration that
    is correlated in time: arXiv 2005.05719). Each still has its own Beta, and its score by that."""
    ratio_norm: bool = False
    """Centre each decision's log-ratio and measure it in deviations of the Beta that was drawn
    from, so that all decisions count alike (RatioNorm, arXiv 2510.22319)."""
    stepwise: Annotated[float, Field(ge=0, le=1)] | None = None
    """Credit each decision with the rise of the reward of x̂0 over its step, and with what it says
    of later rises: 0 for none of them (arXiv 2603.28718), 1 for all; None for the reward of the
    image. All previews are decoded and scored."""
    branches: Count = 1
    """Images that go on from one prefix of decisions, a divisor of those of one noise: they share
    its evaluations, and a decision's credit is the mean of its images beside those that part from
    them there (as TreeGRPO, arXiv 2512.08153); 1 for none."""
    branch_at: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """The share of the decisions that make up the prefix, of which there is one at least."""

    @property
    def by_decision(self) -> bool:
        """Whether decisions have a credit of their own, and with it a ratio π/π_old."""
        return self.stepwise is not None or self.branches > 1


class EvaluationSettings(_Settings):
    """The evaluation on held-out prompts."""

    every: Every = 100
    """Iterations between two evaluations; 0 for none."""
    prompts: Count = 64
    """How many held-out prompts, one image each."""
    seed: Seed = 42
    """Draws the prompts and their noise."""
    patience: Count | None = 3
    """Training stops after so many evaluations in a row at which training reward rose while
    held-out reward or the noise guard fell; None to never stop early."""


class CheckpointSettings(_Settings):
    """What a run can be resumed from."""

    every: Count = 50
    """Iterations between two checkpoints."""
    keep: Count = 3
    """How many of the latest stay on the disk."""


class SampleSettings(_Settings):
    """The pictures that show how training goes."""

    every: Every = 100
    """Iterations between two sets of them; 0 for none."""
    count: Count = 4
    """Pictures in a set."""


class Recipe(ModelSettings, _Settings):
    """Every setting of a training run. The defaults are the paper's where it has one."""

    backbone: NotEmpty = DEFAULT_BACKBONE
    """A name of the registry, a pipeline directory or a hub repository."""
    num_inference_steps: Annotated[int, Field(ge=2, le=MAX_STEPS)]
    """K, at least 2: a run of K steps holds K − 1 decisions."""
    step_range: tuple[int, Steps] | None = None
    """Smallest and largest K, both included, of which each iteration draws one; None for
    `num_inference_steps` always."""
    guidance_scale: GuidanceScale | None = None
    """None for the backbone's default."""
    size: Annotated[int, Field(ge=1, le=MAX_SIDE)] | None = None
    """Height and width in pixels; None for the backbone's default."""
    bound: Bound = 0.5
    """The bound of the deviation D: 0.5 (Eq. 11), or 1 for the lifted one (Eq. 13)."""
    actions: Annotated[tuple[str, ...], AfterValidator(check_actions)] = (DEVIATION,)
    """What the module decides at a step: its "deviation", as in the paper, and the "scale" of the
    velocity, ω in [0.5, 1.5] (Eq. 20), which the paper has in its place. Beside them the "grid",
    once an image: how long the steps are (as arXiv 2511.22177), for Euler's solver."""
    start: NotEmpty | None = None
    """A static policy that the module begins at, as it is written: fixed:D, schedule:…, spectral or
    calibrated:FILE, or a hub repository in the place of a file; for a module that decides scales
    velocity-scale:OMEGA, and for both combined:D/OMEGA or scaled-schedule:…, of which evaluation 0,
    that a module leaves alone, is not scaled. None for the synchronous sampler, as in the paper."""
    prompts: NotEmpty = "mini"
    """mini, coco2014, t2i-compbench, a file of prompts, or hf:USER/NAME[:COLUMN] of the hub."""
    rewards: dict[RewardName, Weight]
    """Rewards by name with their weights, of which only the ratios count; 0 leaves one out."""
    reward_paths: dict[RewardName, NotEmpty] = {}
    """Local checkpoints of published rewards, by name."""
    reward_dtype: Dtype | None = None
    """fp16, bf16 or fp32; None for each reward's own."""
    offload_rewards: bool = False
    """Keep rewards on the CPU while they do not score."""
    seed: Seed = 42
    """Draws prompts, noise, decisions and the module's first weights."""
    iterations: Count = 4000
    """Updates, each of rollouts of its own."""
    prompts_per_iteration: Count = 1
    """Groups in an iteration."""
    group_size: Annotated[int, Field(le=MAX_COUNT)] = 16
    """Images of one prompt that are compared with one another, at least 2."""
    noises_per_prompt: Count | None = None
    """Distinct initial noises in a group, a divisor of its size. None is one per image, as in the
    paper; 1 compares images of the same noise, as DanceGRPO (arXiv 2505.07818) does."""
    scale_rewards: Annotated[str, _known("scale", SCALES)] = "group"
    """What a reward's z-score divides by: its deviation in the "group", as in the paper, or that of
    the held-out "baseline" over all prompts. By the second, groups count by how much their images
    differ, and what is maximised is the composite that evaluations report."""
    mini_batch_size: Count = 4
    """Trajectories in one gradient step, a divisor of those of an iteration."""
    epochs: Count = 1
    """Passes over the trajectories of an iteration."""
    rollout_batch_size: Count = 16
    """Images drawn at once; it changes memory and speed, and no result beyond rounding."""
    learning_rate: Annotated[float, Field(gt=0, le=1)] = 2e-5
    """AdamW's, constant."""
    weight_decay: NotNegative = 0.01
    """AdamW's."""
    max_grad_norm: Positive = 1.0
    """The gradient's norm is clipped to it."""
    clip_range: Positive = 0.2
    """ε of Eq. 14."""
    kl_weight: NotNegative = 0.0
    """The weight of the KL divergence to the initial policy in the loss."""
    entropy_weight: NotNegative = 0.0
    """The weight of the policy's entropy, which the loss rewards."""
    estimator: EstimatorSettings = EstimatorSettings()
    """How the policy gradient is estimated."""
    ema_decay: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Decay of a moving average of the module's weights, between 0 and 1; None for none."""
    tpm: TPMSettings = TPMSettings()
    """The module's size."""
    evaluation: EvaluationSettings = EvaluationSettings()
    """The evaluation on held-out prompts."""
    checkpoint: CheckpointSettings = CheckpointSettings()
    """What a run can be resumed from."""
    samples: SampleSettings = SampleSettings()
    """Pictures along the way."""

    def model(self, device: str | None = None) -> ModelChoice:
        """The backbone and how it runs."""
        settings = {name: getattr(self, name) for name in ModelSettings.model_fields}
        return ModelChoice.parse(**settings, device=device)

    @field_validator(*ModelSettings.model_fields, mode="before")
    @classmethod
    def _check_model(cls, value: Any, info: ValidationInfo) -> Any:
        """Names are known, texts are not empty, and words that switch a setting off do."""
        option = ModelSettings.options()[name := info.field_name or ""]
        word = option.neutral if name in NEUTRAL and option.neutral not in option.known else None
        if word and value in ([word] if isinstance(word, str) else [word, [*word], *word]):
            return cls.model_fields[name].default
        for text in value if isinstance(value, list | tuple) else [value]:
            if isinstance(text, str):
                not_empty(text)
                if option.known and text not in option.known:
                    raise ValueError(unknown(option.kind, text, option.known))
        return (value,) if name == "lora" and isinstance(value, str) else value

    @field_validator("start")
    @classmethod
    def _check_start(cls, start: str | None, info: ValidationInfo) -> str | None:
        if start is not None:
            spec = read_policy(start)
            if spec.name not in DECIDED_BY or spec.gamma is not None:
                raise ValueError(f"{start!r} is none of {', '.join(DECIDED_BY)}, without a gamma")
            actions = info.data.get("actions", (DEVIATION,))
            if lacking := [name for name in DECIDED_BY[spec.name] if name not in actions]:
                raise ValueError(
                    f"{start!r} decides the {lacking[0]}, which actions lack: give start=null"
                )
        return start

    @field_validator("kl_weight")
    @classmethod
    def _check_kl(cls, weight: float, info: ValidationInfo) -> float:
        if weight and info.data.get("start") is not None:
            raise ValueError(
                "it is to the synchronous sampler's policy: not with a start: give start=null"
            )
        return weight

    @field_validator("kl_weight", "entropy_weight")
    @classmethod
    def _check_grid(cls, weight: float, info: ValidationInfo) -> float:
        if weight and SPACING in info.data.get("actions", ()):
            raise ValueError("it is of what is decided at steps: not with a grid")
        return weight

    @field_validator("step_range")
    @classmethod
    def _check_step_range(
        cls, value: tuple[int, int] | None, info: ValidationInfo
    ) -> tuple[int, int] | None:
        if value is None:
            return value
        low, high = value
        if not 2 <= low <= high:
            raise ValueError(f"a range is a smaller and a larger K from 2, not {low} and {high}")
        if not low <= (steps := info.data.get("num_inference_steps", low)) <= high:
            raise ValueError(f"num_inference_steps {steps} is outside the range {low} to {high}")
        return value

    @field_validator("rewards")
    @classmethod
    def _check_rewards(cls, rewards: dict[str, float]) -> dict[str, float]:
        if not any(rewards.values()):
            raise ValueError("no reward has a weight above 0: give one, as in {clip: 1}")
        return rewards

    @field_validator("reward_paths")
    @classmethod
    def _check_reward_paths(cls, paths: dict[str, str], info: ValidationInfo) -> dict[str, str]:
        if local := [name for name in paths if name not in (*PUBLISHED, *EMBEDDED)]:
            raise ValueError(f"{', '.join(local)} is a part of this package and reads no file")
        rewards = info.data.get("rewards", paths)
        if unnamed := [name for name in paths if name not in rewards]:
            raise ValueError(f"{', '.join(unnamed)} is not among the rewards {', '.join(rewards)}")
        return paths

    @field_validator("group_size")
    @classmethod
    def _check_group(cls, size: int) -> int:
        if size < 2:
            raise ValueError(f"a group of {size} has no advantage: it takes 2 images or more")
        return size

    @field_validator("noises_per_prompt")
    @classmethod
    def _check_noises(cls, noises: int | None, info: ValidationInfo) -> int | None:
        if noises and (size := info.data.get("group_size", noises)) % noises:
            raise ValueError(f"group_size {size} is not divisible by noises_per_prompt {noises}")
        return noises

    @field_validator("estimator")
    @classmethod
    def _check_estimator(cls, own: EstimatorSettings, info: ValidationInfo) -> EstimatorSettings:
        if own.baseline == "james_stein":
            if info.data.get("scale_rewards", "baseline") != "baseline":
                raise ValueError("james_stein compares groups: it needs scale_rewards baseline")
            if (groups := info.data.get("prompts_per_iteration", LEAST_GROUPS)) < LEAST_GROUPS:
                raise ValueError(
                    f"james_stein needs prompts_per_iteration {LEAST_GROUPS} or more, not {groups}"
                )
        if own.antithetic and (size := info.data.get("group_size", 2)) % 2:
            raise ValueError(f"antithetic draws are pairs: group_size {size} is not even")
        if SPACING in info.data.get("actions", ()) and (own.ratio_norm or own.stepwise is not None):
            raise ValueError("a grid goes with neither ratio_norm nor stepwise")
        if own.branches > 1:
            cls._check_branches(own, info)
        return own

    @staticmethod
    def _check_branches(own: EstimatorSettings, info: ValidationInfo) -> None:
        if own.antithetic or own.correlation or own.baseline == "james_stein":
            raise ValueError("branches go with no antithetic or correlated draws, nor james_stein")
        if not {"group_size", "noises_per_prompt", "step_range"} <= info.data.keys():
            return
        size = info.data["group_size"]
        of_a_noise = size // (info.data["noises_per_prompt"] or size)
        if of_a_noise % own.branches:
            raise ValueError(
                f"branches share a noise, of which there are {of_a_noise} images in a group"
                f" (group_size / noises_per_prompt): not divisible by {own.branches}"
            )
        if (info.data["step_range"] or [info.data.get("num_inference_steps", 3)])[0] < 3:
            raise ValueError("branches part after the first decision: they need 3 steps or more")

    @field_validator("evaluation")
    @classmethod
    def _check_scale(cls, own: EvaluationSettings, info: ValidationInfo) -> EvaluationSettings:
        if info.data.get("scale_rewards") == "baseline" and not own.every:
            raise ValueError("scale_rewards baseline needs its scores: evaluation.every above 0")
        return own

    @field_validator("mini_batch_size")
    @classmethod
    def _check_mini_batch(cls, batch: int, info: ValidationInfo) -> int:
        if not {"prompts_per_iteration", "group_size"} <= info.data.keys():
            return batch
        prompts, size = info.data["prompts_per_iteration"], info.data["group_size"]
        if (total := prompts * size) % batch:
            near = max(n for n in range(1, min(batch, total) + 1) if total % n == 0)
            raise ValueError(
                f"prompts_per_iteration {prompts} · group_size {size} = {total} is not divisible"
                f" by mini_batch_size {batch} (try {near})"
            )
        return batch


LATER = ("start", "estimator", "actions")
"""What older runs do not say: what is at its default in it is no part of a run's identity."""
RESUMABLE = (
    *("iterations", "checkpoint", "samples", "rollout_batch_size", "reward_paths"),
    *("model_path", "offload"),
)
"""What a resumed run may change: nothing of it decides what an iteration computes."""


@dataclass(frozen=True)
class Cost:
    """What the rollouts of a whole run amount to. Held-out evaluation and samples are not in it."""

    images: int
    forward_passes: int
    """Forward passes of the denoiser, for one image each, where images of one prompt and noise are
    in one batch and share the first."""


def cost(recipe: Recipe, guidance_calls: int | None = None) -> Cost:
    """The images that a run draws, and the forward passes they take; a random K counts as its mean.

    Args:
        guidance_calls: forward passes per image and evaluation. Default 2 for a backbone of the
            registry with classifier-free guidance, else 1: FLUX.1 and FLUX.2 [dev] embed their
            guidance, and of others nothing is known.
    """
    if guidance_calls is None:
        entry = REGISTRY.get(recipe.backbone)
        guidance_calls = branches(entry, recipe.guidance_scale) if entry else 1
    images = recipe.iterations * recipe.prompts_per_iteration * recipe.group_size
    ends = recipe.step_range or (recipe.num_inference_steps,) * 2
    looked = sum(evaluations(recipe.scheduler, k) for k in ends)
    shared = images - images * (recipe.noises_per_prompt or recipe.group_size) // recipe.group_size
    return Cost(images, guidance_calls * (images * looked // len(ends) - shared))
