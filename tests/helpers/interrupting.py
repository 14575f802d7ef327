"""Commands that are stopped on their way."""

import os
from contextlib import contextmanager

import pytest


@contextmanager
def stopped_after(found):
    """Interrupt a command when it has kept so many things that it found, before it keeps more."""
    replace, kept = os.replace, []

    def replace_or_stop(source, target):
        if os.path.dirname(target) == "":
            if len(kept) == found:
                raise KeyboardInterrupt
            kept.append(target)
        replace(source, target)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "replace", replace_or_stop)
        yield
