"""The two ways in which the engine refuses to go on. Their messages are one line for the user."""


class AsyncDiffError(Exception):
    """Something failed while it ran, or the environment lacks something (exit code 1)."""

    exit_code = 1


class InputError(AsyncDiffError, ValueError):
    """What was asked for cannot be done as asked (exit code 2)."""

    exit_code = 2
