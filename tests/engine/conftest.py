"""A tiny pipeline on the disk, for trainings."""

import pytest


@pytest.fixture(scope="session")
def sd3_directory(pipelines):
    return pipelines["sd3"]
