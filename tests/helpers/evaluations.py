"""Evaluations that are run to their end, and their rows."""

import itertools

from tests.helpers.training import assert_close


def finish(evaluation, batches=None):
    """Draw what is pending, or so many batches of it; how many images each had."""
    return list(itertools.islice(evaluation.run(evaluation.pending()), batches))


def rows(store, *without):
    """All rows but what depends on the machine's mood."""
    dropped = ("seconds", *without)
    return [{k: v for k, v in row.items() if k not in dropped} for row in store.read().to_pylist()]


def assert_alike(ours, theirs, tolerance=1e-5):
    """The same rows in the same order, of about the same numbers; batches may be others."""
    for one, other in zip(rows(ours, "provenance"), rows(theirs, "provenance"), strict=True):
        exact, measured = ({}, {}), ({}, {})
        for n, row in enumerate((one, other)):
            for name, value in row.items():
                (measured if isinstance(value, float | list) else exact)[n][name] = value
        assert exact[0] == exact[1]
        assert_close(*measured, tolerance)
