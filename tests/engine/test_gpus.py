"""GPUs are counted as torch counts them, whatever driver there is."""

import ctypes

import pytest
import torch

from asyncdiff_cli.engine import gpus


@pytest.fixture
def count(monkeypatch):
    """The GPUs of a machine: of a torch that was built so, and a driver that answers so."""

    def counted(build, driver):
        monkeypatch.setattr(gpus, "_build_of_torch", lambda: build)
        monkeypatch.setattr(ctypes, "CDLL", driver)
        return gpus.count_gpus.__wrapped__()

    return counted


class Driver:
    """A driver for CUDA 13 that finds two GPUs, or none."""

    def __init__(self, newest=13010, fails=0):
        self.newest, self.fails = newest, fails

    def __call__(self, name):
        return self

    def cuInit(self, flags):  # noqa: N802
        return self.fails

    def cuDriverGetVersion(self, place):  # noqa: N802
        place._obj.value = self.newest
        return 0

    def cuDeviceGetCount(self, place):  # noqa: N802
        place._obj.value = 2
        return 0


def missing(name):
    raise OSError(f"there is no {name}")


def test_it_is_what_torch_counts_here():
    expected = torch.cuda.device_count() if torch.cuda.is_available() else 0
    assert gpus.count_gpus() == expected
    assert gpus._build_of_torch().get("cuda") == (
        int(torch.version.cuda.split(".")[0]) if torch.version.cuda else None
    )


@pytest.mark.parametrize(
    ("build", "driver", "found"),
    [
        ({"cuda": 13}, Driver(), 2),
        ({"cuda": 12}, Driver(), 2),
        ({"cuda": 13}, Driver(newest=12080), 0),
        ({"cuda": 13}, Driver(fails=100), 0),
        ({"cuda": 13}, missing, 0),
        ({}, Driver(), 0),
    ],
)
def test_a_driver_is_asked_if_torch_can_use_it(count, build, driver, found):
    assert count(build, driver) == found


def test_another_platform_is_left_to_torch(count, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    assert count({"hip": 6}, missing) == 3
