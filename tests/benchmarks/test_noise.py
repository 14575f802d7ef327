import json

import pytest
import typer
from typer.testing import CliRunner

from benchmarks import noise


@pytest.mark.slow
def test_noise_is_seen_and_detail_is_not():
    app = typer.Typer()
    app.command()(noise.main)
    result = CliRunner().invoke(app, ["--count", "4", "--json"])
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)["changes"]
    falls = [found[f"white noise, σ = {sigma}/255"]["noise"]["mean"] for sigma in noise.SIGMAS]
    assert falls == sorted(falls, reverse=True)
    assert found["four pictures in one"]["noise"]["mean"] > 0.3 * falls[0]
    assert found["four pictures in one"]["sharpness"]["mean"] > 0.5
