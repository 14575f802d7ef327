"""A run that the tests of several modules write into."""

import pytest

from asyncdiff_cli.engine.training.run import RunDirectory


@pytest.fixture
def run(tmp_path):
    return RunDirectory(tmp_path / "run", "ours")
