"""What a choice by the prompt could add: parts of a gain, and what choosing on other noises has."""

import json
import re
from itertools import product

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from asyncdiff_cli.engine.errors import InputError
from benchmarks.choice import Gain, left_out, main, measure, read
from tests.helpers.stores import begun, row


def test_a_gain_is_split_into_what_noises_share_and_the_rest():
    rng = np.random.default_rng(0)
    gains = 0.2 + rng.normal(0, 0.3, (4000, 1)) + rng.normal(0, 0.5, (4000, 4))
    found = Gain.of(gains)
    assert found.mean.difference == pytest.approx(0.2, abs=0.03)
    assert found.mean.low < 0.2 < found.mean.high
    assert found.between_prompts == pytest.approx(0.3, rel=0.05)
    assert found.within_prompts == pytest.approx(0.5, rel=0.05)


def test_chance_alone_is_no_difference_between_prompts_and_adds_nothing():
    rng = np.random.default_rng(1)
    gains = np.stack([np.zeros((4000, 4)), rng.normal(0.1, 0.5, (4000, 4))])
    assert Gain.of(gains[1]).between_prompts < 0.08
    constant, chosen = left_out(gains)
    assert constant.mean() == pytest.approx(0.1, abs=0.02)
    # by chance about a third of the prompts are left at 0
    assert 0.05 < chosen.mean() < constant.mean()


def test_a_choice_is_judged_on_the_noise_that_it_has_not_seen():
    """The first prompt gains and the second loses, but each has one noise that is otherwise."""
    gains = np.array([[[1.0, 1.0, -5.0], [-1.0, -1.0, 4.0]]])
    constant, chosen = left_out(np.concatenate([np.zeros_like(gains), gains]))
    # of others the means are (−2, 1.5), (−2, 1.5), (1, −1): of both −0.25, −0.25, 0
    assert constant == pytest.approx([0, 0])
    assert chosen == pytest.approx([(0 + 0 - 5) / 3, (-1 - 1 + 0) / 3])


def store_of(path, noises=2, steps=(3,)):
    """Three prompts, whose sharpness rises by 1, 0 and −1 with a deviation."""
    store = begun(path)
    for prompt, policy, seed, count in product(
        range(3), ("baseline", "fixed:0.5"), range(noises), steps
    ):
        sharpness = seed + (1 - prompt) * (policy != "baseline")
        own = {"seed": seed, "sharpness": sharpness, "num_inference_steps": count}
        store.write([row(prompt, policy, **own)])
    return store.path


def test_a_store_is_read_in_deviations_of_the_synchronous_pictures(tmp_path):
    prompts, gains = read(store_of(tmp_path / "store"), ["sharpness"])
    assert prompts == ["prompt 0", "prompt 1", "prompt 2"]
    assert gains["fixed:0.5"] == pytest.approx(np.array([[2.0] * 2, [0.0] * 2, [-2.0] * 2]))
    choice = measure(prompts, gains)
    assert choice.gains["fixed:0.5"].mean.difference == pytest.approx(0)
    assert choice.added.difference == pytest.approx(2 / 3)
    assert next(iter(choice.most)) == "prompt 0"
    assert [*choice.least][-1] == "prompt 2"


def test_a_store_that_cannot_tell_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"has no clip: it has sharpness, noise"):
        read(store_of(tmp_path / "two"), ["clip"])
    with pytest.raises(InputError, match=r"one noise of each prompt: .* --num-images 6"):
        read(store_of(tmp_path / "one", noises=1), ["sharpness"])
    with pytest.raises(InputError, match=r"several numbers of steps"):
        read(store_of(tmp_path / "steps", steps=(3, 5)), ["sharpness"])


def test_the_command_tells_it_or_prints_json(tmp_path):
    app = typer.Typer()
    app.command()(main)
    store = str(store_of(tmp_path / "store"))
    told = CliRunner().invoke(app, [store, "--rewards", "sharpness"])
    assert told.exit_code == 0
    assert re.search(r"for each prompt adds: +\+0\.667", told.output)
    found = json.loads(CliRunner().invoke(app, [store, "--rewards", "sharpness", "--json"]).output)
    assert found["added"]["difference"] == pytest.approx(2 / 3)
