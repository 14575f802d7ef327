"""The learned policies: the mode of the module's Beta, and draws from it for training."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from contextlib import redirect_stdout
from functools import cached_property
from io import StringIO
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from typing_extensions import Self

from asyncdiff_cli.engine import desync
from asyncdiff_cli.engine.deferred import to_device
from asyncdiff_cli.engine.errors import AsyncDiffError, InputError
from asyncdiff_cli.engine.hashes import sha256_of_tensors
from asyncdiff_cli.engine.hub import fetch_files, hub_errors
from asyncdiff_cli.engine.policies.actions import DEVIATION, SCALING, SPACING, of_steps
from asyncdiff_cli.engine.policies.base import Policy, StepState
from asyncdiff_cli.engine.policies.modules import (
    MODULE_FILES,
    backbone_of,
    find_module,
    read_config,
)
from asyncdiff_cli.engine.policies.observation import Observation
from asyncdiff_cli.engine.policies.own_grid import OwnGrid, concentration, shares_of, tilted
from asyncdiff_cli.engine.policies.tpm import TimestepPredictionModule, mode
from asyncdiff_cli.engine.repository import Repository
from asyncdiff_cli.engine.text import one_line

RATIO_MARGIN = 1e-6
"""Draws keep so far from 0 and 1, where rounding would put an infinite log-density."""


class _Acting:
    """What a module decides, carried out: it has the policy's methods besides being asked."""

    tpm: TimestepPredictionModule
    _scale: Tensor | None = None

    @property
    def bound(self) -> float:
        """The bound of the training, 0.5 or 1."""
        return self.tpm.bound

    def velocity_scale(self, sigma: Tensor, cond_sigma: Tensor, gamma: float) -> Tensor | None:
        """1 + γ·(ω − 1) with ω as decided before this evaluation, [B]; None at the first one."""
        return None if self._scale is None else desync.scale_factor(self._scale, gamma)

    def _act(self, ratios: Tensor) -> Tensor:
        """D of each image, [B]; what else is decided is kept for the next evaluation.

        Args:
            ratios: r* of each action, [A, B].
        """
        decided = dict(zip(of_steps(self.tpm.actions), ratios, strict=True))
        if SCALING in decided:
            self._scale = desync.scale_from_ratio(decided[SCALING])
        if DEVIATION not in decided:
            return torch.zeros_like(ratios[0])
        return desync.deviation_from_ratio(decided[DEVIATION], self.bound)


