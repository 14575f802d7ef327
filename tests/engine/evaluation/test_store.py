"""The rows of an evaluation: each once, in files that are complete or not there."""

import itertools
import json
import math
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from asyncdiff_cli.engine import AsyncDiffError, InputError
from asyncdiff_cli.engine.evaluation import store as store_module
from asyncdiff_cli.engine.evaluation.store import COLUMNS, FORMAT, Key, Store, merge, reserved
from asyncdiff_cli.engine.figures.gallery import store_panel
from asyncdiff_cli.engine.figures.report import write_report

SETTINGS = {
    "backbone": "mini",
    "revision": None,
    "seed": 42,
    "rewards": {"sharpness": {"dtype": "float32"}, "noise": {"dtype": "float32"}},
}


def row(prompt_id=0, policy="baseline", **changes):
    """A row of all columns."""
    return {
        "prompt_id": prompt_id,
        "prompt": f"prompt {prompt_id}",
        "category": "color",
        "seed": 2**63 - 1 - prompt_id,
        "policy": policy,
        "gamma": 1.0,
        "bound": 0.5,
        "num_inference_steps": 3,
        "deviations": [0.25, -0.5],
        "cond_sigmas": [1.0, 0.75, 0.5],
        "seconds": 0.125,
        "policy_settings": json.dumps({"name": policy}),
        "image": None,
        "provenance": "{}",
        "sharpness": 0.1 + prompt_id,
        "noise": -2.0,
        **changes,
    }


def rows_of(store):
    return store.read(store.schema.names).to_pylist()


@pytest.fixture
def store(tmp_path):
    return begun(tmp_path / "store")


def begun(path, **changes):
    """A store without rows, whose settings are written."""
    store = Store.open(path, {**SETTINGS, **changes})
    store.begin()
    return store


def test_every_column_is_read_back_as_it_was(store):
    before = row(category=None, image="images/0.png", gamma=-1.5, sharpness=1 / 3)
    store.write([before])
    assert rows_of(store) == [before]
    assert store.read().schema == store.schema
    assert store.schema.names == [*COLUMNS, "sharpness", "noise"]


def test_an_infinite_bound_and_any_letters_survive(store):
    text = "ein Bär 🐻 läuft\n\t'\"\\ \u202e\0 漢字"
    before = row(bound=math.inf, prompt=text, policy="learned:größe/π")
    store.write([before])
    assert rows_of(store) == [before]
    assert store.keys() == {
        Key(0, 2**63 - 1, "learned:größe/π", 1.0, math.inf, 3),
    }


def test_a_run_of_one_step_has_no_deviations(store):
    before = row(deviations=[], cond_sigmas=[1.0], num_inference_steps=1)
    store.write([before])
    assert rows_of(store) == [before]


def test_an_empty_store_has_the_columns_and_no_keys(store):
    assert store.read().schema == store.schema
    assert (len(store.read()), store.keys(), store.parts()) == (0, set(), [])


def test_some_columns_come_with_the_keys(store):
    store.write([row()])
    assert store.read(["noise"]).column_names == [*Key._fields, "noise"]
    assert store.read(["seed", "noise"]).column_names == [*Key._fields, "noise"]


def test_a_store_is_made_where_there_is_nothing(tmp_path):
    (tmp_path / "empty").mkdir()
    for path in (tmp_path / "empty", tmp_path / "deep" / "new"):
        store = Store.open(path, SETTINGS)
        assert store.settings == {"format": FORMAT, **SETTINGS}
        assert store.rewards == ("sharpness", "noise")
        assert not path.exists() or not os.listdir(path)  # before the first row
        store.begin()
        assert os.listdir(path) == ["settings.json"]
        assert Store(path).settings == store.settings


def test_a_store_is_made_where_a_kill_left_half_a_file(tmp_path):
    (tmp_path / ".settings-abc.part").write_text("{")
    assert Store.open(tmp_path, SETTINGS).keys() == set()


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
        with pytest.raises(InputError, match="was evaluated with another"):
            Store.open(tmp_path / "store", {**wanted, **changes})


