"""What a module may decide at a step, told without torch.

Each action has a Beta of its own, whose mode is 0.5 in an untrained module, the synchronous
sampler. They are drawn independently: the log-probability of a decision is the sum over its
actions, and one ratio π/π_old belongs to all of them.
"""

from __future__ import annotations

from collections.abc import Sequence

DEVIATION, SCALING = "deviation", "scale"
ACTIONS = (DEVIATION, SCALING)
"""Actions in the order in which a module answers:

"deviation": D, how far ahead the next evaluation is told to be (Eq. 11, 13);
"scale": ω, what the next evaluation's velocity is multiplied by (Eq. 19, 20).
"""


def check_actions(actions: Sequence[str]) -> tuple[str, ...]:
    """The actions in order.

    Raises:
        ValueError: for none, one that is unknown, or one that is there twice.
    """
    ordered = tuple(name for name in ACTIONS if name in actions)
    if not ordered or len(ordered) != len(actions):
        raise ValueError(f"actions are {' and '.join(ACTIONS)}, one or more of them, once each")
    return ordered