class LearnedDeviation(_Acting):
    """The mode of the module's Beta at each step and for each image (Eq. 18).

    A module that scales velocities too has a second Beta, whose mode says ω. γ multiplies D and
    ω − 1 alike, so that at 0 the images are the stock pipeline's.

    Args:
        tpm: a trained module. It moves to the device of the latents that it sees.
        source: where it was loaded from, for the provenance.

    Example:
        >>> tpm = TimestepPredictionModule(16, 256, 256, bound=1.0, width=32, layers=1, heads=2)
        >>> LearnedDeviation(tpm).bound  # or LearnedDeviation.load("runs/mini/tpm")
        1.0
    """

    name = "learned"

    def __init__(self, tpm: TimestepPredictionModule, source: str | None = None) -> None:
        self.tpm, self.source = tpm.eval(), source
        self._kept: tuple[Any, tuple[Tensor, Tensor], tuple[Tensor, Tensor]] | None = None

    @classmethod
    def load(cls, source: str | Path) -> Self:
        """The policy of a backbone's shipped module, of a directory, or of a hub repository.

        Of a repository, OWNER/NAME[@REVISION], the policy's `source` names the commit.

        Raises:
            InputError: if there is no module of that name.
            AsyncDiffError: if it cannot be fetched or is damaged.
        """
        directory, place = _locate(str(source))
        return cls(_load(source, directory), place)

    @classmethod
    def from_dict(cls, settings: dict[str, Any]) -> Self:
        """The policy that `to_dict` described.

        Raises:
            InputError: if its module has no place to be loaded from, or is another one by now.
        """
        source = settings.get("source")
        if source is None:
            raise InputError("this policy's module was never saved: there is nothing to load")
        policy = cls.load(source)
        if settings.get("fingerprint") not in (None, policy.fingerprint):
            raise InputError(
                f"the module in {source} is not the one that was used (its weights differ): put the"
                " old one back, or choose a policy with --tpm or --deviation"
            )
        return policy

    def for_run(self, sigmas: Tensor, solver: str) -> Policy:
        """The same, with a memory of its own for what it decides besides D."""
        if self.tpm.actions == (DEVIATION,):
            return self
        _ = self.fingerprint  # by which copies for the images of a batch are told to be equal
        own = copy.copy(self)
        return OwnGrid(own, sigmas, solver) if SPACING in self.tpm.actions else own

    @torch.no_grad()
    def choose(self, state: StepState, sigmas: Tensor) -> Tensor:
        """The mode of the module's Dirichlet, fp64 [B, K − 1]: the likeliest shares of steps."""
        return tilted(shares_of(sigmas), self.tpm.lengths(observed(self.tpm, state), sigmas))

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over the names and bytes of the weights, as they were when first asked."""
        return sha256_of_tensors(self.tpm.state_dict())

    @torch.no_grad()
    def __call__(self, state: StepState) -> Tensor:
        seen = observed(self.tpm, state)
        return self._act(mode(*self.tpm(seen, self._constant(state, seen))))

    def _constant(self, state: StepState, seen: Observation) -> tuple[Tensor, Tensor]:
        """`TimestepPredictionModule.constant`, made once a run and forgotten at its end."""
        text = state.prompt_embeds, state.pooled_prompt_embeds
        key = (*map(_place, text), seen.latents.shape)
        if state.index == 0 or self._kept is None or self._kept[0] != key:
            self._kept = key, text, self.tpm.constant(seen)  # the text, so that it stays there
        constant = self._kept[2]
        if state.index + 2 == state.num_evaluations:
            self._kept = None
        return constant

    def __eq__(self, other: object) -> bool:
        """Whether it is the same module, so that images of equal policies share a batch."""
        return isinstance(other, LearnedDeviation) and self.to_dict() == other.to_dict()

    def __hash__(self) -> int:
        return hash(self.fingerprint)

    def to_dict(self) -> dict[str, Any]:
        return {"name": self.name, "source": self.source, "fingerprint": self.fingerprint}


class BetaDraws(Protocol):
    """What draws from Beta and Dirichlet distributions, such as a generator of numpy's."""

    def beta(self, a: float, b: float, /) -> float:
        """The next draw, in [0, 1]."""
        ...

    def dirichlet(self, alpha: np.ndarray, /) -> np.ndarray:
        """The next draw of shares, which sum to 1."""
        ...


class SampledDeviation(_Acting):
    """Draws from the module's Betas in one run, and keeps what it saw and drew.

    Args:
        generators: one per image, so that a draw belongs to its image and not to the batch.
    """

    def __init__(self, tpm: TimestepPredictionModule, generators: Sequence[BetaDraws]) -> None:
        self.tpm, self.generators = tpm, generators
        self.seen: list[Observation] = []
        self.ratios: list[Tensor] = []
        """r* of each action, one decision's after the other's, [B] each."""
        self.scales: list[Tensor] = []
        """ω of each decision, [B] each; none of a module that leaves velocities alone."""
        self.shares, self.sigmas = torch.zeros(len(generators), 0), torch.zeros(0)
        """Shares of the steps but the first as drawn, fp64 [B, K − 1], of a scheduler's grid
        [K + 1]; none of a module that leaves the grid alone."""

    def for_run(self, sigmas: Tensor, solver: str) -> Policy:
        """The same, on the grids that it draws."""
        return OwnGrid(self, sigmas, solver) if SPACING in self.tpm.actions else self

    @torch.no_grad()
    def choose(self, state: StepState, sigmas: Tensor) -> Tensor:
        """Shares of the steps, drawn from the module's Dirichlet, fp64 [B, K − 1]."""
        lengths = self.tpm.lengths(observed(self.tpm, state), sigmas)
        alpha = concentration(lengths, sigmas).cpu().numpy()
        state.checks.settle()  # that was a wait anyway
        drawn = [g.dirichlet(own) for g, own in zip(self.generators, alpha, strict=True)]
        shares = torch.from_numpy(np.stack(drawn)).clamp(min=RATIO_MARGIN)
        self.sigmas = sigmas
        self.shares = to_device(shares / shares.sum(-1, keepdim=True), self.tpm.device)
        return self.shares

    @torch.no_grad()
    def __call__(self, state: StepState) -> Tensor:
        seen = observed(self.tpm, state)
        alpha, beta = 1 + torch.stack(self.tpm(seen)).double().cpu().numpy()
        state.checks.settle()  # that was a wait anyway
        drawn = [
            [g.beta(a, b) for a, b in zip(*own, strict=True)]
            for g, *own in zip(self.generators, alpha.T, beta.T, strict=True)
        ]  # on the CPU: the same draws whatever the device
        ratios = to_device(torch.tensor(drawn, dtype=torch.float32), self.tpm.device).T
        ratios = ratios.clamp(RATIO_MARGIN, 1 - RATIO_MARGIN)
        self.seen.append(seen)
        self.ratios += ratios
        deviation = self._act(ratios)
        if self._scale is not None:
            self.scales.append(self._scale)
        return deviation

    def to_dict(self) -> dict[str, Any]:
        return {"name": "sampled"}


