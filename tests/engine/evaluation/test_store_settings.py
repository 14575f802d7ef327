"""Only what was drawn with equal settings is put into one store."""

import json

import pytest

from asyncdiff_cli.engine import InputError
from asyncdiff_cli.engine.evaluation.store import Store
from asyncdiff_cli.engine.evaluation.store_settings import STORE_FORMAT
from tests.helpers.stores import SETTINGS, begun, row, rows_of


def test_a_store_of_equal_settings_is_gone_on_with(store):
    store.write([row()])
    again = Store.open(store.path, {**SETTINGS, "rewards": dict(SETTINGS["rewards"])})
    assert again.keys() == store.keys()


def test_what_has_the_same_hash_may_be_named_from_elsewhere(tmp_path):
    same = {"fingerprint": "f", "dataset": "p.txt", "prompts_sha256": "s", "lora": ["a.st@0.5"]}
    begun(tmp_path / "store", **same)
    moved = {"backbone": "../mini", "dataset": "../p.txt", "lora": ["../a.st@0.50"]}
    wanted = {**SETTINGS, **same, **moved}
    Store.open(tmp_path / "store", wanted)
    for changes in (
        {"fingerprint": "g"},
        {"fingerprint": None},
        {"prompts_sha256": "t"},
        {"lora": ["../a.st"]},
        {"lora": []},
    ):
        with pytest.raises(InputError, match="was evaluated with other settings"):
            Store.open(tmp_path / "store", {**wanted, **changes})


def test_tuples_are_the_lists_that_json_makes_of_them(tmp_path):
    for _ in range(2):
        begun(tmp_path / "store", sizes=(1, 2))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": 43}, r"settings, seed \(42, now 43\): give another --out"),
        ({"revision": "abc"}, r"settings, revision \(None, now abc\): give"),
        ({"backbone": "sd35", "seed": 1}, r"backbone \(mini, now sd35\), seed \(42, now 1\): give"),
        (
            {"rewards": {"noise": {}}},
            r"rewards \(\{'sharpness'.*, now \{'noise': \{\}\}\)",
        ),
        ({"size": 512}, r"settings, size \(None, now 512\)"),
    ],
)
def test_other_settings_are_refused_by_name_with_both_values(store, changes, message):
    with pytest.raises(InputError, match=message):
        Store.open(store.path, {**SETTINGS, **changes})
    assert Store(store.path).settings["seed"] == 42


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "{}", '{"format": 1}', '{"rewards": 3}'])
def test_damaged_settings_are_no_evaluation(store, text):
    (store.path / "settings.json").write_text(text)
    with pytest.raises(InputError, match="holds no evaluation"):
        Store(store.path)
    with pytest.raises(InputError, match="holds no evaluation"):
        Store.open(store.path, SETTINGS)


def test_another_format_is_told_by_its_number(store):
    for settings in ({**SETTINGS, "format": 99}, {"format": 99}):
        (store.path / "settings.json").write_text(json.dumps(settings))
        with pytest.raises(InputError, match=f"has format 99, .* reads {STORE_FORMAT}"):
            Store(store.path)


def test_two_that_begin_at_once_have_the_settings_of_the_first(tmp_path):
    first, second, third = (Store.open(tmp_path, {**SETTINGS, "seed": seed}) for seed in (1, 2, 1))
    first.write([row(0)])
    with pytest.raises(InputError, match=r"settings, seed \(1, now 2\)"):
        second.write([row(1)])
    third.write([row(2)])
    assert rows_of(Store(tmp_path)) == [row(0), row(2)]
