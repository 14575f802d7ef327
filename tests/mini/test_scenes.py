import random

import pytest
import torch

from asyncdiff_cli.engine.rewards.world.grammar import OPPOSITE, Phrase, SceneRequest
from asyncdiff_cli.engine.rewards.world.held_out import (
    count_held_out,
    held_out,
    is_unseen,
    pair_held_out,
    relation_held_out,
)
from mini.scenes import (
    KINDS,
    MOST,
    Batch,
    Scenes,
)


def test_the_same_seed_draws_the_same_scene(scenes: Scenes) -> None:
    first, second = (scenes.draw(random.Random(3)) for _ in range(2))
    assert first == second
    assert first != scenes.draw(random.Random(4))


def test_held_out_combinations_are_never_drawn_and_have_their_share(scenes: Scenes) -> None:
    rng = random.Random(0)
    drawn = [scenes.draw(rng) for _ in range(600)]
    assert {scene.kind for scene in drawn} == set(KINDS)
    for scene in drawn:
        names = [phrase.thing for phrase in scene.request.phrases]
        assert not any(count_held_out(p.thing, p.count) for p in scene.request.phrases)
        assert len(names) < 2 or not pair_held_out(*names)
    every = [held_out("pair", str(a), str(b)) for a in range(60) for b in range(a)]
    assert 0.07 < sum(every) / len(every) < 0.13


def test_a_relation_is_held_out_in_both_wordings() -> None:
    for relation in OPPOSITE:
        one = [relation_held_out(str(n), relation, "cat") for n in range(300)]
        other = [relation_held_out("cat", OPPOSITE[relation], str(n)) for n in range(300)]
        assert one == other
        assert any(one)
    unseen = next(str(n) for n in range(300) if relation_held_out(str(n), "left", "cat"))
    request = SceneRequest((Phrase("cat"), Phrase(unseen)), relation="right")
    assert is_unseen(request)


def test_what_a_caption_says_is_true_of_the_places(scenes: Scenes) -> None:
    rng = random.Random(5)
    for _ in range(300):
        scene = scenes.draw(rng)
        for item in scene.items:
            assert item.side / 2 <= item.x <= 1 - item.side / 2
            assert item.side / 2 <= item.y <= 1 - item.side / 2
        if scene.relation:
            first, second = scene.items[:2]
            gaps = {"left": second.x - first.x, "above": second.y - first.y}
            gaps |= {"right": -gaps["left"], "below": -gaps["above"]}
            assert gaps[scene.relation] > 0.3
        if scene.place:
            item = scene.items[0]
            offsets = {"left": 0.5 - item.x, "top": 0.5 - item.y}
            offsets |= {"right": -offsets["left"], "bottom": -offsets["top"]}
            assert scene.place == "middle" or offsets[scene.place] > 0.2


def test_a_caption_says_a_part_of_what_is_there(scenes: Scenes) -> None:
    rng = random.Random(6)
    for _ in range(200):
        scene = scenes.draw(rng)
        facts, whole = scenes.facts(scene, rng), scene.request
        counts = {(p.thing, p.count) for p in facts.phrases}
        assert counts == {(p.thing, p.count) for p in whole.phrases}
        assert facts.ground in ("", whole.ground)
        turned = facts.phrases[0].thing != whole.phrases[0].thing
        expected = OPPOSITE.get(whole.relation, "") if turned else whole.relation
        assert facts.relation in ("", expected)


def test_what_cannot_be_shown_is_refused(scenes: Scenes) -> None:
    with pytest.raises(ValueError, match="takes a colour"):
        scenes.compose(SceneRequest((Phrase("sheep", colour="red"),)), random.Random(0))
    with pytest.raises(ValueError, match="holds 4 things, not 5"):
        scenes.compose(SceneRequest((Phrase("cat", 4), Phrase("dog"))), random.Random(0))


def test_a_batch_holds_what_the_scenes_do(scenes: Scenes) -> None:
    rng = random.Random(7)
    drawn = [scenes.draw(rng) for _ in range(12)]
    batch = Batch.of(drawn)
    assert (batch.thing >= 0).sum(1).tolist() == [len(scene.items) for scene in drawn]
    assert batch.x.shape == (12, MOST)
    part = batch[torch.tensor([3, 5])]
    assert torch.equal(part.x, Batch.of([drawn[3], drawn[5]]).x)
