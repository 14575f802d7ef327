"""A checkpoint is whole and of this run, or it is said why not."""

from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from asyncdiff_cli.engine.training.checkpoint import identity
from asyncdiff_cli.engine.training.recipe_files import parse_recipe
from asyncdiff_cli.engine.training.run import RunDirectory
from tests.helpers.runs import checkpoint, last


def test_a_checkpoint_is_read_back_as_it_was(run):
    before = checkpoint(3)
    path = run.save(before, keep=3, best=None)
    assert path.name == "000003.safetensors"
    after = run.read(path)
    assert after.state == before.state
    assert after.tensors.keys() == before.tensors.keys()
    assert all(torch.equal(after.tensors[k], v) for k, v in before.tensors.items())


@given(length=st.floats(0, 1, exclude_max=True))
@settings(max_examples=60)
def test_a_torn_checkpoint_is_refused_wherever_it_ends(tmp_path_factory, length):
    run = RunDirectory(tmp_path_factory.mktemp("runs") / "run", "ours")
    run.save(checkpoint(1), keep=3, best=None)
    path = run.save(checkpoint(2), keep=3, best=None)
    content = path.read_bytes()
    path.write_bytes(content[: int(length * len(content))])
    found, (message,) = last(run)
    assert found == 1
    assert message == f"checkpoint {path} is torn: skipped"


@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
@settings(max_examples=150)
def test_a_flipped_bit_is_found_wherever_it_is(tmp_path_factory, place, bit):
    run = RunDirectory(tmp_path_factory.mktemp("runs") / "run", "ours")
    run.save(checkpoint(1), keep=3, best=None)
    path = run.save(checkpoint(2), keep=3, best=None)
    content = bytearray(path.read_bytes())
    content[int(place * len(content))] ^= 1 << bit
    path.write_bytes(content)
    found, (message,) = last(run)
    assert found == 1
    assert str(path) in message
    assert "skipped" in message


def test_another_runs_checkpoint_is_refused(run):
    run.save(checkpoint(1), keep=3, best=None)
    foreign = RunDirectory(run.path, "theirs").save(checkpoint(2), keep=3, best=None)
    assert last(run) == (
        1,
        [f"checkpoint {foreign} is of another recipe, backbone or reward: skipped"],
    )


@pytest.mark.parametrize("metadata", [None, {"asyncdiff": "nonsense"}, {"asyncdiff": "{}"}])
def test_a_file_that_is_no_checkpoint_is_refused(run, metadata):
    run.save(checkpoint(1), keep=3, best=None)
    save_file({"a": torch.zeros(2)}, run.file(2), metadata)
    found, (message,) = last(run)
    assert found == 1
    assert "000002.safetensors is torn" in message


def test_every_bad_one_is_told_newest_first(run):
    for iteration in (1, 2, 3):
        run.save(checkpoint(iteration), keep=3, best=None).write_bytes(b"")
    found, refused = last(run)
    assert found is None
    assert ["000003" in refused[0], "000002" in refused[1], "000001" in refused[2]] == [True] * 3


def test_the_identity_of_a_run_is_what_it_was():
    """Whatever order the recipe's fields come in: checkpoints of older runs are still theirs."""
    settings = {"num_inference_steps": 3, "rewards": {"noise": 1.0}, "learning_rate": 3e-5}
    recipe = parse_recipe(settings | {"lora": ["a@0.5"], "dtype": "bf16", "prompts": "ünï"})
    model, prompts, held_out = (
        SimpleNamespace(fingerprint=text) for text in ("model", "prompts", "held out")
    )
    known = "687a2a17e8de4bac7a97a60e37189af184496da4a0058f6972b5d7c9b614d77d"
    assert identity(recipe, model, prompts, held_out) == known
    changes = [{"start": "spectral"}, {"estimator": {"antithetic": True}}]
    changes += [{"estimator": {"antithetic": False, "baseline": "leave_one_out"}}]
    changes += [{"estimator": {"stepwise": 0}}, {"actions": ["scale"]}]
    changed = [parse_recipe({**recipe.model_dump(), **change}) for change in changes]
    assert len({known, *(identity(r, model, prompts, held_out) for r in changed)}) == 6
