import json
import weakref

import pytest
from typer.testing import CliRunner

from asyncdiff_cli.engine import InputError, rewards
from benchmarks import precision
from benchmarks import rewards as benchmark
from tests.helpers.parity import KEYS, PARITY, TOLERANCE


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    """The four models with two layers."""
    fixtures = json.loads((PARITY / "scores_tiny.json").read_text())
    for name in TOLERANCE:
        monkeypatch.setattr(
            rewards.reward_class(name), "config", fixtures[KEYS.get(name, name)]["config"]
        )
    monkeypatch.setattr(precision, "FIXTURE", PARITY / "scores_tiny.json")


def run(module, *arguments):
    import typer

    app = typer.Typer()
    app.command()(module.main)
    result = CliRunner().invoke(app, [*arguments, "--json"])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_rates_of_every_reward_and_batch_are_reported():
    found = run(benchmark, "--batches", "1,3", "--loop", "2", "--no-memory", "--device", "cpu")
    assert [(row["reward"], row["batch"]) for row in found["rows"]] == [
        (name, batch) for name in TOLERANCE for batch in (1, 3)
    ]
    for row in found["rows"]:
        assert row["ratio"] == pytest.approx(row["batched"] / row["single"])
        assert row["single"] > 0


@pytest.mark.slow
def test_errors_of_half_precision_are_reported_beside_the_spread():
    found = run(precision, "--prompts", "a cat", "--size", "3", "--device", "cpu")
    assert [(row["reward"], row["dtype"]) for row in found["rows"]] == [
        (name, dtype) for name in TOLERANCE for dtype in ("fp16", "bf16")
    ]
    for row in found["rows"]:
        assert 0 < row["error"] < row["spread"]
    for fp16, bf16 in zip(found["rows"][::2], found["rows"][1::2], strict=True):
        assert fp16["error"] < bf16["error"]  # which has three bits less


@pytest.mark.parametrize(("mode", "most"), [("all", 3), ("offload", 3), ("turns", 1)])
def test_turns_keep_one_model_in_memory(mode, most, monkeypatch):
    models, alive, build = [], [], benchmark.build

    def counted(*arguments):
        alive.append(sum(model() is not None for model in models) + 1)
        reward = build(*arguments)
        models.append(weakref.ref(reward.model))
        return reward

    monkeypatch.setattr(benchmark, "build", counted)
    assert benchmark.peak_memory(["clip", "hpsv2", "pickscore"], {}, "cpu", mode) > 0
    assert max(alive) == most


@pytest.mark.parametrize("module", [benchmark, precision])
@pytest.mark.parametrize(
    ("given", "line"),
    [("clip", "is NAME=FILE"), ("clip=no/such", "no/such"), ("hpsv2=/", "unknown reward 'hpsv2'")],
)
def test_a_checkpoint_is_of_a_reward_that_is_measured(module, given, line):
    with pytest.raises(InputError, match=line):
        module.main(names="clip", reward_path=[given], device="cpu")
