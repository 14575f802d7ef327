"""One call of `asyncdiff sample`: a request and a model become a plan, files and a report."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from asyncdiff_cli.engine.backbones.backbone import Backbone, load_outline
from asyncdiff_cli.engine.backbones.choice import ModelChoice
from asyncdiff_cli.engine.backbones.memory.advice import advise
from asyncdiff_cli.engine.backbones.outline import Outline
from asyncdiff_cli.engine.backbones.vocabulary import Vocabulary
from asyncdiff_cli.engine.drawing.draw import Written, check_sizes, execute, opened_for
from asyncdiff_cli.engine.drawing.parameters import has_parameters
from asyncdiff_cli.engine.drawing.plan import Plan, largest
from asyncdiff_cli.engine.drawing.planning import check_source_is_kept, make_plan
from asyncdiff_cli.engine.drawing.provenance import PanelProvenance, Provenance
from asyncdiff_cli.engine.drawing.request import Request
from asyncdiff_cli.engine.drawing.source_image import Record, first, read_source
from asyncdiff_cli.engine.files import check_directory
from asyncdiff_cli.engine.policies.base import StepState
from asyncdiff_cli.engine.policies.given import Synchronous

NOTHING_TO_SCALE = (
    "γ multiplies deviations, and this policy has none: give --deviation 0.5, or another --policy"
)


@dataclass(frozen=True)
class Job:
    """What is to be drawn, with what, into which directory."""

    plan: Plan
    model: ModelChoice
    """Every option of the model, as it is in force."""
    backbone: Backbone
    out: Path
    recorded: Record | None
    """What the request's `source` was drawn from."""
    parameters: bool = False
    """Whether images say in words that other tools read what drew them."""

    @property
    def warnings(self) -> list[str]:
        """A line about words that the backbone does not know, and one about a γ without effect."""
        vocabulary = Vocabulary.load(self.backbone.directory)
        prompts = [drawn.prompt for batch in self.plan.batches for drawn in batch.drawn]
        negatives = [batch.settings.negative_prompt or "" for batch in self.plan.batches]
        line = vocabulary and vocabulary.warning(self.backbone.name, [*prompts, *negatives])
        idle = any(
            isinstance(batch.settings.policy, Synchronous) and batch.settings.gamma not in (0, 1)
            for batch in self.plan.batches
        )
        return [*([line] if line else []), *([NOTHING_TO_SCALE] if idle else [])]

    def run(self, on_step: Callable[[StepState], None] | None = None) -> Iterator[Written]:
        """Run as `execute` does."""
        return execute(self.plan, self.backbone, self.out, on_step, self.parameters)

    def differences(self, written: Sequence[Written]) -> str | None:
        """Why a redrawn image may differ from its source in its bytes, if it may."""
        if self.recorded is None or not written:
            return None
        before, after = (
            _environment(first(record)) for record in (self.recorded, written[0].provenance)
        )
        changed = [
            f"{name} {before.get(name)} → {after.get(name)}"
            for name in before | after
            if before.get(name) != after.get(name)
        ]
        if not changed:
            return None
        hint = ""
        if before["fingerprint"] != after["fingerprint"] and self.backbone.checkpoint is None:
            hint = "; a --model-path is not recorded: if it was drawn with one, give it again"
        return f"drawn with another {', '.join(changed)}: pixels may differ{hint}"

    def renamed(self, written: Sequence[Written]) -> str | None:
        """The files that have other names than planned, beside those of other settings."""
        new = [file.path for file in written if file.path.name not in self.plan.files]
        if not new:
            return None
        return (
            f"{self.out} has images of the same names by other settings, which are kept:"
            f" {len(new)} of {len(written)} files are numbered, such as {new[0].name}"
        )

    def report(self, written: Sequence[Written], seconds: float) -> dict[str, Any]:
        """What was drawn, as JSON values."""
        records = {file.path: file.provenance for file in written}
        now = first(written[0].provenance)
        return {
            "images": [
                {
                    "path": str(path),
                    "prompt": record.prompt,
                    "seed": record.seed,
                    "gamma": record.gamma,
                    "deviations": record.deviations,
                    "cond_sigmas": record.cond_sigmas,
                }
                for path, record in records.items()
                if isinstance(record, Provenance)
            ],
            "panels": [
                {
                    "path": str(path),
                    "prompt": first(record).prompt,
                    "seeds": [row[0].seed for row in record.cells],
                    "gammas": [cell.gamma for cell in record.cells[0]],
                }
                for path, record in records.items()
                if isinstance(record, PanelProvenance) and not record.stepwise
            ],
            "sheets": [
                {
                    "path": str(path),
                    "prompt": record.cells[-1][0].prompt,
                    "seed": record.cells[-1][0].seed,
                    "gamma": record.cells[-1][0].gamma,
                }
                for path, record in records.items()
                if isinstance(record, PanelProvenance) and record.stepwise
            ],
            "seconds": round(seconds, 3),
            "backbone": now.backbone,
            "scheduler": now.scheduler,
            **_environment(now),
            "model": self.model.to_dict(),
            "settings": self.plan.settings,
        }


def open_job(
    request: Request,
    choice: ModelChoice,
    out: Path,
    on_warning: Callable[[str], None] = lambda _: None,
    parameters: bool | None = None,
    before_loading: Callable[[], None] = lambda: None,
) -> Job:
    """Plan the request and load the model.

    Args:
        before_loading: called once all is refused that is without a look at the memory.
        parameters: as of `Job`; None is yes, but for an image that is drawn again as its source
            was, so that it has its bytes.
        on_warning: told if the model will not fit, before it is loaded.

    Raises:
        InputError: for all that can be refused before the model runs.
        AsyncDiffError: if the model cannot be loaded.
    """
    recorded, choice = read_source(request, choice)
    check_directory(out)
    outline = Outline.of(choice)
    plan, outline = opened_for(make_plan(request, recorded, outline.entry, outline.size), outline)
    check_sizes(plan, outline)
    check_source_is_kept(request, plan, out)
    before_loading()
    if warning := advise(outline, largest(plan.batches, outline.entry)):
        on_warning(warning)
    if parameters is None:
        parameters = request.source is None or has_parameters(request.source)
    return Job(plan, outline.in_force(), load_outline(outline), out, recorded, parameters)


def _environment(record: Provenance) -> dict[str, str | None]:
    """What of the machine and the model decides about the bytes."""
    return {
        "device": record.device,
        "dtype": record.dtype,
        "revision": record.revision,
        "fingerprint": record.fingerprint,
        **record.versions,
    }
