"""How the engine refuses to go on, and how it warns. The messages are one line for the user."""

import errno


class AsyncDiffError(Exception):
    """Something failed while it ran, or the environment lacks something (exit code 1)."""

    exit_code = 1


class AsyncDiffWarning(UserWarning):
    """What a user should know although the work goes on. The command line prints it."""


class InputError(AsyncDiffError, ValueError):
    """What was asked for cannot be done as asked (exit code 2)."""

    exit_code = 2


OF_THE_USER = frozenset(
    getattr(errno, name)
    for name in (
        "EACCES", "EEXIST", "EISDIR", "ELOOP", "ENAMETOOLONG", "ENOENT", "ENOTDIR", "EPERM", "EROFS"
    )
)  # fmt: skip
"""What the system says of a path that was asked for, and not of the machine."""


def of_system(doing: str, error: OSError) -> AsyncDiffError:
    """An error of the system: of bad input if another path would do, and else a failure."""
    kind = InputError if error.errno in OF_THE_USER else AsyncDiffError
    return kind(f"{doing}: {error.strerror or error}")


def explained(error: Exception) -> AsyncDiffError | None:
    """An error in a user's words; None for one that only a fault of this program can cause."""
    if isinstance(error, AsyncDiffError):
        return error
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":  # torch's
        return AsyncDiffError(
            "out of memory: use a smaller --batch-size or --size, --quantize or --offload"
        )
    if isinstance(error, OSError) and error.strerror:
        names = [str(name) for name in (error.filename, error.filename2) if name is not None]
        return of_system(" and ".join(names) or "the system", error)
    if isinstance(error, UnicodeEncodeError):
        return InputError(f"{error.object!a} is not Unicode text")
    if isinstance(error, ValueError) and "null byte" in str(error):
        return InputError("a path holds a NUL character")
    return None


def in_words(error: Exception) -> AsyncDiffError:
    """An error in one line: as `explained`, or as a fault of this program, to be reported."""
    return explained(error) or AsyncDiffError(
        f"internal, {type(error).__name__}: {error} (a fault of asyncdiff: please report this line,"
        " the command, and what `asyncdiff --debug …` shows of it)"
    )
