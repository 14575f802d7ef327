"""What ends a run before its last iteration, and that it goes on from there."""

import pytest
import torch
from PIL import Image

from asyncdiff_cli.engine import AsyncDiffError
from asyncdiff_cli.engine.rewards.noise import Noise
from asyncdiff_cli.engine.training.interrupts import InterruptedRunError
from asyncdiff_cli.engine.training.trainer import Trainer
from tests.helpers.training import (
    checkpoints,
    module_bytes,
    open_run,
    rows,
    trained,
)


def failing_at(iteration: int, monkeypatch: pytest.MonkeyPatch, spoil) -> None:
    """From some iteration's rewards on, the noise reward does `spoil(scores)`."""
    honest, calls = Noise._score, []

    def score(self, images, prompts):
        calls.append(len(images))
        scores = honest(self, images, prompts)
        return spoil(scores) if len(calls) == iteration else scores

    monkeypatch.setattr(Noise, "_score", score)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_score_that_is_no_number_stops_the_run_and_leaves_it_good(
    tmp_path, sd3_directory, whole, monkeypatch, value
):
    changes = {"evaluation": {"every": 0}}
    with monkeypatch.context() as patch:
        failing_at(3, patch, lambda scores: torch.full_like(scores, value))
        with pytest.raises(AsyncDiffError) as caught:
            trained(tmp_path / "cut", sd3_directory, **changes)
    message = str(caught.value)
    assert message.startswith(f"iteration 3: noise is {value} for image 0, which is kept as ")
    assert "go on from 000002.safetensors with `asyncdiff train --resume " in message
    (kept,) = (tmp_path / "cut" / "refused").iterdir()
    Image.open(kept).load()
    trained(tmp_path / "cut", sd3_directory, True, **changes)
    assert module_bytes(tmp_path / "cut") == module_bytes(whole(**changes))
    assert rows(tmp_path / "cut") == rows(whole(**changes))


def test_without_a_checkpoint_yet_the_error_says_so(tmp_path, sd3_directory, monkeypatch):
    failing_at(1, monkeypatch, lambda scores: scores * float("nan"))
    with pytest.raises(AsyncDiffError, match=r"iteration 1: noise is nan .*no checkpoint yet"):
        trained(tmp_path / "r", sd3_directory, evaluation={"every": 0})


def test_an_evaluation_that_fails_names_its_iteration(tmp_path, sd3_directory, monkeypatch):
    failing_at(4, monkeypatch, lambda scores: scores * float("nan"))  # 0, 1, 2, evaluation of 2
    with pytest.raises(AsyncDiffError, match=r"iteration 2: noise is nan .*from 000001\."):
        trained(tmp_path / "r", sd3_directory)


def test_latents_that_are_no_numbers_stop_the_run(tmp_path, sd3_directory):
    trainer = open_run(tmp_path / "r", sd3_directory, evaluation={"every": 0})
    events = trainer.train()
    next(events)
    with torch.no_grad():
        trainer.canvas.backbone.pipe.transformer.proj_out.bias.fill_(float("nan"))
    with pytest.raises(AsyncDiffError) as caught:
        list(events)
    assert str(caught.value).startswith("iteration 2: ")
    assert "NaN or infinity in the latents after step 1 of" in str(caught.value)
    resumed = open_run(tmp_path / "r", sd3_directory, True, evaluation={"every": 0})
    assert resumed.state.iteration == 1


def test_gradients_that_are_no_numbers_stop_the_run_before_they_are_applied(
    tmp_path, sd3_directory
):
    trainer = open_run(tmp_path / "r", sd3_directory, evaluation={"every": 0})
    events = trainer.train()
    next(events)
    bias = trainer.state.tpm.head[-1].bias
    handle = bias.register_hook(lambda gradient: gradient * float("nan"))
    with pytest.raises(AsyncDiffError, match="iteration 2: the gradient's norm is nan"):
        list(events)
    handle.remove()
    assert all(torch.isfinite(weight).all() for weight in trainer.state.tpm.parameters())
    resumed = open_run(tmp_path / "r", sd3_directory, True, evaluation={"every": 0})
    assert resumed.state.iteration == 1


def test_a_run_that_is_stopped_keeps_the_last_complete_iteration(
    tmp_path, sd3_directory, whole, monkeypatch
):
    changes = {"evaluation": {"every": 0}, "checkpoint": {"every": 100, "keep": 1}}

    def interrupt(scores):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        failing_at(3, patch, interrupt)
        with pytest.raises(InterruptedRunError) as caught:
            trained(tmp_path / "cut", sd3_directory, **changes)
    assert caught.value.exit_code == 130
    assert str(caught.value) == (
        "stopped after iteration 2; go on from 000002.safetensors with"
        f" `asyncdiff train --resume {tmp_path / 'cut'}`"
    )
    trained(tmp_path / "cut", sd3_directory, True, **changes)
    unbroken = whole(evaluation={"every": 0})  # kept more often
    assert module_bytes(tmp_path / "cut") == module_bytes(unbroken)
    assert rows(tmp_path / "cut") == rows(unbroken)


def test_a_stop_before_the_first_iteration_leaves_a_run_that_starts_again(
    tmp_path, sd3_directory, reference
):
    events = open_run(tmp_path / "r", sd3_directory, samples={"every": 2, "count": 2}).train()
    next(events)
    with pytest.raises(InterruptedRunError, match="no checkpoint yet"):
        events.throw(KeyboardInterrupt)
    trained(tmp_path / "r", sd3_directory, True, samples={"every": 2, "count": 2})
    assert rows(tmp_path / "r") == rows(reference)
    assert module_bytes(tmp_path / "r") == module_bytes(reference)


def test_a_stop_after_an_evaluation_keeps_the_best_that_is_complete(
    tmp_path, sd3_directory, monkeypatch
):
    """An evaluation that was not complete may have found another best."""
    changes = {
        "evaluation": {"every": 1, "prompts": 3},
        "checkpoint": {"every": 100, "keep": 1},
        "iterations": 5,
    }
    gains, evaluate, draw_samples = [0, 1, 0, 2, 0], Trainer._held_out_scores, Trainer._draw_samples

    def scripted(self, policy):
        scores, records = evaluate(self, policy)
        if self.state.iteration:
            gain = gains[self.state.iteration - 1]
            scores = {name: scores + gain for name, scores in self.state.baseline.items()}
        return scores, records

    def draw(self):
        if self.state.iteration == 4:
            raise KeyboardInterrupt
        draw_samples(self)

    monkeypatch.setattr(Trainer, "_held_out_scores", scripted)
    trained(tmp_path / "whole", sd3_directory, **changes)
    assert [row["best"] for row in rows(tmp_path / "whole") if "best" in row] == [1, 2, 2, 4, 4]
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_draw_samples", draw)
        with pytest.raises(InterruptedRunError, match="after iteration 3;"):
            trained(tmp_path / "cut", sd3_directory, samples={"every": 1, "count": 1}, **changes)
    assert set(checkpoints(tmp_path / "cut")) == {2, 3}
    trained(tmp_path / "cut", sd3_directory, True, **changes)
    assert module_bytes(tmp_path / "cut") == module_bytes(tmp_path / "whole")
