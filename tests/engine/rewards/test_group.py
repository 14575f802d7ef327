import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from asyncdiff_cli.engine import AsyncDiffError, InputError, composite, rewards
from asyncdiff_cli.engine.backbones.choice import ModelChoice
from asyncdiff_cli.engine.backbones.outline import Outline
from asyncdiff_cli.engine.backbones.setup import Setup
from asyncdiff_cli.engine.drawing import encoding
from asyncdiff_cli.engine.rewards import group as module
from asyncdiff_cli.engine.rewards.group import RewardGroup, lent
from asyncdiff_cli.engine.rewards.noise import Noise
from asyncdiff_cli.engine.rewards.precision import OPERATIONS
from benchmarks.parity.weights import synthetic_state_dict
from tests.helpers.parity import KEYS, PARITY, TOLERANCE


@pytest.fixture
def paths(tmp_path, monkeypatch):
    """Files of the four tiny models, which take the place of the published ones."""
    fixtures = json.loads((PARITY / "scores_tiny.json").read_text())
    for name in TOLERANCE:
        fixture = fixtures[KEYS.get(name, name)]
        monkeypatch.setattr(rewards.reward_class(name), "config", fixture["config"])
        weights = synthetic_state_dict(fixture["shapes"], fixture["seed"])
        torch.save(weights, tmp_path / f"{name}.pt")
    return {name: tmp_path / f"{name}.pt" for name in TOLERANCE}


@pytest.fixture
def images():
    names = ("gradient_512x512", "noise_64x64", "checker_224x224")
    return [Image.open(PARITY / "images" / f"{name}.png") for name in names]


@pytest.mark.parametrize("offload", [False, True])
def test_a_group_scores_with_each_reward(paths, images, offload):
    group = RewardGroup(dict.fromkeys(paths, 1), paths, device="cpu", offload=offload)
    scores = group.score(images, "a cat")
    assert list(scores) == list(TOLERANCE)
    for name, values in scores.items():
        torch.testing.assert_close(values, group.rewards[name].score(images, "a cat"))
    assert torch.equal(group.composite(scores), composite(scores, dict.fromkeys(paths, 1.0)))


def test_a_reward_that_cannot_be_loaded_stops_the_group(paths):
    paths["clip"].unlink()
    with pytest.raises(InputError, match=r"there is no file .*clip\.pt"):
        RewardGroup(dict.fromkeys(paths, 1), paths, device="cpu")


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_a_score_that_is_no_number_stops_the_group_and_keeps_the_image(
    value, images, tmp_path, monkeypatch
):
    levels = iter([1.0, -float(value), 2.0])
    monkeypatch.setattr(
        "asyncdiff_cli.engine.rewards.noise.noise_level", lambda pixels: next(levels)
    )
    group = RewardGroup({"noise": 1}, device="cpu", keep=tmp_path / "bad")
    with pytest.raises(AsyncDiffError, match=f"noise is {value} for image 1, which") as caught:
        group.score(images[:3], "a cat")
    (kept,) = (tmp_path / "bad").iterdir()
    assert str(kept) in str(caught.value)
    assert np.array_equal(Image.open(kept), images[1])


def test_fp32_is_fp32_while_a_reward_scores(images, monkeypatch):
    """cuDNN convolves fp32 in TF32 by default; a user's choice for other models is kept."""
    before = [operation.fp32_precision for operation in OPERATIONS]
    seen = []

    def observed(pixels):
        seen.append({operation.fp32_precision for operation in OPERATIONS})
        return 0.0

    monkeypatch.setattr("asyncdiff_cli.engine.rewards.noise.noise_level", observed)
    torch.backends.cuda.matmul.fp32_precision = "tf32"
    try:
        Noise.load().score(images[:1])
        assert torch.backends.cuda.matmul.fp32_precision == "tf32"
    finally:
        torch.backends.cuda.matmul.fp32_precision = before[0]
    assert seen == [{"ieee"}]
    assert [operation.fp32_precision for operation in OPERATIONS] == before


def test_an_offloaded_model_stays_where_it_is_and_a_copy_goes_to_the_device(paths):
    model = RewardGroup({"hpsv2": 1}, paths, device="cpu").rewards["hpsv2"].model
    own = [*model.parameters(), *model.buffers()]
    meta = torch.device("meta")
    with lent(model, meta):
        assert {t.device for t in (*model.parameters(), *model.buffers())} == {meta}
    after = [*model.parameters(), *model.buffers()]
    assert all(a is b for a, b in zip(own, after, strict=True))  # nothing came back from there


def test_models_wait_on_the_cpu_until_they_are_placed(paths, monkeypatch):
    placed = []
    on_meta = lambda _, dtype: (torch.device("meta"), torch.float32)  # noqa: E731
    monkeypatch.setattr(module, "resolve_device", on_meta)
    monkeypatch.setattr(module, "pin", placed.append)
    waiting = RewardGroup({"clip": 1, "noise": 1}, paths, "cuda", offload=True)
    waiting.place()
    assert placed == [reward.model for reward in waiting.rewards.values()]
    assert waiting.rewards["clip"].device.type == "cpu"
    staying = RewardGroup({"clip": 1}, paths, "cuda")
    assert staying.rewards["clip"].device.type == "cpu"
    staying.place()
    assert staying.rewards["clip"].device.type == "meta"
    tensors = staying.rewards["clip"].model.state_dict().values()
    assert staying.sizes["clip"] >= sum(tensor.nbytes for tensor in tensors)
    assert RewardGroup({"noise": 1}, device="cpu").sizes == {"noise": 0}


class Traced(torch.nn.Module):
    """A model that tells where it is put."""

    def __init__(self, events):
        super().__init__()
        self.events = events

    def to(self, device):
        self.events.append(str(device))


@pytest.mark.parametrize(
    ("offload", "missing", "expected"),
    [
        (False, ["a cat"], ["cpu", "encode", "cuda:0"]),
        (True, ["a cat"], ["encode"]),  # they are only there while they score
        (False, [], []),
    ],
)
def test_later_prompts_are_encoded_without_rewards_on_the_device(
    monkeypatch, offload, missing, expected
):
    events = []
    group = RewardGroup({"noise": 1}, device="cpu")
    group.device, group.offload = torch.device("cuda:0"), offload
    group.rewards["noise"].model = Traced(events)
    monkeypatch.setattr(encoding, "_encode", lambda *_: events.append("encode"))
    backbone = SimpleNamespace(device=torch.device("cpu"), setup=Setup())
    text = SimpleNamespace(missing=lambda _: missing)
    canvas = SimpleNamespace(text=text, backbone=backbone, guidance_scale=1.0)
    encoding.encode_more(Outline.of(ModelChoice(device="cpu")), [group], canvas, ["a cat"])
    assert events == expected


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is nothing to move without CUDA")
def test_offloading_leaves_one_model_on_the_device(paths, images):
    group = RewardGroup(dict.fromkeys(paths, 1), paths, device="cuda", offload=True)
    group.place()
    group.score(images, "a cat")
    assert {reward.device.type for reward in group.rewards.values()} == {"cpu"}
