"""A run from its recipe to its module, how it goes on, and what stops it."""

import json
import random
from itertools import pairwise
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from asyncdiff_cli.engine import AsyncDiffError, InputError, backbone_from_pipeline, sample
from asyncdiff_cli.engine.backbones import fingerprint
from asyncdiff_cli.engine.backbones.outline import Outline
from asyncdiff_cli.engine.drawing import canvas as canvas_module
from asyncdiff_cli.engine.drawing import encoding
from asyncdiff_cli.engine.drawing.provenance import PanelProvenance, read_provenance
from asyncdiff_cli.engine.files import umask
from asyncdiff_cli.engine.policies.learned import LearnedDeviation
from asyncdiff_cli.engine.rewards.group import RewardGroup
from asyncdiff_cli.engine.training import imitation
from asyncdiff_cli.engine.training.early_stop import EarlyStop
from asyncdiff_cli.engine.training.recipe_files import load_recipe, to_yaml
from asyncdiff_cli.engine.training.rollout import plan_iteration
from asyncdiff_cli.engine.training.start import open_trainer
from tests.conftest import tiny_flux, tiny_sd3
from tests.helpers.rewards import quality_with
from tests.helpers.training import (
    checkpoint_bytes,
    checkpoints,
    module_bytes,
    module_weights,
    open_run,
    rows,
    small_recipe,
    stop_at,
    trained,
)


def test_a_run_directory_holds_all_there_is(reference):
    assert {path.name for path in reference.iterdir()} == {
        "recipe.yaml", "metrics.jsonl", "checkpoints", "samples", "tpm"
    }  # fmt: skip
    assert sorted(path.name for path in (reference / "samples").iterdir()) == [
        "000002.png",
        "000004.png",
    ]
    last = rows(reference)[-1]
    assert set(checkpoints(reference)) == {3, 4, last["best"]}


def test_the_recipe_is_kept_resolved(reference, sd3_directory):
    kept = load_recipe(str(reference / "recipe.yaml"))
    asked = small_recipe(sd3_directory, samples={"every": 2, "count": 2})
    backbones = {"dtype": "fp32", "scheduler": "euler", "guidance_scale": 5.0, "size": 16}
    assert kept == asked.model_copy(update=backbones)
    assert (reference / "recipe.yaml").read_text() == to_yaml(kept)


def test_metrics_have_a_line_per_iteration_and_evaluation(reference):
    found = rows(reference, timings=True)
    assert [row["iteration"] for row in found] == [0, 1, 2, 2, 3, 4, 4]
    evaluations = [row for row in found if "held_out" in row]
    assert [row["iteration"] for row in evaluations] == [0, 2, 4]
    assert set(evaluations[0]["held_out"]) == {"noise", "sharpness"}
    for row in evaluations[1:]:
        assert set(row["held_out"]) == {"noise", "sharpness", "composite"}
        for values in row["held_out"].values():
            assert values["low"] <= values["difference"] <= values["high"]
            assert values["n"] == 3
        assert len(row["deviation"]) == 2
    for row in found:
        if "held_out" in row:
            continue
        assert set(row) == {
            "iteration", "steps", "seconds", "images_per_second", "shares", "rewards", "composite",
            "deviation", "alpha", "beta", "entropy", "approximate_kl", "clip_fraction", "grad_norm",
        }  # fmt: skip
        assert set(row["rewards"]) == {"noise", "sharpness"}
        assert all(set(values) == {"raw", "std", "z"} for values in row["rewards"].values())
        lists = [row["alpha"], row["beta"], row["deviation"]["mean"], row["deviation"]["std"]]
        assert [len(values) for values in lists] == [2] * 4
        assert set(row["shares"]) == {"denoiser", "decode", "rewards", "update", "waiting"}
        assert 0 < sum(row["shares"].values()) <= 1
        assert 0 <= row["clip_fraction"] <= 1
        assert row["grad_norm"] > 0


def test_a_new_module_is_the_synchronous_sampler_and_is_moved_by_training(reference):
    first, last = [row for row in rows(reference) if "alpha" in row][:: 4 - 1]
    assert first["alpha"] == first["beta"] == [2.0, 2.0]
    assert last["alpha"] != [2.0, 2.0]
    assert last["alpha"] != last["beta"]


