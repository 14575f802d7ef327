"""What a user asks to have compared."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from asyncdiff_cli.engine.backbones.choice import ModelChoice
from asyncdiff_cli.engine.backbones.compatibility import check_asked, check_known_size
from asyncdiff_cli.engine.backbones.named import check_model
from asyncdiff_cli.engine.backbones.registry import BASELINE, BackboneEntry, provisional_entry
from asyncdiff_cli.engine.checks import check_choice, check_count, check_gamma, check_steps
from asyncdiff_cli.engine.downloads import OnProgress
from asyncdiff_cli.engine.dtypes import DTYPES
from asyncdiff_cli.engine.errors import InputError
from asyncdiff_cli.engine.evaluation.contender import Contender
from asyncdiff_cli.engine.evaluation.set_metrics import check_set_metrics
from asyncdiff_cli.engine.evaluation.set_metrics.reference import (
    Reference,
    default_reference,
    find_reference,
)
from asyncdiff_cli.engine.evaluation.store import Store
from asyncdiff_cli.engine.fields import parse_numbers
from asyncdiff_cli.engine.limits import MAX_COUNT
from asyncdiff_cli.engine.policies.modules import module_policy, own_policy
from asyncdiff_cli.engine.policies.specs import (
    ChosenPolicy,
    PolicySpec,
    check_policy_of,
    make_policy,
    read_policy,
)
from asyncdiff_cli.engine.prompts.benchmarks import BENCHMARKS
from asyncdiff_cli.engine.prompts.hub_set import HubSet, is_hub_set, pinned_source
from asyncdiff_cli.engine.prompts.lines import check_options
from asyncdiff_cli.engine.prompts.load import (
    DOWNLOADED,
    EVALUATED,
    default_source,
    load_evaluation_prompts,
    load_prompts,
)
from asyncdiff_cli.engine.prompts.prompt_set import ALL, PromptSet
from asyncdiff_cli.engine.reading import shown
from asyncdiff_cli.engine.rewards import (
    AVAILABLE,
    GUARD,
    parse_names,
    parse_reward_paths,
    parse_rewards,
)
from asyncdiff_cli.engine.training.recipe_files import load_recipe

REWARDS = {"mini": ("mini_judge", "mini_clip", "mini_quality", "sharpness", GUARD)}
DEFAULT_REWARDS = ("image_reward", "hpsv2", "clip", "pickscore", GUARD)
"""The rewards of the paper, and the guard: of every backbone that is not in `REWARDS`."""
KEPT_IMAGES = 16
BATCH_SIZES = {"cpu": 8}
"""Images that are drawn at once unless asked otherwise; on a CPU larger batches are slower."""
DEFAULT_BATCH_SIZE = 32
"""Images that are drawn at once on any other device."""


@dataclass(frozen=True)
class Comparison:
    """What a user asks to have compared. None is a default.

    Attributes:
        policies: as `parse_policies` reads them.
        gammas: draw every policy but the baseline, and those with a γ of their own, at each.
        steps: draw everything at each number of steps; default the backbone's.
        texts: prompts in place of a data set.
        held_out: of a file take only what a training keeps for validation.
        dataset, data_dir, prompts: as `load_evaluation_prompts`; default the backbone's.
        limit: how many prompts.
        num_images: how many images of each prompt, each of a noise of its own.
        seed: draws the prompts and their noise.
        kept_images: of the first so many prompts the images are kept; default all of one of
            `BENCHMARKS`, else `KEPT_IMAGES`.
        parameters: whether images say in words that other tools read what drew them.
        shard: (i, n): only the prompts i, i + n, i + 2n …
        set_metrics: what the pictures of a policy are compared by with those of a reference.
        reference: its directory; default the one that comes with mini's judge.
    """

    choice: ModelChoice
    policies: str
    gammas: Sequence[float] = (1.0,)
    steps: Sequence[int] | None = None
    texts: Sequence[str] | None = None
    dataset: str | None = None
    held_out: bool = False
    data_dir: Path | None = None
    prompts: Path | None = None
    limit: int | None = None
    num_images: int = 1
    seed: int = 42
    guidance: float | None = None
    size: int | None = None
    rewards: Sequence[str] | None = None
    reward_paths: Mapping[str, Path] = field(default_factory=dict)
    reward_dtype: str | None = None
    offload_rewards: bool = False
    batch_size: int | None = None
    kept_images: int | None = None
    parameters: bool = True
    shard: tuple[int, int] = (0, 1)
    set_metrics: Sequence[str] = ()
    reference: Path | None = None

    def __post_init__(self) -> None:
        for gamma in self.gammas:
            check_gamma(gamma)
        for steps in self.steps or ():
            check_steps(steps)
        check_options(seed=self.seed, guidance=self.guidance, size=self.size)
        check_count("--limit", self.limit)
        check_count("--num-images", self.num_images)
        check_count("--batch-size", self.batch_size)
        if self.kept_images is not None and not 0 <= self.kept_images <= MAX_COUNT:
            raise InputError(
                f"--images is a whole number from 0 to {MAX_COUNT:,}, not {self.kept_images}"
            )
        check_set_metrics(self.set_metrics)
        if self.reference is not None and not self.set_metrics:
            raise InputError("--reference is what set metrics compare with: give --set-metrics too")
        for name in self.reward_paths:
            if name not in (own := [*self.reward_names(), *self.set_metrics]):
                raise InputError(f"--reward-path {name} is of none of the rewards {', '.join(own)}")
        if self.reward_dtype is not None:
            check_choice("dtype", self.reward_dtype, DTYPES)
        index, count = self.shard
        if not 0 <= index < count <= MAX_COUNT:
            raise InputError(
                f"a shard is I/N with I from 0 to N − 1 and N to {MAX_COUNT:,}, not {index}/{count}"
            )

    def going_on(self, out: Path) -> Comparison:
        """The same on the commit of a data set that a store was begun with, if there is one.

        Raises:
            InputError: as `Store`.
        """
        if self.dataset is None or not is_hub_set(self.dataset) or Store.is_new(out):
            return self
        return replace(
            self, dataset=pinned_source(self.dataset, Store(out).settings.get("dataset"))
        )

    def check(self, out: Path) -> None:
        """Check all that is known before a model is looked up and anything heavy is imported.

        Args:
            out: the store.

        Raises:
            InputError, AsyncDiffError: as `contenders`, `load_prompts` and `reference_set`; for a
                size that the backbone does not draw, or a store of another evaluation.
        """
        check_asked(self.choice.changed(backbone=self.choice.name))
        entry = provisional_entry(self.choice.name)
        for spec, *_ in self.rows(entry):
            check_policy_of(spec, entry)
        if self.size is not None:
            check_known_size(self.choice, self.size, self.size)
        if not self._downloads:
            self.load_prompts()
        given = {"seed": self.seed, "guidance_scale": self.guidance, "size": self.size}
        reference = self.reference_set
        Store.agree(
            out,
            {name: value for name, value in given.items() if value is not None},
            self.reward_names(),
            self.set_metrics,
            None if reference is None else reference.fingerprint,
            whole=False,
        )

    def contenders(self, entry: BackboneEntry) -> list[Contender]:
        """The rows of the table with a backbone, the baseline first.

        Raises:
            InputError: for a policy that is not known, two that are the same, or no baseline.
        """
        return [
            Contender(ChosenPolicy(spec.label, make_policy(spec, entry), gamma), steps)
            for spec, gamma, steps in self.rows(entry)
        ]

    def rows(self, entry: BackboneEntry) -> list[tuple[PolicySpec, float, int]]:
        """The policy, γ and number of steps of each row, the baseline first.

        Raises:
            InputError: as `contenders`, but for modules.
        """
        found = []
        for spec in map(read_policy, self.policies.split(",")):
            gammas = (1.0,) if spec.label == BASELINE else self.gammas
            gammas = gammas if spec.gamma is None else (spec.gamma,)
            for steps in self.steps or (entry.num_inference_steps,):
                found += [(spec, gamma, steps) for gamma in gammas]
        if not any(spec.label == BASELINE for spec, *_ in found):
            raise InputError("there is nothing to compare with: add baseline to --policies")
        if len({(spec.label, gamma, steps) for spec, gamma, steps in found}) < len(found):
            raise InputError("a policy is there twice with the same γ and number of steps")
        return sorted(found, key=lambda row: row[0].label != BASELINE)

    def reward_names(self) -> list[str]:
        """The rewards, with the guard last if it is not named.

        Raises:
            InputError: for one that is not known.
        """
        names = list(
            REWARDS.get(self.choice.name, DEFAULT_REWARDS) if self.rewards is None else self.rewards
        )
        return names if GUARD in names else [*names, GUARD]

    @property
    def source(self) -> str:
        """What is evaluated on.

        Raises:
            InputError: if it is not said, and the backbone has no set of its own.
        """
        return self.dataset or default_source(self.choice.name)

    @property
    def _downloads(self) -> bool:
        """Whether the prompts may have to be downloaded."""
        return self.texts is None and self.prompts is None and self.source in DOWNLOADED

    def count_prompts(self) -> int:
        """Count the prompts that are drawn; no benchmark is downloaded to tell.

        Raises:
            InputError, AsyncDiffError: as `load_prompts`; and for all of what would be downloaded.
        """
        if not self._downloads:
            return len(self.load_prompts()[1])
        if (count := self.limit or EVALUATED.get(self.source)) is None:
            raise InputError(
                f"how many prompts {self.source} has is not known before it is downloaded: give"
                " --limit N, or --prompts with a copy"
            )
        return count

    def batch_on(self, device: str) -> int:
        """Images that are drawn at once on a kind of device, such as "cuda"."""
        return self.batch_size or BATCH_SIZES.get(device, DEFAULT_BATCH_SIZE)

    @property
    def num_kept(self) -> int:
        """The number of prompts whose images are kept."""
        if self.kept_images is None:
            return MAX_COUNT if self.source in BENCHMARKS else KEPT_IMAGES
        return self.kept_images

    @property
    def default_out(self) -> Path:
        """Where the store is unless asked otherwise."""
        source = self.source
        of = HubSet.parse(source).repo if is_hub_set(source) else source
        return Path("evals") / f"{Path(self.choice.name).name[:60]}-{Path(of).stem[:60]}"

    @cached_property
    def reference_set(self) -> Reference | None:
        """What set metrics compare with, whose pictures are read once; None without any.

        Raises:
            InputError: as `find_reference` and `default_reference`.
        """
        if not self.set_metrics:
            return None
        own = self.reference or default_reference(self.choice.name, self.set_metrics)
        return find_reference(own)

    def load_prompts(self, on_progress: OnProgress | None = None) -> tuple[PromptSet, list[int]]:
        """The set and the places of those that are drawn.

        Raises:
            InputError, AsyncDiffError: as `load_evaluation_prompts`, or for a limit above its size.
        """
        if self.texts is not None:
            given = PromptSet("the command line", ALL, tuple(self.texts))
            return given, list(range(len(given)))
        where = self.data_dir, self.prompts, on_progress
        if self.held_out:
            texts = load_prompts(self.source, "validation", *where)
        else:
            texts = load_evaluation_prompts(self.source, *where)
        limit = self.limit or min(EVALUATED.get(self.source, len(texts)), len(texts))
        return texts, texts.order(limit, self.seed)


def comparison_of_run(run: Path, limit: int | None, choice: ModelChoice) -> Comparison:
    """The module of a training run beside the baseline, on the prompts of its recipe's validation.

    Args:
        choice: its device; all else is the recipe's.

    Raises:
        InputError: if the directory holds no run, or one without a module yet.
    """
    if not (run / "tpm" / "config.json").is_file():
        raise InputError(f"{run} holds neither an evaluation nor a run with a module in tpm/")
    recipe = load_recipe(str(run / "recipe.yaml"))
    model = recipe.model(choice.device)
    check_model(run, model, choice)
    return Comparison(
        model,
        f"{BASELINE},{module_policy(recipe.bound, recipe.actions)}:{run / 'tpm'}",
        steps=(recipe.num_inference_steps,),
        dataset=recipe.prompts,
        held_out=True,
        limit=limit,
        guidance=recipe.guidance_scale,
        size=recipe.size,
        rewards=tuple(recipe.rewards),
        reward_paths={name: Path(file) for name, file in recipe.reward_paths.items()},
        reward_dtype=recipe.reward_dtype,
        offload_rewards=recipe.offload_rewards,
    )


def table_policies(entry: BackboneEntry) -> str:
    """The rows of the paper's tables: the backbone's own policy, and the modules that it has."""
    return ",".join([BASELINE, own_policy(entry), *entry.modules])


def parse_comparison(
    choice: ModelChoice,
    policies: str | None = None,
    gammas: str | None = None,
    steps: str | None = None,
    rewards: str | None = None,
    reward_path: Sequence[str] | None = None,
    shard: str = "0/1",
    set_metrics: str | None = None,
    size: str | None = None,
    **others: Any,
) -> Comparison:
    """A comparison from what is typed: lists of numbers with commas, a shard as I/N.

    Args:
        policies: default the rows of the paper's tables.
        others: fields of `Comparison` as they are.

    Raises:
        InputError: for what is not of that form, or not known.
    """
    names = parse_rewards(rewards) if rewards else None
    sets = parse_names(set_metrics) if set_metrics else []
    return Comparison(
        choice,
        policies or table_policies(provisional_entry(choice.name)),
        gammas=parse_numbers("--gammas", gammas, float) or (1.0,),
        steps=parse_numbers("--steps", steps, int) or None,
        rewards=names,
        reward_paths=parse_reward_paths(reward_path or [], [*(names or AVAILABLE), *sets]),
        shard=_shard(shard),
        set_metrics=sets,
        size=_side(size),
        **others,
    )


def _shard(text: str) -> tuple[int, int]:
    if not re.fullmatch(r"\d{1,9}/\d{1,9}", text):
        raise InputError(f"a shard is I/N, such as 0/4, not {shown(text)}")
    index, _, count = text.partition("/")
    return int(index), int(count)


def _side(text: str | None) -> int | None:
    """The side of a square."""
    size = None if text is None else check_options(size=text).size
    if size is not None and size[0] != size[1]:
        raise InputError(f"--size is one number of pixels here, of a square, not {shown(text)}")
    return None if size is None else size[0]
