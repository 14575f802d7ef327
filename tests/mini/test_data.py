from pathlib import Path

import numpy as np
import pytest

from mini import data
from mini.data import Composer, held_out, load_concepts, with_article
from mini.evaluate import ground_colour
from mini.settings import COLOURS, CONCEPTS, Scenes


def test_concepts_come_out_of_the_packages(packages: Path) -> None:
    concepts = load_concepts(packages)
    assert [c.name for c in concepts] == ["orb", "box", "egg", "ice cream"]
    assert concepts[1].tags == ("crate", "cube")
    assert concepts[0].art.size == (49, 33)  # cropped to what is opaque


@pytest.mark.parametrize("concepts", ["unicycle", "box:spaceship", "ball=planet"])
def test_a_word_that_is_not_in_the_packages_is_refused(
    packages: Path, monkeypatch: pytest.MonkeyPatch, concepts: str
) -> None:
    monkeypatch.setattr(data, "CONCEPTS", concepts)
    with pytest.raises(ValueError, match="not a label or tag"):
        load_concepts(packages)


def test_names_are_unique() -> None:
    names = [item.partition(":")[0].rpartition("=")[2] for item in CONCEPTS.split()]
    words = [word for item in CONCEPTS.split() for word in item.partition(":")[2].split(",")]
    every = [*names, *filter(None, words)]
    assert len(set(every)) == len(every)


def test_the_same_seed_draws_the_same_scene(composer: Composer) -> None:
    first, second = (composer.compose(np.random.default_rng(3)) for _ in range(2))
    np.testing.assert_array_equal(first.picture, second.picture)
    assert (first.objects, first.colour) == (second.objects, second.colour)


def test_held_out_combinations_are_never_composed(composer: Composer) -> None:
    share = Scenes().held_out
    rng = np.random.default_rng(0)
    scenes = [composer.compose(rng) for _ in range(300)]
    unseen = {
        (concept.name, colour)
        for concept in composer.concepts
        for colour in COLOURS
        if held_out(concept.name, colour, share=share)
    }
    assert unseen
    assert not unseen & {(name, scene.colour) for scene in scenes for name in scene.objects}
    assert not any(
        held_out(*scene.objects, share=share) for scene in scenes if len(scene.objects) == 2
    )


def test_held_out_does_not_depend_on_order_and_has_its_share() -> None:
    pairs = [(str(a), str(b)) for a in range(60) for b in range(a)]
    chosen = [pair for pair in pairs if held_out(*pair, share=0.1)]
    assert chosen == [pair for pair in pairs if held_out(*reversed(pair), share=0.1)]
    assert 0.07 < len(chosen) / len(pairs) < 0.13


@pytest.mark.parametrize("colour", COLOURS)
def test_the_ground_has_the_colour_that_the_caption_names(composer: Composer, colour: str) -> None:
    rng = np.random.default_rng(1)
    for concepts in ([composer.concepts[0]], list(composer.concepts[1:3])):
        assert ground_colour(composer.draw(concepts, colour, rng).picture) == colour


def test_captions_use_only_known_words(composer: Composer) -> None:
    rng = np.random.default_rng(2)
    known = {"a", "an", "and", "on", "background", *COLOURS}
    for concept in composer.concepts:
        known.update(*(word.split() for word in (concept.name, *concept.tags)))
    captions = [composer.caption(composer.compose(rng), rng) for _ in range(200)]
    assert set(" ".join(captions).split()) <= known
    assert any("crate" in caption or "cube" in caption for caption in captions)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("cat", "a cat"), ("octopus", "an octopus"), ("UFO", "a UFO"), ("unicorn", "a unicorn"),
     ("umbrella", "an umbrella")],
)  # fmt: skip
def test_articles(name: str, expected: str) -> None:
    assert with_article(name) == expected