def test_parts_that_may_not_be_read_are_not_none(store, monkeypatch):
    store.write([row()])

    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("os.listdir", refuse)  # as root may read all
    with pytest.raises(PermissionError):
        Store(store.path).keys()


def test_tuples_are_the_lists_that_json_makes_of_them(tmp_path):
    for _ in range(2):
        begun(tmp_path / "store", sizes=(1, 2))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": 43}, r"another seed \(42, now 43\): give another --out"),
        ({"revision": "abc"}, r"another revision \(None, now abc\): give"),
        ({"backbone": "sd35", "seed": 1}, r"backbone \(mini, now sd35\), seed \(42, now 1\): give"),
        ({"rewards": {"noise": {}}}, r"another rewards \(\{'sharpness'.*, now \{'noise': \{\}\}\)"),
        ({"size": 512}, r"another size \(None, now 512\)"),
    ],
)
def test_other_settings_are_refused_by_name_with_both_values(store, changes, message):
    with pytest.raises(InputError, match=message):
        Store.open(store.path, {**SETTINGS, **changes})
    assert Store(store.path).settings["seed"] == 42


def test_what_is_no_store_is_left_alone(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    for path in (tmp_path, tmp_path / "notes.txt"):
        with pytest.raises(InputError, match="is there already and no evaluation: give another"):
            Store.open(path, SETTINGS)
    assert os.listdir(tmp_path) == ["notes.txt"]
    for path in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(InputError, match=f"{path} holds no evaluation: `asyncdiff eval --out"):
            Store(path)


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
        with pytest.raises(InputError, match=f"has format 99, and this version reads {FORMAT}"):
            Store(store.path)


def test_a_directory_that_looks_like_a_partition_is_none(tmp_path):
    store = Store.open(tmp_path / "seed=7" / ".hidden", SETTINGS)
    store.write([row()])
    assert rows_of(store) == [row()]


def test_a_row_of_two_parts_is_read_once(store):
    store.write([row(0), row(1)])
    store.write([row(1), row(2)])
    store.write([row(2)])
    assert len(store.parts()) == 3
    assert rows_of(store) == [row(0), row(1), row(2)]


def test_the_same_rows_are_the_same_part(store):
    assert store.write([row(0), row(1)]) == store.write([row(0), row(1)])
    assert len(store.parts()) == 1
    assert store.write([row(1), row(0)]) != store.write([row(0, "fixed:0.5"), row(1)])


def test_rows_are_in_the_order_of_their_keys(store):
    every = [
        row(prompt_id, policy, gamma=gamma, num_inference_steps=steps)
        for prompt_id, policy, gamma, steps in itertools.product(
            range(3), ("baseline", "fixed:0.5"), (-1.0, 0.0, 2.0), (2, 10)
        )
    ]
    for one in reversed(every):
        store.write([one])
    assert rows_of(store) == every


def test_keys_are_what_is_there(store):
    store.write([row(3, gamma=2.0, bound=1.0), row(4)])
    assert store.keys() == {
        Key(3, 2**63 - 4, "baseline", 2.0, 1.0, 3),
        Key(4, 2**63 - 5, "baseline", 1.0, 0.5, 3),
    }


def test_a_part_that_fails_midway_is_not_there(store, monkeypatch):
    store.write([row(0)])

    def half(table, file, **_):
        file.write_bytes(b"PAR1")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pq, "write_table", half)
    with pytest.raises(AsyncDiffError, match=r"cannot write .*\.parquet: No space left on device"):
        store.write([row(1)])
    assert os.listdir(store.path / "parts") == [store.parts()[0].name]
    assert rows_of(store) == [row(0)]


