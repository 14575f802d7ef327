"""Stores of one evaluation become one, or are left as they are."""

import json
import os

import polars as pl
import pytest

from asyncdiff_cli.engine import AsyncDiffError, InputError
from asyncdiff_cli.engine.evaluation.merge import merge
from asyncdiff_cli.engine.evaluation.store import Store
from tests.helpers.stores import SETTINGS, begun, row, rows_of


def with_images(path, **settings):
    """A store of a prompt per name's first letter, whose image is its own bytes."""
    store = begun(path, **settings)
    number = int(path.name[-1])
    name = f"images/{number}.png"
    store.image(name).parent.mkdir()
    store.image(name).write_bytes(f"image {number}".encode())
    store.write([row(number, image=name), row(9)])
    return store


def test_stores_are_merged_with_their_images(tmp_path):
    paths = [tmp_path / f"shard{n}" for n in range(3)]
    for path in paths:
        with_images(path)
    merged = merge(paths[::-1], tmp_path / "out")
    assert merged.settings == Store(paths[0]).settings
    assert rows_of(merged) == [*(row(n, image=f"images/{n}.png") for n in range(3)), row(9)]
    for n in range(3):
        assert merged.image(f"images/{n}.png").read_bytes() == f"image {n}".encode()
    Store.open(tmp_path / "out", SETTINGS).write([row(3)])
    assert len(pl.read_parquet(tmp_path / "out" / "parts" / "*.parquet")) == 5
    assert [len(Store(path).keys()) for path in paths] == [2, 2, 2]


def test_empty_stores_are_merged(tmp_path):
    begun(tmp_path / "a")
    assert merge([tmp_path / "a"], tmp_path / "out").keys() == set()


def test_what_cannot_be_merged(tmp_path):
    with_images(tmp_path / "a1")
    with_images(tmp_path / "a2", seed=43)
    out = tmp_path / "out"
    with pytest.raises(InputError, match=r"a2 and .*a1 differ in seed \(42, now 43\)"):
        merge([tmp_path / "a1", tmp_path / "a2"], out)
    with pytest.raises(InputError, match="nowhere holds no evaluation"):
        merge([tmp_path / "a1", tmp_path / "nowhere"], out)
    with pytest.raises(InputError, match="nothing to merge"):
        merge([], out)
    assert not out.exists()
    out.mkdir()
    (out / "mine.txt").touch()
    with pytest.raises(InputError, match="out is there already and no evaluation: give another"):
        merge([tmp_path / "a1"], out)
    assert os.listdir(out) == ["mine.txt"]
    with pytest.raises(InputError, match="a2 is there already: give another directory"):
        merge([tmp_path / "a1"], tmp_path / "a2")


def test_a_merge_that_was_killed_is_given_again(tmp_path, monkeypatch):
    for n in range(2):
        with_images(tmp_path / f"shard{n}")
    monkeypatch.setattr(Store, "add", interrupted)
    with pytest.raises(KeyboardInterrupt):
        merge([tmp_path / "shard0"], tmp_path / "out")
    assert (tmp_path / "out" / "images" / "0.png").exists()
    monkeypatch.undo()
    merged = merge([tmp_path / "shard1"], tmp_path / "out")
    assert rows_of(merged) == [row(1, image="images/1.png"), row(9)]
    assert os.listdir(tmp_path / "out" / "images") == ["1.png"]


def interrupted(*_):
    raise KeyboardInterrupt


def test_a_missing_image_is_named_and_nothing_is_written(tmp_path):
    with_images(tmp_path / "a1").image("images/1.png").unlink()
    with pytest.raises(AsyncDiffError, match=r"the image images/1\.png is in none of the stores"):
        merge([tmp_path / "a1"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_image_of_any_of_the_stores_will_do(tmp_path):
    for name in ("a", "b"):
        with_images(tmp_path / name / "s1")
    Store(tmp_path / "a" / "s1").image("images/1.png").unlink()
    merged = merge([tmp_path / "a" / "s1", tmp_path / "b" / "s1"], tmp_path / "out")
    assert merged.image("images/1.png").read_bytes() == b"image 1"


def test_one_label_of_two_policies_is_not_merged(tmp_path):
    for name, fingerprint in (("a", "1"), ("b", "2")):
        store = Store.open(tmp_path / name, SETTINGS)
        store.write([row(0, "learned", policy_settings=json.dumps({"fingerprint": fingerprint}))])
    with pytest.raises(InputError, match="learned is not the same policy in all of them"):
        merge([tmp_path / "a", tmp_path / "b"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_damaged_store_is_not_merged(tmp_path):
    with_images(tmp_path / "a1").parts()[0].write_bytes(b"PAR1")
    with pytest.raises(AsyncDiffError, match="is damaged"):
        merge([tmp_path / "a1"], tmp_path / "out")
    assert not (tmp_path / "out").exists()
