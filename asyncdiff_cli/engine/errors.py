"""How the engine refuses to go on, and how it warns. The messages are one line for the user."""


class AsyncDiffError(Exception):
    """Something failed while it ran, or the environment lacks something (exit code 1)."""

    exit_code = 1


class AsyncDiffWarning(UserWarning):
    """What a user should know although the work goes on. The command line prints it."""


class InputError(AsyncDiffError, ValueError):
    """What was asked for cannot be done as asked (exit code 2)."""

    exit_code = 2