def test_a_writer_that_is_killed_midway_leaves_what_is_not_read(store):
    store.write([row(0)])
    script = f"""
import os, signal
from pathlib import Path
import pyarrow.parquet as pq
from asyncdiff_cli.engine.evaluation.store import Store

def half(table, file, **_):
    file.write_bytes(b"PAR1")
    os.kill(os.getpid(), signal.SIGKILL)

pq.write_table = half
Store(Path({str(store.path)!r})).write([{row(1)!r}])
"""
    assert subprocess.run([sys.executable, "-c", script]).returncode == -9
    assert len(os.listdir(store.path / "parts")) == 2
    assert rows_of(store) == [row(0)]
    store.write([row(1)])
    assert rows_of(store) == [row(0), row(1)]


@given(length=st.floats(0, 1, exclude_max=True))
@hypothesis_settings(max_examples=40, deadline=None)
def test_a_torn_part_is_named_wherever_it_ends(tmp_path_factory, length):
    store = Store.open(tmp_path_factory.mktemp("stores") / "store", SETTINGS)
    store.write([row(0)])
    path = store.write([row(1), row(2)])
    content = path.read_bytes()
    path.write_bytes(content[: int(length * len(content))])
    with pytest.raises(AsyncDiffError) as error:
        store.read()
    message = str(error.value)
    assert message.startswith(f"{path} is damaged (")
    assert message.endswith("delete it, and evaluate into the same --out to draw its images again")
    assert "\n" not in message
    with pytest.raises(AsyncDiffError, match="is damaged"):
        store.keys()
    path.unlink()
    assert rows_of(store) == [row(0)]


@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
@example(place=0.7428067389508348, bit=3)  # the footer's number of rows: 20 became 16
@hypothesis_settings(max_examples=150, deadline=None)
def test_a_flipped_bit_never_changes_a_score(tmp_path_factory, place, bit):
    store = Store.open(tmp_path_factory.mktemp("stores") / "store", SETTINGS)
    before = [row(n, sharpness=n / 7) for n in range(20)]
    path = store.write(before)
    content = bytearray(path.read_bytes())
    content[int(place * len(content))] ^= 1 << bit
    path.write_bytes(content)
    with suppress(AsyncDiffError):
        assert rows_of(store) == before


def test_a_part_of_other_columns_is_damaged(store):
    path = store.write([row(0)])
    pq.write_table(pq.ParquetFile(path).read().drop_columns("noise"), path)
    with pytest.raises(AsyncDiffError, match="is damaged"):
        store.read()


POSSIBLE = [
    row(prompt_id, policy, gamma=gamma, bound=bound)
    for prompt_id in range(5)
    for policy, bound in (("baseline", 1.0), ("detail-daemon", math.inf))
    for gamma in (0.5, 1.0)
]


@given(data=st.data(), chosen=st.sets(st.integers(0, len(POSSIBLE) - 1), min_size=1))
@hypothesis_settings(max_examples=50, deadline=None)
def test_the_parts_that_rows_came_in_do_not_matter(tmp_path_factory, data, chosen):
    store = Store.open(tmp_path_factory.mktemp("stores") / "store", SETTINGS)
    order = data.draw(st.permutations([*chosen, *data.draw(st.lists(st.sampled_from([*chosen])))]))
    while order:
        size = data.draw(st.integers(1, len(order)))
        store.write([POSSIBLE[n] for n in order[:size]])
        order = order[size:]
    whole = Store.open(tmp_path_factory.mktemp("stores") / "store", SETTINGS)
    whole.write([POSSIBLE[n] for n in sorted(chosen)])
    assert store.read().equals(whole.read())
    assert len(store.keys()) == len(chosen)


@pytest.fixture
def filled(store):
    """Two policies on four prompts, a part per prompt."""
    for n in range(4):
        store.write([row(n, sharpness=float(n)), row(n, "fixed:0.5", sharpness=n + 1.0)])
    return store


def test_duckdb_reads_it(filled):
    found = duckdb.sql(
        f"select policy, avg(sharpness) from '{filled.path}/parts/*.parquet'"
        " group by policy order by policy"
    ).fetchall()
    assert found == [("baseline", 1.5), ("fixed:0.5", 2.5)]


