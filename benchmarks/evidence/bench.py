"""A model with all that scores its pictures, which draws each row into a store of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from asyncdiff_cli.engine import make_scheduler
from asyncdiff_cli.engine.backbones.adapters import Guidance, TextConditions
from asyncdiff_cli.engine.evaluation.contender import Contender, check_descriptions
from asyncdiff_cli.engine.evaluation.evaluation import Evaluation
from asyncdiff_cli.engine.evaluation.setting import SETTING, Setting
from asyncdiff_cli.engine.evaluation.store import Store
from asyncdiff_cli.engine.policies.specs import ChosenPolicy, make_policy, read_policy
from benchmarks.evidence.plan import Prompts
from benchmarks.evidence.rows import Candidate

OnDrawn = Callable[[int], None]


@dataclass(frozen=True)
class Drawn:
    """What a candidate has drawn: its store, and its rows there in the order of the prompts."""

    store: Store
    rows: pa.Table

    def scores(self, metric: str) -> Any:
        """A reward of each picture, [n]."""
        return self.rows[metric].to_numpy()

    @property
    def evaluations(self) -> int:
        """How often the denoiser was asked for each picture, without guidance."""
        return len(self.rows["cond_sigmas"][0])


@dataclass(frozen=True)
class Bench:
    """An evaluation that is opened once, in whose place each row has its own.

    Attributes:
        evaluation: with everything loaded.
        on_drawn: told how many pictures there are more.
    """

    evaluation: Evaluation
    on_drawn: OnDrawn = lambda _: None

    @cached_property
    def scheduler(self) -> Mapping[str, Any]:
        """The configuration of the model's own scheduler."""
        return dict(self.evaluation.canvas.backbone.pipe.scheduler.config)

    @property
    def branches(self) -> int:
        """Denoiser calls for each evaluation of a picture: two with classifier-free guidance."""
        canvas = self.evaluation.canvas
        entry, guidance = canvas.backbone.entry, Guidance(canvas.scale, canvas.scale)
        negative = entry.negative_prompt is not None
        return 2 if canvas.backbone.adapter.does_cfg(guidance, negative) else 1

    @property
    def shifts(self) -> bool:
        """Whether the model's grid has a shift that is the same for all sizes."""
        return not self.scheduler.get("use_dynamic_shifting")

    def draw(
        self, place: Path, candidates: Sequence[Candidate], prompts: Prompts, count: int
    ) -> dict[Candidate, Drawn]:
        """Draw and score the first prompts with each candidate, but what is in the stores.

        Args:
            place: of the row; its stores are in it.

        Raises:
            InputError: for a store of other settings, or in which a label was another policy.
            AsyncDiffError: as `Evaluation.run`.
        """
        drawn = {}
        for (solver, shift), alike in groupby(candidates, lambda c: (c.solver, c.shift)):
            folder = prompts.name if shift is None else f"{prompts.name}-shift{shift:g}"
            contenders = {candidate: self._contender(candidate) for candidate in alike}
            self.put(solver, shift)
            store = self._store(place / folder, solver, shift, prompts)
            self._run(store, [*contenders.values()], prompts, count)
            table = store.read()
            for candidate, contender in contenders.items():
                drawn[candidate] = Drawn(store, _of(table, contender.setting, count))
        return drawn

    def put(self, solver: str, shift: float | None) -> None:
        """Have the model drawn by a solver, on its own grid or that of another shift."""
        backbone = self.evaluation.canvas.backbone
        config = self.scheduler if shift is None else {**self.scheduler, "shift": shift}
        backbone.pipe.scheduler = make_scheduler(solver, backbone.entry.family, config)

    def encode(self, texts: Sequence[str]) -> dict[str, TextConditions]:
        """The conditions of each distinct prompt, a batch of 1."""
        canvas, ahead = self.evaluation.canvas, self.evaluation.encode
        if ahead is not None:
            ahead(canvas, texts)
        return canvas.encode(texts)

    def _contender(self, candidate: Candidate) -> Contender:
        spec, entry = read_policy(candidate.policy), self.evaluation.canvas.backbone.entry
        gamma = 1.0 if spec.gamma is None else spec.gamma
        return Contender(ChosenPolicy(spec.label, make_policy(spec, entry), gamma), candidate.steps)

    def _store(self, path: Path, solver: str, shift: float | None, prompts: Prompts) -> Store:
        settings = {
            **self.evaluation.store.settings,
            "scheduler": solver,
            "dataset": prompts.texts.name,
            "split": prompts.texts.split,
            "prompts_sha256": prompts.texts.fingerprint,
            "seed": prompts.seed,
            **({} if shift is None else {"shift": shift}),
        }
        return Store.open(path, settings)

    def _run(
        self, store: Store, contenders: Sequence[Contender], prompts: Prompts, count: int
    ) -> None:
        check_descriptions(store, contenders)
        evaluation = replace(
            self.evaluation,
            store=store,
            contenders=contenders,
            prompts=prompts.texts,
            order=prompts.order[:count],
            seed=prompts.seed,
        )
        for more in evaluation.run(evaluation.pending()):
            self.on_drawn(more)
        store.compact()


def _of(table: pa.Table, setting: Setting, count: int) -> pa.Table:
    """The rows of a setting, of the first prompts."""
    own = pa.array([Setting.of(row) == setting for row in table.select(SETTING).to_pylist()])
    kept = table.filter(own)
    return kept.filter(pc.less(kept["prompt_id"], count))
