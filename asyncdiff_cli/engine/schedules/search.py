"""How long a search for a schedule is, and what it costs."""

from __future__ import annotations

from dataclasses import dataclass

from asyncdiff_cli.engine.checks import check_choice
from asyncdiff_cli.engine.errors import InputError
from asyncdiff_cli.engine.limits import MAX_VALUES

SPLIT = 10
"""Steps of the teacher in one of the student's."""
CANDIDATES = 6
"""Evaluations of a line search: in one deviation the error is close to a parabola."""
SWEEPS = 1
OBJECTIVES = "latents", "spectrum"
"""What is to come closest: the latents themselves, or how much of them is at each scale."""


@dataclass(frozen=True)
class Search:
    """How long is searched.

    Args:
        split: steps of the teacher in one of the student's, at least 2.
        candidates: evaluations of a line search, at least 3.
        sweeps: how often all deviations are refined on the last latents, at least 0.
        objective: one of `OBJECTIVES`.

    Raises:
        InputError: for a number outside its range, or another objective.
    """

    split: int = SPLIT
    candidates: int = CANDIDATES
    sweeps: int = SWEEPS
    objective: str = OBJECTIVES[0]

    def __post_init__(self) -> None:
        check_choice("objective", self.objective, OBJECTIVES)
        for name, least in (("split", 2), ("candidates", 3), ("sweeps", 0)):
            if not least <= getattr(self, name) <= MAX_VALUES:
                raise InputError(
                    f"{name} is at least {least} and at most {MAX_VALUES}, not"
                    f" {getattr(self, name)}"
                )

    def evaluations(self, steps: int) -> int:
        """How often the denoiser is asked for each image by a whole search, at most."""
        finding = steps + (self.candidates + 1) * (steps - 1)
        return self.teaching(steps) + finding + self.refining(steps)

    def teaching(self, steps: int) -> int:
        """The same of drawing in many steps."""
        return self.split * steps

    def refining(self, steps: int) -> int:
        """The same of the sweeps, and of choosing between two schedules that they begin at."""
        if not self.sweeps:
            return 0
        one = steps + (self.candidates + 1) * steps * (steps - 1) // 2
        return 2 * steps + self.sweeps * one

    def constant(self, steps: int) -> int:
        """The same of the search for one deviation for all steps."""
        return (self.candidates + 1) * steps

    def calibrating(self, images: int, tried: int, steps: int) -> int:
        """Evaluations of a calibration on so many images, and of trying it on others, at most."""
        searched = self.evaluations(steps) + self.constant(steps) + 2 * steps
        return images * searched + tried * (self.teaching(steps) + 4 * steps)

    def distilling(self, images: int, tried: int, steps: int) -> int:
        """The same of a distillation."""
        searched = 3 * steps + max(self.refining(steps), 2 * steps)
        return images * searched + tried * (self.teaching(steps) + 3 * steps)
