"""The trainer as a recipe drives it, in the world whose best schedule is known."""

import pytest
import torch

from asyncdiff_cli.engine import LearnedDeviation, Policy, ScheduledDeviation, Synchronous
from asyncdiff_cli.engine.drawing.canvas import BatchSize, Stopwatch
from asyncdiff_cli.engine.training.held_out import HeldOut
from asyncdiff_cli.engine.training.recipe_files import parse_recipe
from benchmarks.gaussian import World

STEPS = 4
WORLD = World.of_images([0.3])
"""Whose best deviations are 1, −0.07 and 1, which no constant comes near."""
RECIPE = {
    "num_inference_steps": STEPS,
    "rewards": {"noise": 1},
    "bound": 1.0,
    "iterations": 60,
    "prompts_per_iteration": 16,
    "group_size": 4,
    "noises_per_prompt": 1,
    "scale_rewards": "baseline",
    "mini_batch_size": 32,
    "rollout_batch_size": 128,
    "learning_rate": 3e-3,
    "ema_decay": 0.9,
    "tpm": {"width": 32, "layers": 1, "heads": 2, "text_tokens": 1, "global_tokens": 1},
    "evaluation": {"every": 20, "prompts": 128, "patience": None},
    "checkpoint": {"every": 1000, "keep": 1},
    "samples": {"every": 0},
}


def opened(path, **changes):
    return WORLD.trainer(parse_recipe({**RECIPE, **changes}), path)


def error(held_out: HeldOut, policy: Policy) -> float:
    records = held_out.evaluate(
        policy, range(len(held_out.prompts)), BatchSize(256), Stopwatch(torch.device("cpu"))
    )
    return -sum(record["scores"]["noise"] for record in records) / len(records)


def elsewhere(trainer) -> HeldOut:
    """Noise that neither the training nor its evaluations have seen."""
    held_out = trainer.held_out
    return HeldOut.make(held_out.canvas, held_out.prompts * 4, 7, STEPS, held_out.scorers)


def test_the_sampler_has_the_errors_that_are_known(tmp_path):
    held_out = elsewhere(opened(tmp_path / "run"))
    for schedule in ([0.0] * 3, [0.5] * 3, WORLD.optimum(STEPS).tolist()):
        drawn = error(held_out, ScheduledDeviation(schedule))
        known = float(WORLD.error(torch.tensor(schedule).double()))
        assert drawn == pytest.approx(known, rel=0.15)  # the mean over 512 images' noise


def test_the_optimum_is_one():
    best = WORLD.optimum(STEPS)
    least = float(WORLD.error(best))
    for seed in range(20):
        moved = best + 0.1 * torch.randn(3, generator=torch.manual_seed(seed)).double()
        assert float(WORLD.error(moved.clamp(-1, 1))) >= least
    constants = torch.linspace(-1, 1, 41).double()
    assert min(float(WORLD.error(c.expand(3))) for c in constants) > 1.15 * least


def test_grpo_finds_the_optimum(tmp_path):
    """Within 2 % of the least error of any schedule, on noise of its own."""
    trainer = opened(tmp_path / "run")
    list(trainer.train())
    held_out = elsewhere(trainer)
    found = error(held_out, LearnedDeviation.load(tmp_path / "run" / "tpm"))
    best = error(held_out, ScheduledDeviation(WORLD.optimum(STEPS).tolist()))
    assert found < 1.02 * best
    assert best < 0.6 * error(held_out, Synchronous())
