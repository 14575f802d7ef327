"""Stores that the tests of several modules write into."""

import pytest

from tests.helpers.stores import begun, row


@pytest.fixture
def store(tmp_path):
    return begun(tmp_path / "store")


@pytest.fixture
def filled(store):
    """Two policies on four prompts, a part per prompt."""
    for n in range(4):
        store.write([row(n, sharpness=float(n)), row(n, "fixed:0.5", sharpness=n + 1.0)])
    return store
