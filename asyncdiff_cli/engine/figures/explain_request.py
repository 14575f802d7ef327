"""What a user asks to have explained, checked before anything heavy is imported."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from asyncdiff_cli.engine.backbones.choice import ModelChoice, flag
from asyncdiff_cli.engine.backbones.compatibility import check_asked, check_known_size
from asyncdiff_cli.engine.checks import check_count, check_steps
from asyncdiff_cli.engine.errors import InputError
from asyncdiff_cli.engine.policies.specs import find_policy
from asyncdiff_cli.engine.policies.spectrum_file import MeasuredSpectrum
from asyncdiff_cli.engine.policies.table import CHOOSING

MOST_SHIFT = 1000.0


@dataclass(frozen=True)
class ExplainRequest:
    """What a user asks to have explained. None is a default."""

    policies: str
    """The policies as `parse_policies` reads them."""
    model: ModelChoice
    """Whose grid it is, where a backbone is given; its solver and grid."""
    shift: float | None = None
    """The shift of a grid of no backbone."""
    steps: int | None = None
    size: int | None = None
    """Pixels."""
    spectrum: Path | None = None
    """The file of the data's spectrum; that of images in general."""
    reliance: int | None = None
    """Prompts on which the backbone's reliance on the time it is told is measured; none are."""
    dataset: str | None = None
    """The source of the prompts that `load_prompts` reads, with the next two."""
    prompts: Path | None = None
    data_dir: Path | None = None

    @property
    def of_backbone(self) -> bool:
        """Whether a backbone is given."""
        return self.model.backbone is not None or self.model.model_path is not None

    def check(self) -> None:
        """Check all that names, numbers and the disk tell.

        Raises:
            InputError: for a policy that reads the picture, which there is none of; for settings
                that cannot be, or not together.
        """
        check_asked(self.model)
        for spec in map(find_policy, self.policies.split(",")):
            if spec.name in CHOOSING:
                raise InputError(
                    f"{spec.label} chooses by the picture, and here there is none: give its mean"
                    " deviations as schedule:D1/D2/…"
                )
        if self.spectrum is not None:
            MeasuredSpectrum.load(self.spectrum)
        if self.steps is not None:
            check_steps(self.steps)
        check_count("--reliance", self.reliance)
        if not self.of_backbone:
            self._check_alone()
        elif self.shift is not None:
            raise InputError("--shift is of no backbone's grid: leave it or --backbone out")
        elif self.size is not None:
            check_known_size(self.model, self.size, self.size)

    def _check_alone(self) -> None:
        """Nothing is asked for that only a backbone has."""
        own: dict[str, Any] = {
            "--size": self.size,
            "--reliance": self.reliance,
            "--dataset": self.dataset,
        }
        own |= {"--prompts": self.prompts, "--data-dir": self.data_dir}
        model = {flag(name): getattr(self.model, name) for name in ModelChoice.options()}
        for name in ("scheduler", "grid"):  # which a grid of no backbone has too
            del model[flag(name)]
        for name, value in {**own, **model}.items():
            if value not in (None, False, ()):
                raise InputError(f"{name} is of a backbone: give --backbone")
        if self.shift is not None and self.model.grid == "uniform":
            raise InputError("--grid uniform has no shift: leave --shift or --grid out")
        if self.shift is not None and not 0 < self.shift <= MOST_SHIFT:
            raise InputError(
                f"shift is a number above 0 and at most {MOST_SHIFT:g}, not {self.shift:g}"
            )
