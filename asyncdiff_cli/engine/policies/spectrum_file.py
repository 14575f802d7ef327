"""A spectrum as a file: how much of a model's latents there is at each scale, and whose it is."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, JsonValue, model_validator
from typing_extensions import Self

from asyncdiff_cli.engine.limits import MAX_NUMBER, MAX_SIDE
from asyncdiff_cli.engine.reading import AS_TUPLE, Saved

if TYPE_CHECKING:
    from asyncdiff_cli.engine.policies.spectra import Rows, Spectrum
    from asyncdiff_cli.engine.policies.spectral import SpectralDeviation

SPECTRUM_DECIMALS = 6
"""Decimals of a number of the file, so that processors that round differently write the same."""


_Frequency = Annotated[float, Field(ge=0, le=MAX_SIDE)]
_Size = Annotated[float, Field(ge=0, le=MAX_NUMBER)]
_Share = Annotated[float, Field(gt=0, le=1)]
_PER_FREQUENCY = Field(min_length=1, max_length=MAX_SIDE)


class MeasuredSpectrum(Saved):
    """What was measured of clean latents, a number per radial frequency. None is not known.

    Example:
        >>> measured = MeasuredSpectrum(frequency=(0.0, 1.0), std=(2.0, 1.0), share=(0.25, 0.75))
        >>> measured.spectrum().std.tolist()
        [2.0, 1.0]
    """

    file: ClassVar[str] = "spectrum.json"
    """Its name in a hub repository."""

    format: Literal[1] = 1
    frequency: Annotated[tuple[_Frequency, ...], AS_TUPLE, _PER_FREQUENCY]
    """Cycles per image, rising."""
    std: Annotated[tuple[_Size, ...], AS_TUPLE, _PER_FREQUENCY]
    """s of a component at each; that of the noise is 1."""
    share: Annotated[tuple[_Share, ...], AS_TUPLE, _PER_FREQUENCY]
    """Each one's share of all components."""
    backbone: str | None = None
    revision: str | None = None
    steps: int | None = None
    """K of the runs whose last latents were measured."""
    guidance_scale: float | None = None
    height: int | None = None
    width: int | None = None
    """Pixels."""
    made: dict[str, JsonValue] = Field(default_factory=dict)
    """The command, versions, prompts and whatever else makes it again."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if not len(self.frequency) == len(self.std) == len(self.share):
            raise ValueError("frequency, std and share have a number each per frequency")
        if any(low >= high for low, high in pairwise(self.frequency)):
            raise ValueError("frequency rises from number to number")
        if not any(self.std):
            raise ValueError(
                "std is 0 at every frequency, and of nothing there is no best schedule"
            )
        return self

    @classmethod
    def of(cls, spectrum: Spectrum, **known: Any) -> Self:
        """Round a spectrum, and say what is known of it by this class's fields."""
        frequency, *others = zip(*spectrum.rows, strict=True)
        std, share = (
            tuple(round(value, SPECTRUM_DECIMALS) for value in column) for column in others
        )
        return cls(frequency=frequency, std=std, share=share, **known)

    def spectrum(self) -> Spectrum:
        """The spectrum, whose weights have a sum of 1."""
        from asyncdiff_cli.engine.policies.spectra import Spectrum

        return Spectrum.of_rows(self.rows)

    @property
    def rows(self) -> Rows:
        """Its numbers, as `Spectrum.rows`."""
        return tuple(zip(self.frequency, self.std, self.share, strict=True))

    def policy(self, source: str | None = None) -> SpectralDeviation:
        """The policy whose schedules are best for it, which records the hub repository of it."""
        from asyncdiff_cli.engine.policies.spectral import SpectralDeviation

        return SpectralDeviation(spectrum=self.rows, source=source)
