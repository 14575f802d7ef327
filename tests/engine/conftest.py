"""A tiny pipeline on the disk, for trainings."""

import pytest

from tests.conftest import tiny_sd3


@pytest.fixture(scope="session")
def sd3_directory(tmp_path_factory):
    path = tmp_path_factory.mktemp("sd3")
    tiny_sd3().save_pretrained(path)
    return path
