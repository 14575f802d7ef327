import math
import random

import pytest
import torch

from asyncdiff_cli.engine.rewards.world.grammar import Phrase, SceneRequest
from asyncdiff_cli.engine.rewards.world.vocabulary import COLOURS, GROUNDS, HUES, MATERIALS
from mini import grounds
from mini.compose import Composer, to_hsv, to_images, to_rgb
from mini.scenes import Batch, Scene, Scenes


def scene_of(scenes: Scenes, request: SceneRequest, seed: int = 0) -> Scene:
    return scenes.compose(request, random.Random(seed))


def test_a_picture_does_not_depend_on_its_batch(scenes: Scenes, composer: Composer) -> None:
    rng = random.Random(1)
    batch = Batch.of([scenes.draw(rng) for _ in range(8)])
    whole = composer.render(batch)
    assert whole.shape == (8, 3, 128, 128)
    assert whole.min() >= -1
    assert whole.max() <= 1
    parts = torch.cat([composer.render(batch[:5]), composer.render(batch[5:])])
    torch.testing.assert_close(parts, whole, atol=2 / 127.5, rtol=0)


def test_autocast_does_not_reach_the_pictures(scenes: Scenes, composer: Composer) -> None:
    batch = Batch.of([scenes.draw(random.Random(2))])
    with torch.autocast("cpu", torch.bfloat16):
        inside = composer.render(batch)
    assert torch.equal(inside, composer.render(batch))


def test_a_thing_is_where_and_as_large_as_the_truth_says(
    scenes: Scenes, composer: Composer
) -> None:
    for seed in range(4):
        request = SceneRequest((Phrase("dog"),), ground="plain", ground_colour="white")
        scene = scene_of(scenes, request, seed)
        picture = composer.render(Batch.of([scene]))[0]
        shown = (picture.amax(0) - picture.amin(0)) > 0.5
        row, column = (index.double().mean() / 128 for index in shown.nonzero(as_tuple=True))
        item = scene.items[0]
        assert column == pytest.approx(item.x, abs=0.02)
        assert row == pytest.approx(item.y, abs=0.02)
        area = math.pi / 4 * item.side**2  # the dog is a disc
        assert shown.double().mean() == pytest.approx(area, rel=0.12)


@pytest.mark.parametrize("colour", HUES)
def test_a_thing_has_the_colour_that_is_asked_for(
    scenes: Scenes, composer: Composer, colour: str
) -> None:
    request = SceneRequest((Phrase("dog", colour=colour),), ground="plain", ground_colour="white")
    scene = scene_of(scenes, request)
    picture = (composer.render(Batch.of([scene])) + 1) / 2
    item = scene.items[0]
    hue, saturation, _ = to_hsv(picture[..., int(128 * item.y), int(128 * item.x), None, None])
    assert 360 * hue.item() == pytest.approx(HUES[colour][0], abs=4)
    assert (saturation.item() < 0.6) == (colour == "pink")


@pytest.mark.parametrize("colour", COLOURS)
def test_a_plain_ground_has_the_colour_that_is_named(
    scenes: Scenes, composer: Composer, colour: str
) -> None:
    request = SceneRequest((Phrase("cat", size="small"),), ground="plain", ground_colour=colour)
    picture = composer.render(Batch.of([scene_of(scenes, request)]))[0]
    median = (picture.flatten(1).median(1).values + 1) * 127.5
    apart = {name: (median - torch.tensor(own)).square().sum() for name, own in COLOURS.items()}
    assert min(apart, key=apart.get) == colour


def draw_grounds(kind: str, count: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    numbers = torch.rand(count, 12, generator=generator)
    seeds = torch.randint(2**31, (count,), generator=generator)
    index = torch.full((count,), GROUNDS.index(kind))
    return grounds.draw(index, torch.zeros(count, dtype=torch.long), numbers, seeds, 64)


@pytest.mark.parametrize("kind", GROUNDS)
def test_grounds_differ_from_picture_to_picture_and_materials_have_detail(kind: str) -> None:
    first, second = draw_grounds(kind, 2)
    assert (first - second).abs().mean() > 0.005
    assert torch.equal(first, draw_grounds(kind, 2)[0])
    fine = first.diff(dim=-1).abs().mean()
    assert (fine > 0.01) == (kind in MATERIALS or kind in ("stripes", "dots", "checks"))


def test_noise_has_the_slope_that_is_asked_for() -> None:
    plot = grounds.Plot(torch.rand(16, 12), torch.arange(16), torch.rand(16, 3), 128)
    power = torch.fft.rfft2(plot.noise(0, 1.5)).abs().square().mean(0)
    low, high = power[0, 4:8].mean(), power[0, 32:64].mean()
    slope = (low / high).log() / math.log(48 / 6)
    assert slope.item() == pytest.approx(3.0, abs=0.35)  # amplitude 1.5, power 3


def test_the_hash_is_uniform_and_white() -> None:
    values = grounds.hash_noise(torch.tensor([1, 2]), 1, 128)
    assert values.mean().item() == pytest.approx(0.5, abs=0.01)
    assert values.var().item() == pytest.approx(1 / 12, rel=0.03)
    one, other = values[0].flatten(), values[1].flatten()
    for a, b in ((one, other), (one[1:], one[:-1]), (one[128:], one[:-128])):
        assert abs(torch.corrcoef(torch.stack((a, b)))[0, 1].item()) < 0.03


def test_hsv_and_back() -> None:
    rgb = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(to_rgb(*to_hsv(rgb)), rgb)
    assert to_images(2 * rgb - 1)[0].size == (8, 8)