def test_pandas_reads_it(filled):
    frame = pd.read_parquet(filled.path / "parts")
    assert frame.groupby("policy")["sharpness"].mean().to_dict() == {
        "baseline": 1.5,
        "fixed:0.5": 2.5,
    }
    assert frame["deviations"][0].tolist() == [0.25, -0.5]


def test_polars_reads_it(filled):
    frame = pl.read_parquet(filled.path / "parts" / "*.parquet")
    means = frame.group_by("policy").agg(pl.col("sharpness").mean()).sort("policy")
    assert means.rows() == [("baseline", 1.5), ("fixed:0.5", 2.5)]
    assert frame["seed"].max() == 2**63 - 1


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


def test_what_ended_before_its_first_row_leaves_the_directory_to_other_settings(tmp_path):
    path = tmp_path / "store"
    (begun(path).image("images/000000-baseline.png").parent).mkdir()
    (path / "images" / "000000-baseline.png").touch()
    (path / "parts").mkdir()
    with reserved(path, (0, 2)), reserved(path, (1, 2)):
        begun(path)  # by a shard that is at work
        with pytest.raises(InputError, match="another seed"):
            begun(path, seed=43)
    with reserved(path):
        begun(path, seed=43).write([row()])
    with reserved(path), pytest.raises(InputError, match="another seed"):
        begun(path)
    assert os.listdir(path / "parts") == [Store(path).parts()[0].name]


def test_what_is_no_store_is_not_cleared(tmp_path):
    (tmp_path / "settings.json").write_text('{"rewards": []}')
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "0.png").touch()
    with reserved(tmp_path):
        pass
    assert sorted(os.listdir(tmp_path)) == ["images", "settings.json"]


def test_two_that_begin_at_once_have_the_settings_of_the_first(tmp_path):
    first, second, third = (Store.open(tmp_path, {**SETTINGS, "seed": seed}) for seed in (1, 2, 1))
    first.write([row(0)])
    with pytest.raises(InputError, match=r"another seed \(1, now 2\)"):
        second.write([row(1)])
    third.write([row(2)])
    assert rows_of(Store(tmp_path)) == [row(0), row(2)]


