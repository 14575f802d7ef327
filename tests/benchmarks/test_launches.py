import json

import pytest
import torch

from asyncdiff_cli.engine.backbones.memory.tracing import Work
from benchmarks.gpu.architecture import ARCHITECTURES
from benchmarks.launches import METHODS, main, rows
from tests.conftest import TINY


@pytest.mark.parametrize("family", ["sd3", "flux", "qwen-image"])
def test_no_step_waits_for_the_gpu(family, tmp_path):
    TINY[family]().save_pretrained(tmp_path)
    counts = rows(tmp_path, torch.float16, Work(2, 16, 16, 5.0, tokens=8))
    assert {name: own.waits for name, own in counts.items()} == dict.fromkeys(METHODS, 0)
    extra = {name: own.operations - counts["stock"].operations for name, own in counts.items()}
    assert 0 < extra["fixed"] <= 40
    assert extra["fixed"] < extra["learned"] <= 220


@pytest.mark.slow
def test_both_backbones_have_a_row_for_each_method(monkeypatch, capsys):
    for name, whole in ARCHITECTURES.items():
        monkeypatch.setitem(ARCHITECTURES, name, whole.narrowed())
    main(size=64, json=True)
    found = json.loads(capsys.readouterr().out)
    assert {name: tuple(own) for name, own in found.items()} == dict.fromkeys(
        ("sd35", "flux"), METHODS
    )