def _place(tensor: Tensor) -> tuple[Any, ...]:
    """What tells a tensor from others that are there at the same time, and from what it was."""
    memory = tensor.untyped_storage()._cdata, tensor.storage_offset()
    return *memory, tensor.shape, tensor.stride(), tensor._version


def observed(tpm: TimestepPredictionModule, state: StepState) -> Observation:
    """What the module sees of a step.

    Raises:
        InputError: for a model whose latents or text the module was not made for.
    """
    seen = Observation.of(state)
    shapes = {
        "latent": (seen.latents.shape[2], tpm.latent_channels),
        "prompt": (seen.prompt_embeds.shape[-1], tpm.sequence.in_features),
        "pooled prompt": (seen.pooled_prompt_embeds.shape[-1], tpm.pooled.in_features),
    }
    for name, (own, wanted) in shapes.items():
        if own != wanted:
            raise InputError(
                f"this timestep prediction module was trained for {wanted} {name} channels, and the"
                f" backbone has {own}: train one for it with `asyncdiff train`"
            )
    if tpm.device != seen.latents.device:
        tpm.to(seen.latents.device)
    return seen


def load_tpm(source: str | Path) -> TimestepPredictionModule:
    """A module of a source as `find_module` takes it.

    Raises:
        InputError: if there is none.
        AsyncDiffError: if it cannot be fetched or is damaged.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> tpm = TimestepPredictionModule(16, 256, 256, width=32, layers=1, heads=2)
        >>> with TemporaryDirectory() as directory:  # or runs/mini/tpm, as training makes it
        ...     tpm.save_pretrained(directory)
        ...     load_tpm(directory).bound
        0.5
    """
    return _load(source, _locate(str(source))[0])


def _locate(source: str) -> tuple[Path, str]:
    """The directory of a module, and the place of it that a record has."""
    found = find_module(source)
    if isinstance(found, Repository):
        directory = _download(found)
        return directory, str(found._replace(revision=directory.name))
    return found, source if backbone_of(source) is not None else str(found.absolute())


def _load(source: str | Path, path: Path) -> TimestepPredictionModule:
    read_config(source, path)
    try:
        with redirect_stdout(StringIO()):  # from_pretrained prints where it loads from
            return TimestepPredictionModule.from_pretrained(path, strict=True).eval()
    except InputError as error:
        raise InputError(f"the module in {source}: {error}") from None
    except Exception as error:  # for files of another shape the libraries raise any class
        raise AsyncDiffError(
            f"the module in {source} is incomplete or damaged ({one_line(error)})"
        ) from None


def _download(repository: Repository) -> Path:
    """The directory of a hub repository's module."""
    with hub_errors(
        repository.name,
        local="the directory of a module",
        embedded="that of mini needs no download",
        lacking="holds no timestep prediction module",
    ):
        return fetch_files(repository, *MODULE_FILES)