def test_the_composite_is_the_weighted_mean_of_the_rewards(reference):
    for row in rows(reference):
        if "composite" in row:
            z = {name: values["z"] for name, values in row["rewards"].items()}
            assert row["composite"] == pytest.approx((z["noise"] + 2 * z["sharpness"]) / 3)


def test_the_module_draws(reference, sd3):
    policy = LearnedDeviation.load(reference / "tpm")
    result = sample(
        backbone_from_pipeline(sd3), "a cat", policy, num_inference_steps=3, height=16, width=16
    )
    assert result.deviations.abs().max() > 0
    assert result.images[0].size == (16, 16)


def test_samples_show_the_baseline_beside_the_module_on_the_same_noise(reference):
    found = [read_provenance(reference / "samples" / f"{n:06d}.png") for n in (2, 4)]
    assert all(isinstance(record, PanelProvenance) for record in found)
    for record in found:
        assert [[c.policy["name"] for c in row] for row in record.cells] == [
            ["synchronous", "learned"]
        ] * 2
        assert all(one.seed == other.seed for one, other in record.cells)
        assert len({row[0].seed for row in record.cells}) == 2
    assert [row[0] for row in found[0].cells] == [row[0] for row in found[1].cells]
    with Image.open(reference / "samples" / "000004.png") as image:
        assert image.size[0] > 2 * 256


def test_the_module_is_the_best_by_held_out_reward(tmp_path, sd3_directory):
    changes = {"evaluation": {"every": 1, "prompts": 3}, "learning_rate": 0.02, "iterations": 5}
    for seed in range(20):  # until the best is not one of the last, which are kept anyway
        path, changes["seed"] = tmp_path / str(seed), seed
        trained(path, sd3_directory, **changes)
        found = [row for row in rows(path) if "best" in row]
        reward = {row["iteration"]: row["held_out"]["composite"]["mean"] for row in found}
        best = max(reward, key=reward.__getitem__)
        assert found[-1]["best"] == best
        if best < 4:
            break
    assert checkpoints(path) == [best, 4, 5]
    trainer = open_run(path, sd3_directory, True, **changes)
    trainer.restore(trainer.run.read(trainer.run.file(best)))
    kept = LearnedDeviation.load(path / "tpm").tpm.state_dict()
    assert all(torch.equal(kept[k], v) for k, v in trainer.state.tpm.state_dict().items())


def test_without_evaluations_it_is_the_last(tmp_path, sd3_directory, copied):
    copied(evaluation={"every": 0})
    assert all("held_out" not in row and "composite" not in row for row in rows(tmp_path / "r"))
    trainer = open_run(tmp_path / "r", sd3_directory, True, evaluation={"every": 0})
    kept = LearnedDeviation.load(tmp_path / "r" / "tpm").tpm.state_dict()
    assert all(torch.equal(kept[k], v) for k, v in trainer.state.tpm.state_dict().items())


