"""Tiny pipelines on the disk, and a way to run command lines on them."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

from asyncdiff_cli.app import run
from asyncdiff_cli.engine import TimestepPredictionModule


@dataclass(frozen=True)
class Outcome:
    """What a command line did."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Asyncdiff = Callable[..., Outcome]


@pytest.fixture
def asyncdiff(capsys, monkeypatch, tmp_path) -> Asyncdiff:
    """Run a command line in an empty directory, which is the current one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ASYNCDIFF_DEBUG", raising=False)

    def call(*arguments: Any) -> Outcome:
        capsys.readouterr()
        code = run([str(argument) for argument in arguments])
        return Outcome(code, *capsys.readouterr())

    return call


@pytest.fixture
def draw(asyncdiff, pipelines) -> Asyncdiff:
    """`asyncdiff sample` on a tiny pipeline, at three steps of 16×16 pixels if new."""

    defaults = {"--steps": 3, "--size": 16}

    def call(*arguments: Any, family: str = "sd3") -> Outcome:
        if "--from" in arguments:
            return asyncdiff("sample", *arguments)
        missing = ((k, v) for k, v in defaults.items() if k not in arguments)
        return asyncdiff(
            "sample", *arguments, "--backbone", pipelines[family], *chain.from_iterable(missing)
        )

    return call


@pytest.fixture
def module(tmp_path) -> Path:
    """The directory of a module for mini."""
    path = tmp_path / "tpm"
    TimestepPredictionModule(4, 32, 32, width=16, layers=1, heads=2).save_pretrained(path)
    return path


@pytest.fixture(scope="session")
def drawn_picture(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("picture")
    run(["sample", "a cat", "--steps", "1", "--out", str(out)])
    return next(out.glob("*.png"))


@pytest.fixture
def picture(asyncdiff, drawn_picture) -> Path:
    """A picture of mini, in one step, that `sample` has put into its usual directory."""
    Path("outputs").mkdir()
    return Path(shutil.copy(drawn_picture, "outputs"))
