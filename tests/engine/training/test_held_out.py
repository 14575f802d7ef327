"""What is measured on prompts and noise that no training sees."""

import pytest
import torch
from PIL import Image

from asyncdiff_cli.engine import backbone_from_pipeline, sample
from asyncdiff_cli.engine.drawing import canvas as canvas_module
from asyncdiff_cli.engine.drawing.canvas import BatchSize, Canvas, Stopwatch
from asyncdiff_cli.engine.policies.given import FixedDeviation, Synchronous
from asyncdiff_cli.engine.rewards.group import RewardGroup
from asyncdiff_cli.engine.rewards.noise import noise_level
from asyncdiff_cli.engine.training.held_out import HeldOut, compare, scores_by_reward
from tests.conftest import quiet, tiny_sd3

TEXTS = ["a cat", "a dog on a red background", "an owl", "a bee", "a cat"]
CLOCK = Stopwatch(torch.device("cpu"))


@pytest.fixture(scope="module")
def held_out(tmp_path_factory):
    canvas = Canvas(backbone_from_pipeline(quiet(tiny_sd3())), guidance_scale=3.0, size=16)
    scorers = RewardGroup({"sharpness": 1.0}, device="cpu", keep=tmp_path_factory.mktemp("kept"))
    return HeldOut.make(canvas, TEXTS, seed=5, steps=3, scorers=scorers)


def evaluated(held_out, policy, places=range(5), batch=8):
    return held_out.evaluate(policy, places, BatchSize(batch), CLOCK)


def test_each_prompt_has_noise_of_its_own_that_never_changes(held_out):
    assert len(set(held_out.seeds)) == 5
    shorter = HeldOut.make(held_out.canvas, TEXTS[:2], 5, 3, held_out.scorers)
    assert shorter.seeds == held_out.seeds[:2]
    other = HeldOut.make(held_out.canvas, TEXTS, 6, 3, held_out.scorers)
    assert not set(other.seeds) & set(held_out.seeds)


def test_the_images_are_those_of_the_sampler(held_out):
    ((_, images, result),) = held_out.draw(Synchronous(), [1], BatchSize(1), CLOCK)
    theirs = sample(
        held_out.canvas.backbone,
        TEXTS[1],
        num_inference_steps=3,
        guidance_scale=3.0,
        height=16,
        width=16,
        generator=[torch.Generator().manual_seed(held_out.seeds[1])],
    )
    assert images[0].tobytes() == theirs.images[0].tobytes()
    assert torch.equal(result.deviations, torch.zeros(1, 2))


def test_scores_are_of_the_images_and_the_noise_guard_is_among_them(held_out):
    (row,) = evaluated(held_out, Synchronous(), [3])
    ((_, (image,), _),) = held_out.draw(Synchronous(), [3], BatchSize(1), CLOCK)
    assert row["place"] == 3
    assert set(row["scores"]) == {"sharpness", "noise"}
    pixels = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8).reshape(16, 16, 3)
    assert row["scores"]["noise"] == pytest.approx(-noise_level(pixels.numpy()))


def test_the_guard_may_be_one_of_the_rewards(held_out):
    scorers = RewardGroup({"noise": 1.0}, device="cpu")
    both = HeldOut.make(held_out.canvas, TEXTS, 5, 3, scorers)
    assert set(evaluated(both, Synchronous(), [0])[0]["scores"]) == {"noise"}


def test_neither_batches_nor_processes_matter(held_out):
    policy = FixedDeviation(0.4)
    whole = scores_by_reward(evaluated(held_out, policy))
    small = scores_by_reward(evaluated(held_out, policy, batch=2))
    shared = evaluated(held_out, policy, [1, 3]) + evaluated(held_out, policy, [0, 2, 4])
    for name, scores in whole.items():
        assert len(scores) == 5
        assert torch.allclose(small[name], scores, atol=0.3)  # a level of 256 may turn
        assert torch.allclose(scores_by_reward(shared)[name], scores, atol=0.3)
    assert len(set(whole["noise"].tolist())) == 5


def test_deviations_are_kept_per_step(held_out):
    found = evaluated(held_out, FixedDeviation(0.4))
    assert all(row["deviations"] == pytest.approx([0.4, 0.4]) for row in found)


def test_what_does_not_fit_is_drawn_in_smaller_batches(held_out, monkeypatch):
    pass

    honest = canvas_module.sample

    def draw(*arguments, generator, **options):
        if len(generator) > 2:
            raise torch.OutOfMemoryError
        return honest(*arguments, generator=generator, **options)

    before = evaluated(held_out, Synchronous(), batch=2)
    monkeypatch.setattr(canvas_module, "sample", draw)
    size = BatchSize(8)
    assert held_out.evaluate(Synchronous(), range(5), size, CLOCK) == before
    assert size.value == 2
    _, record = held_out.sheet({"baseline": Synchronous()}, 3, BatchSize(8), CLOCK)
    assert [row[0].prompt for row in record.cells] == TEXTS[:3]
    assert [len(row[0].batch) for row in record.cells] == [2, 2, 1]


def test_a_grid_has_a_row_per_prompt_and_a_column_per_policy(held_out):
    policies = {"baseline": Synchronous(), "D = 0.4": FixedDeviation(0.4)}
    panel, record = held_out.sheet(policies, 2, BatchSize(8), CLOCK)
    assert isinstance(panel, Image.Image)
    assert len(record.cells) == 2
    for place, (baseline, fixed) in enumerate(record.cells):
        assert baseline.prompt == fixed.prompt == TEXTS[place]
        assert baseline.seed == fixed.seed == held_out.seeds[place]
        assert baseline.guidance_scale == 3.0
        assert (baseline.height, baseline.width, baseline.num_inference_steps) == (16, 16, 3)
        assert [c.policy["name"] for c in (baseline, fixed)] == ["synchronous", "fixed"]
        assert fixed.deviations == pytest.approx((0.4, 0.4))
    assert panel.size[0] > 2 * 256
    assert held_out.sheet(policies, 99, BatchSize(8), CLOCK)[1].cells[4]


def test_columns_go_by_place():
    found = [{"place": p, "scores": {"a": float(p), "b": -float(p)}} for p in (2, 0, 1)]
    assert scores_by_reward(found)["a"].tolist() == [0, 1, 2]
    assert scores_by_reward(found)["b"].tolist() == [0, -1, -2]


def test_a_comparison_by_hand():
    baseline = {"a": torch.tensor([1.0, 3.0]), "noise": torch.tensor([-2.0, -2.0])}
    scores = {"a": torch.tensor([2.0, 4.0]), "noise": torch.tensor([-3.0, -1.0])}
    found = compare(scores, baseline, {"a": 1.0})
    assert set(found) == {"a", "noise", "composite"}
    assert found["a"] == {"mean": 3.0, "difference": 1.0, "low": 1.0, "high": 1.0, "n": 2}
    assert found["noise"]["difference"] == 0.0
    assert (found["noise"]["low"], found["noise"]["high"]) == (-1.0, 1.0)
    assert found["composite"]["mean"] == pytest.approx(1)
    assert found["composite"]["difference"] == pytest.approx(1)


def test_a_policy_differs_from_itself_by_nothing(held_out):
    scores = scores_by_reward(evaluated(held_out, Synchronous()))
    for values in compare(scores, scores, {"sharpness": 1.0}).values():
        assert values["difference"] == values["low"] == values["high"] == 0
