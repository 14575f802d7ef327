"""Every published score, on synthetic weights in the original format: benchmarks/parity."""

import json
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from PIL import Image

from asyncdiff_cli.engine import Reward, rewards
from benchmarks.parity.weights import fingerprint, synthetic_state_dict
from tests.helpers.parity import KEYS, PARITY, TOLERANCE
from tests.helpers.rounding import assert_rounded, terms

UNIT = {"pickscore": 100.0}
"""What a cosine is multiplied by."""


@dataclass(frozen=True)
class Case:
    """A scorer, the reward built like it, and the pairs."""

    name: str
    reward: Reward
    pairs: list[dict[str, Any]]

    @property
    def images(self) -> list[Image.Image]:
        return [Image.open(PARITY / pair["image"]) for pair in self.pairs]

    @property
    def prompts(self) -> list[str]:
        return [pair["prompt"] for pair in self.pairs]

    @property
    def unit(self) -> float:
        return UNIT.get(self.name, 1.0)

    @property
    def scores(self) -> torch.Tensor:
        return torch.tensor([pair["score"] for pair in self.pairs])


def load(name: str, size: str) -> Case:
    fixture = json.loads((PARITY / f"scores_{size}.json").read_text())[KEYS.get(name, name)]
    weights = synthetic_state_dict(fixture["shapes"], fixture["seed"])
    assert fingerprint(weights) == fixture["weights_fingerprint"]
    reward = rewards.reward_class(name).from_state_dict(weights, fixture["config"])
    return Case(name, reward, fixture["pairs"])


@pytest.fixture(scope="module", params=TOLERANCE)
def case(request: pytest.FixtureRequest) -> Case:
    return load(request.param, "tiny")


def check_scores(case: Case) -> None:
    scores = case.reward.score(case.images, case.prompts)
    assert scores.dtype == torch.float32
    torch.testing.assert_close(scores, case.scores, rtol=0, atol=TOLERANCE[case.name])


def test_scores_are_the_published_package_s(case):
    check_scores(case)


def test_a_batch_is_its_pairs_one_by_one(case):
    batch = case.reward.score(case.images, case.prompts)
    pairs = zip(case.images, case.prompts, strict=True)
    singles = torch.cat([case.reward.score(image, prompt) for image, prompt in pairs])
    assert_rounded(batch / case.unit, singles / case.unit, terms(case.reward.model))


def test_the_order_of_a_batch_does_not_matter(case):
    scores = case.reward.score(case.images, case.prompts)
    turned = case.reward.score(case.images[::-1], case.prompts[::-1])
    assert_rounded(scores / case.unit, turned.flip(0) / case.unit, terms(case.reward.model))


def test_pixels_are_the_published_package_s(case):
    for pixels, pair in zip(case.reward.pixels(case.images), case.pairs, strict=True):
        probe = pair["probes"]["pixel_values"]
        assert pixels.mean().item() == pytest.approx(probe["mean"], abs=1e-6)
        assert pixels.std(correction=0).item() == pytest.approx(probe["std"], abs=1e-5)
        for place, value in probe["at_[c,y,x]"].items():
            assert pixels[tuple(map(int, place.split(",")))].item() == pytest.approx(
                value, abs=5e-6
            )


def test_token_ids_are_the_published_package_s(case):
    for prompt, pair in zip(case.prompts, case.pairs, strict=True):
        tokens = case.reward.tokens([prompt])
        if case.name == "image_reward":
            tokens, mask = tokens
            assert mask[0].tolist() == pair["attention_mask"]
        ids = tokens[0].tolist()
        assert ids[: len(pair["input_ids"])] == pair["input_ids"]
        assert not any(ids[len(pair["input_ids"]) :])  # nothing but padding


def test_embeddings_are_the_published_package_s(case):
    images, prompts = case.images, case.prompts
    for index, pair in enumerate(case.pairs):
        probes = {name: value for name, value in pair["probes"].items() if "pixel" not in name}
        if case.name == "image_reward":
            image = case.reward.embed_images(images[index : index + 1])
            found = {
                "image_embeds[0,0,:4]": image[0, 0, :4],
                "image_embeds[0,100,:4]": image[0, 100, :4],
                "text_cls[0,:4]": case.reward.read(
                    images[index : index + 1], prompts[index : index + 1]
                )[0, :4],
            }
        else:
            image = case.reward.embed_images(images[index : index + 1])[0, :4]
            text = case.reward.embed_texts(prompts[index : index + 1])[0, :4]
            found = {n: image if n.startswith("image") else text for n in probes}
        for name, values in probes.items():
            torch.testing.assert_close(found[name], torch.tensor(values), rtol=0, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", TOLERANCE)
def test_full_size_scores_are_the_published_package_s(name):
    check_scores(load(name, "full"))
