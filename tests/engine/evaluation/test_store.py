"""The rows of an evaluation: each once, in files that are complete or not there."""

import itertools
import math
import os
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from asyncdiff_cli.engine import AsyncDiffError, InputError
from asyncdiff_cli.engine.evaluation import store as store_module
from asyncdiff_cli.engine.evaluation.merge import merge
from asyncdiff_cli.engine.evaluation.store import Store, reserved
from asyncdiff_cli.engine.evaluation.store_rows import COLUMNS, Key
from asyncdiff_cli.engine.evaluation.store_settings import STORE_FORMAT
from asyncdiff_cli.engine.figures.gallery import store_panel
from asyncdiff_cli.engine.figures.report import write_report
from tests.helpers.stores import SETTINGS, begun, row, rows_of


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
        assert store.settings == {"format": STORE_FORMAT, **SETTINGS}
        assert store.rewards == ("sharpness", "noise")
        assert not path.exists() or not os.listdir(path)  # before the first row
        store.begin()
        assert os.listdir(path) == ["settings.json"]
        assert Store(path).settings == store.settings


def test_a_store_is_made_where_a_kill_left_half_a_file(tmp_path):
    (tmp_path / ".settings-abc.part").write_text("{")
    assert Store.open(tmp_path, SETTINGS).keys() == set()


def test_what_is_no_store_is_left_alone(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    for path in (tmp_path, tmp_path / "notes.txt"):
        with pytest.raises(InputError, match="is there already and no evaluation: give another"):
            Store.open(path, SETTINGS)
    assert os.listdir(tmp_path) == ["notes.txt"]
    for path in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(InputError, match=f"{path} holds no evaluation: `asyncdiff eval --out"):
            Store(path)


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


POSSIBLE = [
    row(prompt_id, policy, gamma=gamma, bound=bound)
    for prompt_id in range(5)
    for policy, bound in (("baseline", 1.0), ("detail-daemon", math.inf))
    for gamma in (0.5, 1.0)
]


@given(data=st.data(), chosen=st.sets(st.integers(0, len(POSSIBLE) - 1), min_size=1))
@hypothesis_settings(max_examples=50)
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


def test_what_ended_before_its_first_row_leaves_the_directory_to_other_settings(tmp_path):
    path = tmp_path / "store"
    (begun(path).image("images/000000-baseline.png").parent).mkdir()
    (path / "images" / "000000-baseline.png").touch()
    (path / "parts").mkdir()
    with reserved(path, (0, 2)), reserved(path, (1, 2)):
        begun(path)  # by a shard that is at work
        with pytest.raises(InputError, match="other settings, seed"):
            begun(path, seed=43)
    with reserved(path):
        begun(path, seed=43).write([row()])
    with reserved(path), pytest.raises(InputError, match="other settings, seed"):
        begun(path)
    assert os.listdir(path / "parts") == [Store(path).parts()[0].name]


def test_what_is_no_store_is_not_cleared(tmp_path):
    (tmp_path / "settings.json").write_text('{"rewards": []}')
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "0.png").touch()
    with reserved(tmp_path):
        pass
    assert sorted(os.listdir(tmp_path)) == ["images", "settings.json"]


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


def test_rows_in_memory_are_those_of_the_disk(filled):
    held = filled.held()
    assert held.read().equals(filled.read())
    assert held.read(["noise"]).equals(filled.read(["noise"]))
