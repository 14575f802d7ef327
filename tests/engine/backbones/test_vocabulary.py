import json

import pytest

from asyncdiff_cli.engine.backbones.vocabulary import FILE, Vocabulary
from asyncdiff_cli.engine.errors import AsyncDiffError

WORDS = Vocabulary(
    objects={"cat": ["kitten", "kitty"], "hot dog": [], "T-Rex": ["dinosaur"], "UFO": []},
    colours=["red", "white"],
    words=["a", "an", "and", "on", "background"],
)


@pytest.mark.parametrize(
    ("prompt", "unknown"),
    [
        ("a cat", {}),
        ("A Kitty, and a hot dog on a white background.", {}),
        ("a t-rex and an ufo", {}),
        ("a dog", {"dog": ["hot dog"]}),
        ("a hot cat", {"hot": ["hot dog"]}),
        ("cats", {"cats": ["cat"]}),
        ("a qqq", {"qqq": []}),
        ("category", {"category": []}),
        ("", {}),
    ],
)
def test_unknown_words_and_their_neighbours(prompt, unknown):
    assert WORDS.unknown([prompt]) == list(unknown)
    for word, near in unknown.items():
        found = WORDS.nearest(word)
        assert near == found or set(near) < set(found)


def test_the_warning_names_each_word_once():
    line = WORDS.warning("mini", ["a kat", "a kat and a qqq"])
    assert line is not None
    assert line.startswith("mini does not know 'kat' (nearest: cat")
    assert line.count("'kat'") == 1
    assert "'qqq'" in line
    assert "`asyncdiff backbones mini`" in line
    assert WORDS.warning("mini", ["a cat"]) is None
    many = WORDS.warning("mini", [f"a qqq{n}" for n in range(1010)])
    assert many is not None
    assert "'qqq7' and 1,002 more words; " in many


def test_it_is_read_from_the_pipelines_directory(tmp_path):
    assert Vocabulary.load(None) is None
    assert Vocabulary.load(tmp_path) is None
    (tmp_path / FILE).write_text(json.dumps(vars(WORDS)))
    assert Vocabulary.load(tmp_path) == WORDS
    for damaged in ("{", "[]", '{"objects": {}}'):
        (tmp_path / FILE).write_text(damaged)
        with pytest.raises(AsyncDiffError, match=r"vocabulary\.json is damaged"):
            Vocabulary.load(tmp_path)
