"""A studio with mini, which is loaded once for all tests of a file."""

from dataclasses import replace
from pathlib import Path

import pytest

from asyncdiff_cli.engine import TimestepPredictionModule
from asyncdiff_cli.engine.backbones.choice import ModelChoice
from asyncdiff_cli.engine.drawing.request import parse_request
from asyncdiff_cli.ui.studio import Studio
from tests.helpers.modules import SIZE, randomised


@pytest.fixture(scope="session")
def wish():
    """Three steps of 32 pixels, a moment's work; other settings in their place."""

    def make(**changes):
        usual = {"prompts": ("a cat",), "seed": 7, "steps": 3, "size": 32, "policy": "fixed:0.5"}
        return parse_request(**{**usual, **changes})

    return make


@pytest.fixture(scope="module")
def opened(wish):
    return Studio.open(wish(), ModelChoice(device="cpu"), Path("outputs"))


@pytest.fixture
def studio(opened, tmp_path):
    """A studio that has drawn nothing."""
    return Studio(replace(opened.job, out=tmp_path / "outputs"))


@pytest.fixture
def module(opened, tmp_path):
    """A small module for mini, moved away from the synchronous sampler."""
    tpm = TimestepPredictionModule(**opened.job.backbone.adapter.channels, **SIZE)
    randomised(tpm).save_pretrained(tmp_path / "tpm")
    return tmp_path / "tpm"
