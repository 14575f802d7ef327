"""What a module may decide at a step, told without torch.

Each action of a step has a Beta of its own, whose mode is 0.5 in an untrained module, the
synchronous sampler; the grid, which is decided once, has a Dirichlet, whose mode is the scheduler's
own. They are drawn independently: the log-probability of a decision is the sum over its actions,
and one ratio π/π_old belongs to all of them.
"""

from __future__ import annotations

from collections.abc import Sequence

DEVIATION, SCALING, SPACING = "deviation", "scale", "grid"
ACTIONS = (DEVIATION, SCALING, SPACING)
"""Actions in the order in which a module answers:

"deviation": D, how far ahead the next evaluation is told to be (Eq. 11, 13);
"scale": ω, what the next evaluation's velocity is multiplied by (Eq. 19, 20);
"grid": after evaluation 0, how long the steps but the first are (as arXiv 2511.22177, once an
image, by a Dirichlet over their shares). It goes with one of the others.
"""


def of_steps(actions: Sequence[str]) -> tuple[str, ...]:
    """The actions that are decided at each step."""
    return tuple(name for name in actions if name != SPACING)


def check_actions(actions: Sequence[str]) -> tuple[str, ...]:
    """The actions in order.

    Raises:
        ValueError: for none, one that is unknown, or one that is there twice.
    """
    ordered = tuple(name for name in ACTIONS if name in actions)
    if not ordered or len(ordered) != len(actions):
        raise ValueError(f"actions are {', '.join(ACTIONS)}, one or more of them, once each")
    if not of_steps(ordered):
        raise ValueError(f"{SPACING} goes with {DEVIATION}, {SCALING} or both")
    return ordered
