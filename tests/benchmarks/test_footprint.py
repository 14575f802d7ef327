"""The estimated table, at full size and without weights."""

import json

import pytest
import typer
from typer.testing import CliRunner

from asyncdiff_cli.engine.backbones.memory.footprint import GIB
from benchmarks import footprint


@pytest.mark.slow
def test_both_backbones_have_a_row_for_all_that_goes_together():
    app = typer.Typer()
    app.command()(footprint.main)
    result = CliRunner().invoke(app, ["--json"])
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout.splitlines()[-1])["rows"]
    assert len(found) == 2 * (4 + 3 + 3)
    flux = {(r["quantize"], r["offload"]): r for r in found if r["backbone"] == "flux"}
    # T5's 24 layers of 10240 × 4096 are in fp32, 4 bytes, and 16.9 − 1.0 billion others in 2
    expected = 2 * (11.901e9 + 4.762e9 + 0.123e9 + 0.0838e9) + 2 * 24 * 10240 * 4096
    assert flux["none", "none"]["weights"] == pytest.approx(expected, rel=1e-3)
    assert flux["none", "none"]["all_together"] / GIB > 33
    for quantize, offload in flux:
        row = flux[quantize, offload]
        assert row["encoders_first"] <= row["all_together"]
        assert row["all_together"] <= flux[quantize, "none"]["all_together"]
