"""`asyncdiff doctor`: what is ready here, also where the libraries are broken."""

import json
import subprocess
import sys

import pytest

from asyncdiff_cli.engine import REGISTRY
from asyncdiff_cli.engine.drawing import readiness
from asyncdiff_cli.engine.rewards import ENTRIES, PUBLISHED

TOLD = {"cuda": None, "gpus": [{"name": "A100", "free": 3 << 30, "total": 4 << 30}]}


@pytest.fixture(autouse=True)
def _apart(monkeypatch):
    monkeypatch.setattr(readiness, "is_reachable", lambda: False)


def found(outcome):
    return {(one["kind"], one["name"]): one for one in outcome.json["findings"]}


def test_all_that_is_there_and_what_gets_the_rest(asyncdiff, monkeypatch):
    weights = dict.fromkeys(PUBLISHED, ("someone/rewards", "model.safetensors"))
    answer = json.dumps({**TOLD, "weights": weights})
    monkeypatch.setattr(readiness, "PROBE", f"print('a line'); print({answer!r})")
    outcome = asyncdiff("doctor", "--json")
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.json["ready"]
    findings = found(outcome)
    assert {name for kind, name in findings if kind == "backbone"} == REGISTRY.keys()
    assert {name for kind, name in findings if kind == "reward"} == ENTRIES.keys()
    assert findings["backbone", "mini"]["ready"]
    assert findings["device", "cuda:0"]["says"] == "A100, 3.0 GiB of 4.0 GiB free"
    assert not findings["reward", "clip"]["ready"]
    assert findings["reward", "clip"]["remedy"] == "asyncdiff score PICTURE --rewards clip"
    assert not findings["hub", "https://huggingface.co"]["ready"]
    shown = asyncdiff("doctor").out
    assert all(name in shown for name in (*REGISTRY, *ENTRIES, "torch", "A100"))


def test_libraries_that_do_not_load_are_told_in_a_line(asyncdiff, monkeypatch):
    monkeypatch.setattr(readiness, "PROBE", "raise ImportError('undefined symbol: cuda')")
    outcome = asyncdiff("doctor", "--json")
    assert (outcome.code, outcome.json["ready"]) == (1, False)
    assert outcome.err == (
        "error: nothing can be drawn here: library all (they do not load: undefined symbol: cuda)\n"
    )
    assert "pip install" in found(outcome)["library", "all"]["remedy"]
    assert found(outcome)["reward", "clip"]["ready"] is None


def test_what_the_libraries_are_asked_is_answered(monkeypatch, capsys):
    monkeypatch.setattr(sys, "path", [*sys.path])
    exec(readiness.PROBE, {})
    told = json.loads(capsys.readouterr().out)
    assert told.keys() == {*TOLD, "weights"}
    assert told["weights"]["clip"] == ["openai/clip-vit-large-patch14", "model.safetensors"]


def test_libraries_that_never_come_are_waited_for_no_longer(asyncdiff, monkeypatch):
    def run(*_, timeout, **__):
        raise subprocess.TimeoutExpired("python", timeout)

    monkeypatch.setattr(subprocess, "run", run)
    outcome = asyncdiff("doctor")
    assert outcome.code == 1
    assert "after 300 seconds" in outcome.err
