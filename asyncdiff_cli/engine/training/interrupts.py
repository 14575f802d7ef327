"""What ends a training before its last iteration, and how it can go on after that."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from asyncdiff_cli.engine.errors import AsyncDiffError
from asyncdiff_cli.engine.interrupts import as_interrupts, exit_code, ignore_interrupts
from asyncdiff_cli.engine.training.checkpoint import Checkpoint
from asyncdiff_cli.engine.training.run import RunDirectory


class InterruptedRunError(AsyncDiffError):
    """Someone stopped the training; a checkpoint of the last complete iteration is written."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


@dataclass
class LastComplete:
    """The last complete iteration of a run, which may be more than what is on the disk.

    Attributes:
        run: where it is written.
        keep: how many checkpoints are kept beside the best.
        checkpoint: its state.
        is_main: whether this process writes.
    """

    run: RunDirectory
    keep: int
    checkpoint: Checkpoint
    is_main: bool

    def save(self) -> None:
        """Write it, if it is not the start."""
        if self.is_main and self.checkpoint.iteration > 0:
            ignore_interrupts()
            self.run.save(self.checkpoint, self.keep, self.checkpoint.state["best"])

    @property
    def hint(self) -> str:
        """What to do to go on."""
        files = self.run.files()
        if not files:
            return "there is no checkpoint yet"
        return f"go on from {files[-1].name} with `asyncdiff train --resume {self.run.path}`"


@contextmanager
def resumable(last: LastComplete, iteration: Callable[[], int], processes: int) -> Iterator[None]:
    """Run the block so that whatever ends it is one line that says how to go on.

    Args:
        last: what is saved if it is a signal, or the end of another process.
        iteration: the one that the block is in.
        processes: those of the run.

    Raises:
        InterruptedRunError: on SIGINT, SIGTERM or SIGHUP.
        AsyncDiffError: for one in the block, if memory does not suffice, or if another process has
            died.
    """
    try:
        with as_interrupts():  # in here, so that one that a library makes an error of is one
            yield
    except KeyboardInterrupt as interrupt:
        last.save()
        raise InterruptedRunError(
            f"stopped after iteration {last.checkpoint.iteration}; {last.hint}",
            exit_code(interrupt),
        ) from None
    except AsyncDiffError as error:
        kind = type(error)
        raise kind(f"iteration {iteration()}: {error}; {last.hint}") from None
    except torch.OutOfMemoryError:
        raise AsyncDiffError(
            f"iteration {iteration()}: out of memory while encoding, scoring or updating: use"
            f" offload_rewards=true, or a smaller mini_batch_size; {last.hint}"
        ) from None
    except RuntimeError as error:
        if processes == 1:
            raise
        last.save()  # a collective failed
        raise AsyncDiffError(
            f"this process, or another one of the run, has failed in iteration {iteration()}"
            f" ({error}); {last.hint}"
        ) from None
