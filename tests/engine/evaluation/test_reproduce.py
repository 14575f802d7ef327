"""The command that a report shows draws the rows that the report is of."""

import shlex
from dataclasses import replace

import pytest

from asyncdiff_cli import app
from asyncdiff_cli.commands import evaluate
from asyncdiff_cli.engine.backbones.registry import REGISTRY, provisional_entry
from asyncdiff_cli.engine.evaluation.reproduce import eval_commands, origins
from asyncdiff_cli.engine.evaluation.store import Store
from asyncdiff_cli.engine.policies.specs import load_learned, read_policy
from tests.helpers.modules import save_module
from tests.helpers.reporting import POLICIES, PROMPTS, SETTINGS, make_store, provenance, store_row


def commands(store):
    return eval_commands(store, origins(store))


def words(command):
    """As a shell splits it."""
    return shlex.split(command.replace("\\\n", ""))


@pytest.fixture
def asked(monkeypatch):
    """What a command line asks for."""

    def run(command):
        found = []
        monkeypatch.setattr(evaluate, "draw", lambda *wanted: found.append(wanted))
        arguments = words(command)
        assert arguments[0] == "asyncdiff"
        assert app.run(arguments[1:]) == 0
        ((wanted, out),) = found
        return wanted, out

    return run


@pytest.fixture
def shipped_module(tmp_path, monkeypatch):
    """A module that mini ships."""
    load_learned.cache_clear()
    entry = replace(REGISTRY["mini"], modules={"learned": save_module(tmp_path / "tpm")})
    monkeypatch.setitem(REGISTRY, "mini", entry)
    yield
    load_learned.cache_clear()


def test_it_asks_for_the_rows_and_settings(tmp_path, asked, shipped_module):
    store = make_store(tmp_path / "my store")
    (command,) = commands(store)
    wanted, out = asked(command)
    contenders = wanted.contenders(provisional_entry("mini"))
    assert {(c.label, c.gamma, c.steps) for c in contenders} == {(*p, 3) for p in POLICIES}
    assert (str(out), wanted.limit, wanted.kept_images, wanted.seed) == ("my store", 3, 2, 42)
    assert (wanted.source, wanted.guidance, wanted.size) == ("mini", 3.0, 128)
    assert wanted.reward_names() == list(SETTINGS["rewards"])
    assert (wanted.batch_size, wanted.reward_dtype) == (6, None)
    choice = wanted.choice
    assert (choice.name, choice.dtype, choice.scheduler) == ("mini", "float32", "euler")
    assert (choice.device, choice.revision, choice.model_path) == ("cpu", None, None)


def test_several_images_of_a_prompt_are_asked_for(tmp_path, asked):
    store = make_store(tmp_path / "store")
    assert asked(commands(store)[0])[0].num_images == 1
    store.write([store_row(0, PROMPTS[0], "baseline", 1.0, seed=7)])
    assert asked(commands(store)[0])[0].num_images == 2


def test_other_policies_at_other_steps_are_other_commands(tmp_path, asked):
    store = make_store(tmp_path / "store")
    for steps in (8, 4):
        for place, prompt in enumerate(PROMPTS):
            rows = [store_row(place, prompt, *p, num_inference_steps=steps) for p in POLICIES[:2]]
            store.write(rows)
    first, second = commands(store)
    assert "--policies baseline,fixed:0.5,learned@0.5,learned " in first
    assert "--steps 3 " in first
    assert "--policies baseline,learned@0.5 " in second
    assert "--steps 4,8 " in second
    assert asked(first)[1] == asked(second)[1]


def test_weights_from_a_directory_are_not_where_the_store_knows(tmp_path):
    local = make_store(tmp_path / "a", backbone="sd35", fingerprint="12")
    (command,) = commands(local)
    assert "--model-path DIR" in command
    hub = make_store(tmp_path / "b", backbone="sd35", fingerprint=None, revision="abc")
    (command,) = commands(hub)
    assert "--model-path" not in command
    assert "--revision abc" in command
    named = make_store(tmp_path / "c", backbone="my models/x", fingerprint="12")
    (command,) = commands(named)
    assert "--backbone 'my models/x'" in command
    assert "--model-path" not in command


def test_a_dtype_of_the_rewards_is_given_if_it_is_not_their_own(tmp_path):
    rewards = {"clip": {"dtype": "float16"}, "noise": {"dtype": "float32"}}
    store = Store.open(tmp_path / "store", {**SETTINGS, "rewards": rewards})
    store.write([store_row(0, "a cat", "baseline", 1.0, clip=0.25)])
    (command,) = commands(store)
    assert "--reward-dtype float16" in command


@pytest.mark.parametrize(
    ("policy", "written"),
    [
        (("learned:runs/a b/tpm", 1.0), "'baseline,learned:runs/a b/tpm'"),
        (("learned:a@b", 1.0), "baseline,learned:a@b@1"),
        (("schedule:0.5/-0.1", -1.5), "baseline,schedule:0.5/-0.1@-1.5"),
    ],
)
def test_a_policy_is_written_as_it_is_read(tmp_path, policy, written):
    store = make_store(tmp_path / "store", policies=[("baseline", 1.0), policy], kept=0)
    (command,) = commands(store)
    assert f"--policies {written} " in command
    spec = read_policy(words(command)[3].partition(",")[2])
    assert (spec.label, 1.0 if spec.gamma is None else spec.gamma) == policy
    assert "--images 0 " in command


def test_several_devices_and_unknown_batches_are_left_out(tmp_path):
    store = Store.open(tmp_path / "store", SETTINGS)
    store.write([store_row(0, "a cat", "baseline", 1.0, provenance="{}")])
    (command,) = commands(store)
    assert "--batch-size" not in command
    assert "--device" not in command
    other = provenance("a dog", batch=40, device="NVIDIA H100").model_dump_json()
    store.write([store_row(1, "a dog", "baseline", 1.0, provenance=other)])
    (command,) = commands(store)
    assert "--batch-size 40" in command
    assert "--device" not in command


def test_a_policy_of_the_hub_is_named_with_its_commit(tmp_path):
    commit = "0123456789" * 4
    policies = [{"name": "synchronous"}, {"name": "learned", "source": f"alice/tpm@{commit}"}]
    batch = {"name": "each", "policies": policies, "gammas": [1.0, 1.0], "images": [1, 2]}
    store = Store.open(tmp_path / "store", SETTINGS)
    store.begin()
    rows = []
    for index, label in enumerate(("baseline", "learned:alice/tpm")):
        record = provenance("a cat", batch=3, index=index, policy=batch).model_dump_json()
        rows.append(store_row(0, "a cat", label, 1.0, provenance=record))
    store.write(rows)
    (command,) = commands(store)
    assert f"--policies baseline,learned:alice/tpm@{commit}@1 " in command.replace("\\\n", " ")
