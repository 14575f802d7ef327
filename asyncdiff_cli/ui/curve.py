"""What the page's editor shows of a run, and the policy that a drag makes of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from asyncdiff_cli.engine.backbones.registry import BASELINE
from asyncdiff_cli.engine.errors import InputError
from asyncdiff_cli.engine.policies.specs import plain
from asyncdiff_cli.engine.policies.table import POLICIES, SCHEDULE_FILE


@dataclass(frozen=True)
class Curve:
    """A run's own times, the times that its model was told, and what chose them.

    Attributes:
        sigmas: t_k of each evaluation, and a last 0.
        cond_sigmas: t*_k of each evaluation.
        deviations: D before γ, of each evaluation but the first.
        gamma: γ.
    """

    sigmas: tuple[float, ...]
    cond_sigmas: tuple[float, ...]
    deviations: tuple[float, ...]
    gamma: float


def schedule_line(deviations: Sequence[float]) -> str:
    """The policy of these deviations, as a command line asks for it; that of none is no deviation.

    Example:
        >>> schedule_line([0.5, 0.0, -0.25])
        'schedule:0.5/0/-0.25'
    """
    return f"schedule:{'/'.join(map(plain, deviations))}" if deviations else BASELINE


def policy_of(place: str) -> str:
    """The policy of a schedule, a spectrum or a module's directory, as a command line asks for it.

    Example:
        >>> policy_of("outputs/fox.json"), policy_of("runs/mini/tpm")
        ('schedule:outputs/fox.json', 'learned:runs/mini/tpm')
    """
    place = place.strip()
    if not place.endswith(SCHEDULE_FILE):
        return f"learned:{place}"
    try:
        POLICIES["spectral"].read_file(place)
    except InputError:
        return f"schedule:{place}"
    return f"spectral:{place}"
