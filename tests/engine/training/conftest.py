"""Runs that the tests of several modules read and go on with."""

import json
import shutil

import pytest

from asyncdiff_cli.engine.training.run import RunDirectory
from tests.helpers.training import trained


@pytest.fixture
def run(tmp_path):
    return RunDirectory(tmp_path / "run", "ours")


@pytest.fixture(scope="package")
def whole(tmp_path_factory, sd3_directory):
    """Uninterrupted runs, each trained once; copy one to change it."""
    directory, kept = tmp_path_factory.mktemp("runs"), {}

    def run(**changes):
        key = json.dumps(changes, sort_keys=True)
        if key not in kept:
            trained(directory / str(len(kept)), sd3_directory, **changes)
            kept[key] = directory / str(len(kept))
        return kept[key]

    return run


@pytest.fixture
def copied(whole, tmp_path):
    """A whole run that may be changed, at `r`."""
    return lambda **changes: shutil.copytree(whole(**changes), tmp_path / "r")


@pytest.fixture
def reference(whole):
    """An uninterrupted run with samples; leave it as it is."""
    return whole(samples={"every": 2, "count": 2})
