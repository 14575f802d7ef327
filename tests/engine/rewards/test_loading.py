"""From files and the hub to a reward that scores; and what is refused, in one line each."""

import json
import pickle
import warnings
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from huggingface_hub.errors import (
    GatedRepoError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from PIL import Image
from safetensors.torch import save_file

from asyncdiff_cli import render
from asyncdiff_cli.engine import AsyncDiffError, InputError, load_reward, rewards, score
from asyncdiff_cli.engine.rewards import PUBLISHED, checkpoints, published
from benchmarks.parity.weights import synthetic_state_dict
from tests.helpers.parity import KEYS, PARITY, TOLERANCE

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(scope="module", params=TOLERANCE)
def tiny(request):
    """A scorer's name, its fixture, and the weights of its tiny model."""
    fixture = json.loads((PARITY / "scores_tiny.json").read_text())[
        KEYS.get(request.param, request.param)
    ]
    return request.param, fixture, synthetic_state_dict(fixture["shapes"], fixture["seed"])


@pytest.fixture
def tiny_class(tiny, monkeypatch):
    """The class, taking the tiny model for the published one."""
    reward_class = rewards.reward_class(tiny[0])
    monkeypatch.setattr(reward_class, "config", tiny[1]["config"])
    return reward_class


def first_score(reward, fixture):
    pair = fixture["pairs"][0]
    return reward.score(Image.open(PARITY / pair["image"]), pair["prompt"]).item(), pair["score"]


@pytest.mark.parametrize("kind", ["safetensors", "pickle", "training"])
def test_a_local_file_is_loaded(tiny, tiny_class, kind, tmp_path):
    name, fixture, weights = tiny
    path = tmp_path / ("weights.safetensors" if kind == "safetensors" else "weights.pt")
    if kind == "safetensors":
        save_file({k: v.contiguous() for k, v in weights.items()}, path)
    else:
        torch.save({"state_dict": weights, "epoch": 3} if kind == "training" else weights, path)
    reward = load_reward(name, path, device="cpu")
    found, expected = first_score(reward, fixture)
    assert found == pytest.approx(expected, abs=TOLERANCE[name])
    assert (reward.revision, reward.dtype, reward.device.type) == (None, torch.float32, "cpu")


def test_half_precision_weights_score_in_fp32(tiny, tiny_class, tmp_path):
    name, fixture, weights = tiny
    path = tmp_path / "half.pt"
    torch.save({k: v.half() if v.is_floating_point() else v for k, v in weights.items()}, path)
    reward = load_reward(name, path, device="cpu")
    assert reward.dtype == torch.float32
    found, expected = first_score(reward, fixture)
    assert found == pytest.approx(expected, abs=0.02 * (100 if name == "pickscore" else 1))


def test_the_hub_s_commit_is_recorded(tiny, tiny_class, tmp_path, monkeypatch):
    name, fixture, weights = tiny
    folder = tmp_path / "snapshots" / COMMIT
    folder.mkdir(parents=True)

    def hf_hub_download(repo, file, revision=None):
        assert (repo, revision) == (tiny_class.repo, "main")
        path = folder / file
        if path.suffix == ".safetensors":
            save_file({k: v.contiguous() for k, v in weights.items()}, path)
        else:
            torch.save(weights, path)
        return str(path)

    def snapshot_download(repo, allow_patterns):
        assert repo == tiny_class.processor_repo
        reward = tiny_class()
        reward.tokenizer.save_pretrained(tmp_path / "processor")
        reward.processor.save_pretrained(tmp_path / "processor")
        return str(tmp_path / "processor")

    monkeypatch.setattr(checkpoints, "hf_hub_download", hf_hub_download)
    if name == "pickscore":
        monkeypatch.setattr(rewards.pickscore, "snapshot_download", snapshot_download)
    reward = load_reward(name, device="cpu", revision="main")
    assert reward.revision == COMMIT
    found, expected = first_score(reward, fixture)
    assert found == pytest.approx(expected, abs=TOLERANCE[name])


def test_other_weights_are_refused(tiny, tiny_class, tmp_path):
    name, _, weights = tiny
    path = tmp_path / "weights.pt"
    key = next(k for k in weights if k.endswith("weight"))
    for others in (
        {**weights, key: torch.zeros(3)},
        {**weights, key: weights[key].int()},
        {k: v for k, v in weights.items() if k != key},
    ):
        torch.save({**others, "extra": torch.zeros(1)}, path)
        with pytest.raises(AsyncDiffError, match=rf"not the weights of {name}: \S+ is [^;]*$"):
            load_reward(name, path, device="cpu")


def test_what_a_file_holds_beside_the_weights_is_left_out_and_said_once(
    tiny, tiny_class, tmp_path, capsys
):
    name, fixture, weights = tiny
    path = tmp_path / "weights.pt"
    torch.save({**weights, "queue": torch.zeros(2), "head.bias": torch.zeros(1)}, path)
    with warnings.catch_warnings():
        render.quiet_imports()
        render.quiet_libraries()
        for _ in range(2):
            reward = load_reward(name, path, device="cpu")
    assert capsys.readouterr().err == (
        f"warning: the file of {name} holds 2 weights that its network does not have, such as"
        " queue: they are left out\n"
    )
    found, expected = first_score(reward, fixture)
    assert found == pytest.approx(expected, abs=TOLERANCE[name])


def test_a_model_has_no_weights_before_they_are_filled_in(tiny, tiny_class, monkeypatch):
    _, fixture, weights = tiny
    computed = dict(tiny_class(fixture["config"]).model.named_buffers())  # which no file has

    def fill(model, *rest):
        assert all(parameter.is_meta for parameter in model.parameters())
        checkpoints.fill(model, *rest)

    monkeypatch.setattr(published, "fill", fill)
    model = tiny_class.from_state_dict(weights, fixture["config"]).model
    assert not any(tensor.is_meta for tensor in (*model.parameters(), *model.buffers()))
    found = {name: torch.equal(buffer, computed[name]) for name, buffer in model.named_buffers()}
    assert found == dict.fromkeys(computed, True)


class Evil:
    def __reduce__(self):
        return Path.touch, (Path("executed"),)


def test_a_pickle_cannot_run_code(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "evil.pt"
    torch.save({"weights": Evil()}, path)
    with pytest.raises(AsyncDiffError, match="would run code"):
        load_reward("hpsv2", path, device="cpu")
    path.write_bytes(pickle.dumps(Evil()))
    with pytest.raises(AsyncDiffError, match="would run code"):
        load_reward("hpsv2", path, device="cpu")
    assert not Path("executed").exists()


@pytest.mark.parametrize("name", PUBLISHED)
@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
def test_a_damaged_file_is_one_line(name, suffix, tmp_path):
    path = tmp_path / f"weights.{suffix}"
    path.write_bytes(b"PK\x03\x04 and then nothing")
    with pytest.raises(AsyncDiffError, match=r"weights\.") as caught:
        load_reward(name, path, device="cpu")
    assert "fetch" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_bad_input():
    with pytest.raises(InputError, match=r"there is no file nowhere\.pt"):
        load_reward("clip", "nowhere.pt", device="cpu")


def test_a_file_without_weights_is_refused(tmp_path):
    path = tmp_path / "list.pt"
    torch.save([1, 2], path)
    with pytest.raises(AsyncDiffError, match="no state dict"):
        load_reward("clip", path, device="cpu")


RESPONSE = SimpleNamespace(headers={}, status_code=403, request=None)


@pytest.mark.parametrize("name", PUBLISHED)
@pytest.mark.parametrize(
    ("error", "message"),
    [
        (GatedRepoError("no", response=RESPONSE), "is gated: accept its licence"),
        (LocalEntryNotFoundError("offline"), "cannot be reached: connect, or pass --reward-path"),
        (RepositoryNotFoundError("no", response=RESPONSE), "there is no repository"),
        (RevisionNotFoundError("no", response=RESPONSE), "has no such revision"),
    ],
)
def test_what_the_hub_refuses_is_one_line(name, error, message, monkeypatch):
    def refuse(*args, **kwargs):
        raise error

    monkeypatch.setattr(checkpoints, "hf_hub_download", refuse)
    with pytest.raises(AsyncDiffError, match=message) as caught:
        score(name, Image.new("RGB", (8, 8)), "a cat", device="cpu")
    assert "\n" not in str(caught.value)


def test_an_unknown_reward_names_the_nearest():
    with pytest.raises(InputError, match="did you mean 'pickscore'"):
        score("pick_score", Image.new("RGB", (8, 8)), "a cat")


def test_an_embedded_reward_takes_no_file():
    with pytest.raises(InputError, match="takes no file"):
        load_reward("noise", "weights.pt", device="cpu")


def test_a_model_is_loaded_once_per_process(tiny, tiny_class, tmp_path, monkeypatch):
    name, fixture, weights = tiny
    path = tmp_path / "weights.pt"
    torch.save(weights, path)
    pair = fixture["pairs"][0]
    image = Image.open(PARITY / pair["image"])
    first = score(name, image, pair["prompt"], path=path, device="cpu")
    path.unlink()
    assert torch.equal(score(name, image, pair["prompt"], path=path, device="cpu"), first)


def test_pairs_must_be_pairs(tiny, tiny_class):
    reward = tiny_class()
    image = Image.new("RGB", (8, 8))
    with pytest.raises(InputError, match="3 prompts for 2 images"):
        reward.score([image, image], ["a", "b", "c"])
    with pytest.raises(InputError, match="needs a prompt"):
        reward.score(image)
    with pytest.raises(InputError, match="image 1 is a str"):
        reward.score([image, "cat.png"], "a cat")
    with pytest.raises(InputError, match="prompts are strings"):
        reward.score([image], [7])
    with pytest.raises(InputError, match="a prompt is not Unicode text"):
        reward.score([image], ["\ud800"])
    assert reward.score([], []).shape == (0,)


@pytest.mark.parametrize(
    ("mode", "size"),
    [
        *((mode, (16, 16)) for mode in ("1", "L", "LA", "P", "RGBA", "CMYK", "I;16")),
        *(("RGB", size) for size in [(1, 300), (300, 7)]),
    ],
)
def test_pictures_of_any_mode_and_shape_are_scored(tiny, tiny_class, mode, size):
    reward = tiny_class()
    assert torch.isfinite(reward.score(Image.new(mode, size), "a cat")).all()
