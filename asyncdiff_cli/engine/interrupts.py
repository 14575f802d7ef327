"""Signals that end a command, which all commands take alike."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
)


class Terminated(KeyboardInterrupt):
    """SIGTERM has come, or SIGHUP of a terminal that is gone: what ends a command as ctrl-C does.

    Args:
        number: the signal's.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class OutputClosed(BaseException):
    """Nobody reads what a command prints any more, as behind `head`: no error, but the end."""


def exit_code(interrupt: KeyboardInterrupt | OutputClosed) -> int:
    """The exit code of a command that a signal has ended, as SIGPIPE would if Python let it."""
    if isinstance(interrupt, OutputClosed):
        return 128 + 13
    return 128 + (interrupt.number if isinstance(interrupt, Terminated) else signal.SIGINT)


@contextmanager
def as_interrupts() -> Iterator[None]:
    """Let SIGTERM and SIGHUP interrupt the block as ctrl-C does: so launchers and closed terminals
    end a run.

    What the process was started to ignore stays ignored. After the block all is as before.

    Raises:
        KeyboardInterrupt, Terminated: also where a library has caught it or made another error of
            it, as those do that were being imported.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[KeyboardInterrupt] = []

    def interrupt(number: int, _: FrameType | None) -> None:
        came.append(KeyboardInterrupt() if number == signal.SIGINT else Terminated(number))
        if number != signal.SIGTERM:  # what a terminal has sent to all a launcher repeats
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise came[0]

    before = {number: signal.getsignal(number) for number in SIGNALS}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, interrupt)
    try:
        yield
        if came:
            raise came[0]
    except Exception as error:
        if came and getattr(error, "exit_code", 0) < 128:
            raise came[0] from None
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def ignore_interrupts() -> None:
    """Finish what is left to do until the end of `as_interrupts`, whatever comes."""
    if threading.current_thread() is threading.main_thread():
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)