def test_a_missing_image_is_named_and_nothing_is_written(tmp_path):
    with_images(tmp_path / "a1").image("images/1.png").unlink()
    with pytest.raises(AsyncDiffError, match=r"the image images/1\.png is in none of the stores"):
        merge([tmp_path / "a1"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def outside(tmp_path):
    """Stores in tmp_path/data whose image's name leads to the secret beside them."""
    secret = tmp_path / "data" / ".secret"
    secret.parent.mkdir()
    secret.write_bytes(b"a secret")
    names = (
        *("../.secret", "images/../../.secret", str(secret), "C:/.secret", "..\\.secret", "images"),
        *("images/link.png", "settings.json", "images/\0.png", "images/pipe.png"),
    )
    for number, name in enumerate(names):
        store = begun(secret.parent / f"store{number}")
        (store.path / "images").mkdir()
        (store.path / "images" / "link.png").symlink_to(secret)
        os.mkfifo(store.path / "images" / "pipe.png")
        store.write([row(image=name)])
        yield store, name


def test_no_image_is_read_or_written_outside_of_a_store(tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    (home / ".secret").write_bytes(b"mine")
    for store, name in outside(tmp_path):
        for read in (
            lambda store, name: store.image(name),
            lambda store, _: store_panel(store),
            lambda store, _: merge([store.path], home / "merged"),
            lambda store, _: write_report(store.path, home / "report.html"),
        ):
            with pytest.raises(InputError, match=r"names .*not in|is not a file"):
                read(store, name)
    assert os.listdir(home) == [".secret"]
    assert (home / ".secret").read_bytes() == b"mine"


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


def test_the_schema_is_what_a_part_has(store):
    assert pq.read_schema(store.write([row()])).equals(store.schema)
    assert store.schema.field("deviations").type == pa.list_(pa.float32())


@pytest.fixture
def compacting(store, monkeypatch):
    """A store that puts two parts into one."""
    monkeypatch.setattr(store_module, "FAN_IN", 2)
    return store


def test_many_parts_of_a_process_are_put_into_few(compacting):
    for n in range(15):
        compacting.write([row(n)])
    assert len(compacting.parts()) == 4  # of 8, 4, 2 and 1 rows
    assert rows_of(compacting) == [row(n) for n in range(15)]


def test_the_parts_of_all_processes_are_compacted_with_each_row_once(compacting):
    for rows in ([row(0), row(1)], [row(1), row(2)], [row(2)]):
        Store(compacting.path).write(rows)
    compacting.compact()
    (part,) = compacting.parts()
    assert pq.read_table(part)["prompt_id"].to_pylist() == [0, 1, 2]
    assert rows_of(compacting) == [row(n) for n in range(3)]
    compacting.compact()
    assert compacting.parts() == [part]


def test_a_compaction_that_is_killed_loses_and_doubles_nothing(compacting, monkeypatch):
    compacting.write([row(0)])
    honest = Path.unlink

    def unlink(path, **options):
        if path.suffix == ".parquet":
            raise KeyboardInterrupt
        honest(path, **options)

    with monkeypatch.context() as killed:
        killed.setattr(Path, "unlink", unlink)
        with pytest.raises(KeyboardInterrupt):
            compacting.write([row(1)])
    assert len(compacting.parts()) == 3
    again = Store(compacting.path)
    assert rows_of(again) == [row(0), row(1)]
    again.compact()
    assert rows_of(again) == [row(0), row(1)]
    assert len(again.parts()) == 1


def test_a_part_that_goes_while_it_is_read_is_read_where_it_went(compacting, monkeypatch):
    Store(compacting.path).write([row(0)])
    Store(compacting.path).write([row(1)])
    honest, other = Store.parts, Store(compacting.path)

    def parts(store):
        found = honest(store)
        if store is compacting and len(found) == 2:
            other._compact(found)
        return found

    monkeypatch.setattr(Store, "parts", parts)
    assert rows_of(compacting) == [row(0), row(1)]
    monkeypatch.setattr(Store, "parts", lambda store: [store.path / "parts" / "0.parquet"])
    with pytest.raises(AsyncDiffError, match="is listed, and not there"):
        compacting.read()


def test_a_part_that_another_process_replaced_is_left_to_it(compacting):
    gone = Store(compacting.path).write([row(0)])
    Store(compacting.path).write([row(1)])
    gone.unlink()
    compacting._compact([gone, *compacting.parts()])
    assert rows_of(compacting) == [row(1)]


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("noise", pa.nulls(1)),
        ("noise", pa.array([math.nan])),
        ("noise", pa.array(["much"])),
        ("noise", pa.array([[1.0]])),
        ("policy", pa.array([None], pa.string())),
        ("prompt_id", pa.array([2**40])),
        ("deviations", pa.array([[None, 0.5]], pa.list_(pa.float64()))),
        ("deviations", pa.array([[math.inf, 0.5]])),
        ("deviations", pa.array([{"a": 1}])),
        ("image", pa.array([[1, 2]])),
    ],
)
def test_a_part_of_other_values_is_damaged(store, column, values):
    path = store.write([row(0)])
    table = pq.ParquetFile(path).read()
    place = table.column_names.index(column)
    pq.write_table(table.set_column(place, column, values), path)
    with pytest.raises(AsyncDiffError, match=f"{path} is damaged"):
        store.read()


def test_columns_beside_the_store_s_own_are_not_read(store):
    path = store.write([row(0)])
    pq.write_table(pq.ParquetFile(path).read().append_column("mine", pa.array([1])), path)
    assert rows_of(store) == [row(0)]


def test_rows_in_memory_are_those_of_the_disk(filled):
    held = filled.held()
    assert held.read().equals(filled.read())
    assert held.read(["noise"]).equals(filled.read(["noise"]))