def test_the_same_recipe_gives_the_same_bytes_and_another_seed_others(
    tmp_path, sd3_directory, whole
):
    trained(tmp_path / "again", sd3_directory)
    assert module_bytes(whole()) == module_bytes(tmp_path / "again")
    assert rows(whole()) == rows(tmp_path / "again")
    other = whole(seed=2)
    assert abs(module_weights(whole()) - module_weights(other)).max() > 1e-3


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"ema_decay": 0.8, "epochs": 3, "kl_weight": 0.1, "entropy_weight": 0.01},
        {
            "step_range": [2, 4],
            "prompts_per_iteration": 2,
            "noises_per_prompt": 2,
            "actions": ["deviation", "grid"],
        },
        {"checkpoint": {"every": 2, "keep": 1}, "learning_rate": 0.02, "dtype": "bf16"},
        {"scale_rewards": "baseline", "prompts_per_iteration": 2},
        {
            "start": "schedule:0.4/-0.2",
            "estimator": {"baseline": "leave_one_out", "antithetic": True, "ratio_norm": True},
            "ema_decay": 0.8,
        },
        {
            "estimator": {"stepwise": 0.5, "branches": 2},
            "noises_per_prompt": 1,
            "actions": ["deviation", "scale"],
        },
    ],
    ids=["plain", "average", "steps", "sparse", "baseline", "options", "credit"],
)
def test_a_run_that_was_killed_goes_on_bit_for_bit(tmp_path, sd3_directory, monkeypatch, changes):
    monkeypatch.setattr(imitation, "FITTING_STEPS", 10)  # how well a start fits is told elsewhere
    changes = {"iterations": 4, **changes}
    whole = trained(tmp_path / "whole", sd3_directory, **changes)
    rng = random.Random(str(changes))
    stop_at(open_run(tmp_path / "cut", sd3_directory, **changes).train(), rng.randrange(3))
    for _ in range(3):
        events = open_run(tmp_path / "cut", sd3_directory, True, **changes).train()
        stop_at(events, rng.randrange(1, len(whole) // 2))
    if not (tmp_path / "cut" / "tpm").exists():
        trained(tmp_path / "cut", sd3_directory, True, **changes)
    assert module_bytes(tmp_path / "cut") == module_bytes(tmp_path / "whole")
    assert rows(tmp_path / "cut") == rows(tmp_path / "whole")
    assert checkpoint_bytes(tmp_path / "cut") == checkpoint_bytes(tmp_path / "whole")


def test_every_place_to_stop_at_is_good(tmp_path, sd3_directory):
    """Between any two events, with fewer checkpoints than iterations."""
    changes = {"iterations": 3, "checkpoint": {"every": 2, "keep": 1}, "learning_rate": 0.02}
    changes |= {"num_inference_steps": 2, "group_size": 2}
    whole = trained(tmp_path / "whole", sd3_directory, **changes)
    for count in range(len(whole) + 1):
        path = tmp_path / f"cut{count}"
        stop_at(open_run(path, sd3_directory, **changes).train(), count)
        trained(path, sd3_directory, True, **changes)
        assert module_bytes(path) == module_bytes(tmp_path / "whole")
        assert rows(path) == rows(tmp_path / "whole")
        assert checkpoint_bytes(path) == checkpoint_bytes(tmp_path / "whole")


def test_flux_is_trained_and_goes_on_too(tmp_path):
    tiny_flux().save_pretrained(tmp_path / "flux")
    changes = {"iterations": 3, "size": 16}
    trained(tmp_path / "whole", tmp_path / "flux", **changes)
    stop_at(open_run(tmp_path / "cut", tmp_path / "flux", **changes).train(), 3)
    trained(tmp_path / "cut", tmp_path / "flux", True, **changes)
    assert module_bytes(tmp_path / "cut") == module_bytes(tmp_path / "whole")
    assert rows(tmp_path / "whole")[-1]["deviation"] != [0.0, 0.0]


def test_mini_is_trained_by_its_own_rewards(tmp_path):
    rewards = {"mini_clip": 1, "mini_quality": 1}
    trained(tmp_path / "r", "mini", iterations=1, rewards=rewards, evaluation={"every": 0})
    (row,) = rows(tmp_path / "r")
    assert set(row["rewards"]) == set(rewards)
    assert all(values["std"] > 0 for values in row["rewards"].values())
    assert row["grad_norm"] > 0


def test_a_longer_run_goes_on_where_the_shorter_ended(tmp_path, sd3_directory, whole):
    changes = {"evaluation": {"every": 0}}
    long = whole(**changes)
    trained(tmp_path / "cut", sd3_directory, iterations=2, **changes)
    trained(tmp_path / "cut", sd3_directory, True, iterations=4, **changes)
    assert module_bytes(tmp_path / "cut") == module_bytes(long)
    assert rows(tmp_path / "cut") == rows(long)
    assert load_recipe(str(tmp_path / "cut" / "recipe.yaml")).iterations == 4


def test_a_finished_run_has_nothing_left_to_do(tmp_path, sd3_directory, copied):
    copied(iterations=1)
    before = module_bytes(tmp_path / "r")
    with pytest.raises(InputError, match="all 1 iterations are done: add iterations=N to go on"):
        trained(tmp_path / "r", sd3_directory, True, iterations=1)
    assert module_bytes(tmp_path / "r") == before


@pytest.mark.parametrize("left", [None, 0, 100])
def test_a_run_killed_while_it_wrote_its_module_writes_it(tmp_path, sd3_directory, copied, left):
    copied(iterations=2)
    before, file = module_bytes(tmp_path / "r"), tmp_path / "r" / "tpm" / "model.safetensors"
    if left is None:
        for each in (tmp_path / "r" / "tpm").iterdir():
            each.unlink()
        file.parent.rmdir()
    else:
        file.write_bytes(before[:left])
    assert trained(tmp_path / "r", sd3_directory, True, iterations=2) == []
    assert module_bytes(tmp_path / "r") == before


@pytest.mark.parametrize("lacking", ["README.md", "config.json"])
def test_a_run_is_done_when_its_module_has_all_files(tmp_path, sd3_directory, lacking):
    changes = {"iterations": 1, "evaluation": {"every": 0}}
    trained(tmp_path / "r", sd3_directory, **changes)
    files = {file.name: file.read_bytes() for file in (tmp_path / "r" / "tpm").iterdir()}
    assert set(files) == {"README.md", "config.json", "model.safetensors"}
    (tmp_path / "r" / "tpm" / lacking).unlink()
    (tmp_path / "r" / "tpm" / "model.safetensors").chmod(0o600)
    assert trained(tmp_path / "r", sd3_directory, True, **changes) == []
    assert {file.name: file.read_bytes() for file in (tmp_path / "r" / "tpm").iterdir()} == files
    modes = {file.stat().st_mode & 0o777 for file in (tmp_path / "r" / "tpm").iterdir()}
    assert modes == {0o666 & ~umask()}
    assert not any(path.name.endswith(".part") for path in (tmp_path / "r").rglob("*"))


def test_an_average_is_what_is_evaluated_and_kept(tmp_path, sd3_directory):
    changes = {"ema_decay": 0.5, "iterations": 1, "mini_batch_size": 4}
    trainer = open_run(tmp_path / "r", sd3_directory, **changes)
    start = {k: v.clone() for k, v in trainer.state.tpm.state_dict().items()}
    list(trainer.train())
    kept = LearnedDeviation.load(tmp_path / "r" / "tpm").tpm.state_dict()
    for name, now in trainer.state.tpm.state_dict().items():
        assert torch.allclose(kept[name], (start[name] + now) / 2, atol=1e-7)
    moved = max(float((kept[k] - v).abs().max()) for k, v in trainer.state.tpm.state_dict().items())
    assert moved > 1e-4


def test_a_random_number_of_steps_is_drawn_per_iteration(tmp_path, sd3_directory):
    trained(tmp_path / "r", sd3_directory, step_range=[2, 4], iterations=8, seed=0)
    found = [row for row in rows(tmp_path / "r") if "steps" in row]
    assert {row["steps"] for row in found} == {2, 3, 4}
    assert all(len(row["deviation"]["mean"]) == row["steps"] - 1 for row in found)
    assert all(len(row["alpha"]) == row["steps"] - 1 for row in found)


def test_groups_are_judged_on_their_own(tmp_path, sd3_directory):
    trainer = open_run(tmp_path / "r", sd3_directory, prompts_per_iteration=2)
    plan = plan_iteration(trainer.recipe, trainer.prompts, 0)
    one = torch.tensor([1.0, 2.0, 3.0, 6.0])
    scores = torch.zeros(8)
    for group, values in enumerate((one, 100 + 10 * one)):  # what is easy for a prompt is no merit
        scores[[t.index for t in plan if t.group == group]] = values
    advantages = trainer._judge(plan, {"noise": scores, "sharpness": scores})
    first, second = (advantages[[t.index for t in plan if t.group == g]] for g in (0, 1))
    assert first.tolist() == pytest.approx(second.tolist())
    assert first.tolist() == pytest.approx(((one - 3) / 3.5**0.5).tolist(), abs=1e-5)


def test_in_the_baselines_units_a_group_counts_by_how_much_it_differs(tmp_path, sd3_directory):
    changes = {"prompts_per_iteration": 2, "scale_rewards": "baseline"}
    trainer = open_run(tmp_path / "r", sd3_directory, **changes)
    next(trainer.train())  # measures the baseline
    plan = plan_iteration(trainer.recipe, trainer.prompts, 0)
    one = torch.tensor([1.0, 2.0, 3.0, 6.0])
    scores = torch.zeros(8)
    for group, values in enumerate((one, 100 + 10 * one)):
        scores[[t.index for t in plan if t.group == group]] = values
    advantages = trainer._judge(plan, {"noise": scores, "sharpness": scores})
    first, second = (advantages[[t.index for t in plan if t.group == g]] for g in (0, 1))
    assert second.tolist() == pytest.approx((10 * first).tolist())
    assert advantages.square().mean() == pytest.approx(1, abs=1e-4)


def scarce(monkeypatch: pytest.MonkeyPatch, images: int) -> list[int]:
    """Let no more images than these fit at once; the batches that were tried."""
    pass

    tried, honest = [], canvas_module.sample

    def draw(*arguments, generator, **options):
        tried.append(len(generator))
        if len(generator) > images:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return honest(*arguments, generator=generator, **options)

    monkeypatch.setattr(canvas_module, "sample", draw)
    return tried


@pytest.mark.parametrize(
    ("changes", "refused"),
    [
        ({"evaluation": {"every": 0}}, [8, 4]),
        ({"samples": {"every": 1, "count": 3}}, [3]),  # of the first evaluation
    ],
)
def test_batches_that_do_not_fit_are_halved(tmp_path, sd3_directory, monkeypatch, changes, refused):
    changes = {"group_size": 8, "iterations": 2, **changes}
    trained(tmp_path / "small", sd3_directory, rollout_batch_size=2, **changes)
    with monkeypatch.context() as patch:
        tried = scarce(patch, 2)
        events = trained(tmp_path / "halved", sd3_directory, rollout_batch_size=8, **changes)
    assert [count for count in tried if count > 2] == refused
    warnings = [values["warning"] for kind, values in events if kind == "warning"]
    sizes = [*refused, 2]
    assert warnings == [
        f"out of memory with {before} images at once: going on with {now}"
        for before, now in pairwise(sizes)
    ]
    assert module_bytes(tmp_path / "halved") == module_bytes(tmp_path / "small")
    assert rows(tmp_path / "halved") == rows(tmp_path / "small")
    for one in (tmp_path / "small").glob("samples/*.png"):
        other = tmp_path / "halved" / "samples" / one.name
        assert Image.open(one).tobytes() == Image.open(other).tobytes()


def test_the_halved_size_is_kept_with_the_run_until_another_is_asked_for(
    tmp_path, sd3_directory, monkeypatch
):
    with monkeypatch.context() as patch:
        scarce(patch, 2)
        trained(tmp_path / "r", sd3_directory, iterations=1)
    assert open_run(tmp_path / "r", sd3_directory, True, iterations=2).state.batch_size.value == 2
    changes = {"iterations": 2, "rollout_batch_size": 3}
    assert open_run(tmp_path / "r", sd3_directory, True, **changes).state.batch_size.value == 3


def test_grids_that_do_not_fit_are_drawn_in_parts(tmp_path, sd3_directory, monkeypatch):
    changes = {"group_size": 2, "iterations": 1, "evaluation": {"every": 1, "prompts": 2}}
    trained(tmp_path / "a", sd3_directory, samples={"every": 1, "count": 2}, **changes)
    scarce(monkeypatch, 1)
    trained(tmp_path / "b", sd3_directory, samples={"every": 1, "count": 2}, **changes)
    one, other = (read_provenance(tmp_path / n / "samples" / "000001.png") for n in "ab")
    assert [[c.prompt for c in row] for row in one.cells] == [
        [c.prompt for c in row] for row in other.cells
    ]
    assert {len(cell.batch) for row in other.cells for cell in row} == {1}


def test_one_image_that_does_not_fit_stops_the_run(tmp_path, sd3_directory, monkeypatch):
    scarce(monkeypatch, 0)
    with pytest.raises(AsyncDiffError, match="iteration 1: out of memory with one image"):
        trained(tmp_path / "r", sd3_directory, evaluation={"every": 0})


def bad_from(iteration: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every evaluation from this one on be a bad sign."""
    honest = EarlyStop.update

    def update(self, now):
        seen, _ = honest(self, now)
        if now.iteration < iteration:
            return EarlyStop(seen.first, seen.best), None
        return EarlyStop(seen.first, seen.best, self.bad + 1), "the noise rose"

    monkeypatch.setattr(EarlyStop, "update", update)


def test_training_stops_after_several_bad_signs(tmp_path, sd3_directory, monkeypatch):
    bad_from(2, monkeypatch)
    changes = {"evaluation": {"every": 1, "prompts": 2, "patience": 3}, "iterations": 9}
    events = trained(tmp_path / "r", sd3_directory, **changes)
    warnings = [(v["iteration"], v["warning"]) for k, v in events if k == "warning"]
    assert warnings == [
        (2, "the noise rose"),
        (3, "the noise rose"),
        (4, "the noise rose"),
        (4, "stopped early, after 3 such evaluations in a row"),
    ]
    logged = [row for row in rows(tmp_path / "r") if "warning" in row]
    assert [(row["iteration"], row["warning"]) for row in logged] == warnings
    assert rows(tmp_path / "r")[-1]["iteration"] == 4
    assert checkpoints(tmp_path / "r")[-1] == 4
    assert module_bytes(tmp_path / "r")
    with pytest.raises(InputError, match="stopped early after iteration 4"):
        trained(tmp_path / "r", sd3_directory, True, **changes)


def test_bad_signs_are_counted_across_a_resume(tmp_path, sd3_directory, monkeypatch):
    bad_from(2, monkeypatch)
    changes = {"evaluation": {"every": 1, "prompts": 2, "patience": 3}, "iterations": 9}
    stop_at(open_run(tmp_path / "r", sd3_directory, **changes).train(), 10)
    assert rows(tmp_path / "r")[-1]["iteration"] == 4
    trained(tmp_path / "r", sd3_directory, True, **changes)
    assert rows(tmp_path / "r")[-1]["iteration"] == 4


def test_without_patience_training_goes_on(tmp_path, sd3_directory, monkeypatch):
    bad_from(1, monkeypatch)
    changes = {"evaluation": {"every": 1, "prompts": 2, "patience": None}, "iterations": 4}
    events = trained(tmp_path / "r", sd3_directory, **changes)
    assert [v["iteration"] for k, v in events if k == "warning"] == [1, 2, 3, 4]


@pytest.mark.parametrize("damage", ["torn", "flipped", "foreign"])
def test_a_bad_checkpoint_is_named_and_the_one_before_it_used(
    tmp_path, sd3_directory, whole, copied, damage
):
    copied()
    file = tmp_path / "r" / "checkpoints" / "000004.safetensors"
    content = bytearray(file.read_bytes())
    if damage == "torn":
        file.write_bytes(content[: len(content) // 2])
    elif damage == "flipped":
        content[-100] ^= 1
        file.write_bytes(content)
    else:
        other = whole(learning_rate=0.02, evaluation={"every": 0})
        file.write_bytes((other / "checkpoints" / file.name).read_bytes())
    refused = []
    recipe = small_recipe(sd3_directory)
    trainer = open_trainer(recipe, tmp_path / "r", True, "cpu", on_warning=refused.append)
    assert trainer.state.iteration == 3
    why = {"torn": "is torn", "flipped": "is damaged", "foreign": "is of another recipe"}[damage]
    (message,) = refused
    assert message.startswith(f"checkpoint {file} {why}")
    list(trainer.train())
    assert module_bytes(tmp_path / "r") == module_bytes(whole())
    assert rows(tmp_path / "r") == rows(whole())


def test_with_no_good_checkpoint_left_there_is_no_going_on(tmp_path, sd3_directory, copied):
    copied()
    for file in (tmp_path / "r" / "checkpoints").iterdir():
        file.write_bytes(file.read_bytes()[:50])
    before = (tmp_path / "r" / "metrics.jsonl").read_bytes()
    with pytest.raises(AsyncDiffError, match="has no checkpoint to go on from") as caught:
        open_run(tmp_path / "r", sd3_directory, True)
    assert caught.value.exit_code == 1
    assert (tmp_path / "r" / "metrics.jsonl").read_bytes() == before


def test_another_backbone_is_another_run(tmp_path, sd3_directory, copied):
    copied(iterations=1)
    pipe = tiny_sd3()
    with torch.no_grad():
        pipe.transformer.proj_out.bias += 0.1
    pipe.save_pretrained(tmp_path / "other")
    recipe = small_recipe(sd3_directory, iterations=2, model_path=str(tmp_path / "other"))
    refused = []
    with pytest.raises(AsyncDiffError, match="no checkpoint to go on from"):
        open_trainer(recipe, tmp_path / "r", True, "cpu", on_warning=refused.append)
    assert "another recipe, backbone or reward" in refused[0]


def test_other_weights_of_a_reward_are_another_run(tmp_path, sd3_directory):
    reward = quality_with(tmp_path / "reward", 0)
    changes = {"rewards": {"mini_quality": 1}, "reward_paths": {"mini_quality": str(reward)}}
    trained(tmp_path / "r", sd3_directory, iterations=1, **changes)
    moved = {**changes, "reward_paths": {"mini_quality": str(reward.rename(tmp_path / "moved"))}}
    assert open_run(tmp_path / "r", sd3_directory, True, iterations=2, **moved).state.iteration == 1
    quality_with(tmp_path / "moved", 1)
    with pytest.raises(AsyncDiffError, match="no checkpoint to go on from"):
        open_run(tmp_path / "r", sd3_directory, True, iterations=2, **moved)


def test_metrics_after_the_checkpoint_and_a_torn_line_are_dropped(tmp_path, sd3_directory, whole):
    changes = {"checkpoint": {"every": 2, "keep": 2}}
    stop_at(open_run(tmp_path / "cut", sd3_directory, **changes).train(), 6)  # in iteration 4
    assert rows(tmp_path / "cut")[-1]["iteration"] == 4
    with (tmp_path / "cut" / "metrics.jsonl").open("a") as file:
        file.write('{"iteration": 4, "held_o')
    open_run(tmp_path / "cut", sd3_directory, True, **changes)
    assert rows(tmp_path / "cut")[-1]["iteration"] == 2
    trained(tmp_path / "cut", sd3_directory, True, **changes)
    assert rows(tmp_path / "cut") == rows(whole())  # whatever is kept


def test_every_metric_is_plain_json(reference):
    for line in (reference / "metrics.jsonl").read_text().splitlines():
        json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


def test_prompts_are_encoded_before_rewards_are_placed(tmp_path, sd3_directory, monkeypatch):
    """Beside the text encoders of FLUX.1-dev a card of 24 GB has no room for the rewards."""
    order = []
    encode, place = encoding._encode, RewardGroup.place
    monkeypatch.setattr(encoding, "_encode", lambda *all: [order.append("encode"), encode(*all)])
    monkeypatch.setattr(RewardGroup, "place", lambda own: [order.append("place"), place(own)])
    open_run(tmp_path / "run", sd3_directory)
    assert order == ["encode", "place"]


def test_a_local_model_is_hashed_by_one_process(tmp_path, sd3_directory, monkeypatch):
    other = SimpleNamespace(
        device=torch.device("cpu"), is_main_process=False, process_index=1, num_processes=2
    )
    other.wait_for_everyone = lambda: None
    monkeypatch.setattr(encoding, "broadcast_object_list", lambda own: [*own, "theirs"][1:])
    monkeypatch.setattr(fingerprint, "_weight_files", None)
    outline = Outline.of(small_recipe(sd3_directory).model("cpu"))
    canvas = encoding.encode_first(outline, other, None, 16, [], tmp_path / "text")
    assert canvas.backbone.fingerprint == "theirs"
