"""The training benchmark draws on both sides what an iteration draws."""

import pytest

from asyncdiff_cli.engine import Synchronous
from asyncdiff_cli.engine.drawing.canvas import Stopwatch
from asyncdiff_cli.engine.training.recipe_files import load_recipe
from asyncdiff_cli.engine.training.rollout import plan_iteration
from asyncdiff_cli.engine.training.start import open_trainer
from benchmarks.calls import counting
from benchmarks.overhead import measure
from benchmarks.train import BARE, ITERATION, ROLLOUTS_ONLY, WARM_UP, WHOLE, bare, jobs

SMALL = (
    *ROLLOUTS_ONLY,
    *(
        f"iterations={2 * (WARM_UP + 2) + 2}",
        "size=32",
        "num_inference_steps=2",
        "prompts_per_iteration=1",
        "group_size=2",
        "mini_batch_size=2",
    ),
)


def test_the_bare_images_are_the_synchronous_ones_of_the_iteration(tmp_path):
    trainer = open_trainer(load_recipe("mini", SMALL), tmp_path / "run", device="cpu")
    everyone = plan_iteration(trainer.recipe, trainer.prompts, 3)
    text = trainer.canvas.encode([t.prompt for t in everyone])
    clock = Stopwatch(trainer.accelerator.device)
    drawn, _ = trainer.canvas.draw(
        [text[t.prompt] for t in everyone], [t.noise for t in everyone], Synchronous(), 2, clock
    )
    for ours, stock in zip(drawn, bare(trainer, 3), strict=True):
        difference = max(abs(a - b) for a, b in zip(ours.tobytes(), stock.tobytes(), strict=True))
        assert difference <= 1  # the text of a prompt is encoded once, in a smaller batch


@pytest.mark.slow
def test_rounds_are_iterations_of_the_training(tmp_path):
    trainer, peaks = open_trainer(load_recipe("mini", SMALL), tmp_path / "run", device="cpu"), []
    counted, rows = counting(trainer.canvas.backbone.pipe.transformer, jobs(trainer, peaks))
    seconds = measure(counted, rounds=2)
    assert trainer.state.iteration - 1 == 2 * (WARM_UP + 2) == len(peaks)
    assert all(len(values) == 2 and (values > 0).all() for values in seconds.values())
    assert peaks == sorted(peaks)
    branches, images, steps = 2, 2, 2
    whole = (WARM_UP + 2) * branches * images * steps
    assert rows == {ITERATION: whole - 3 * branches, WHOLE: whole, BARE: whole}
