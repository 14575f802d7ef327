"""A part is read by others as it was written, and damage in it is found."""

import math
import os
import subprocess
import sys
from contextlib import suppress

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from asyncdiff_cli.engine import AsyncDiffError
from asyncdiff_cli.engine.evaluation.store import Store
from tests.helpers.stores import SETTINGS, row, rows_of


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
@hypothesis_settings(max_examples=40)
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
@hypothesis_settings(max_examples=150)
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


def test_the_schema_is_what_a_part_has(store):
    assert pq.read_schema(store.write([row()])).equals(store.schema)
    assert store.schema.field("deviations").type == pa.list_(pa.float32())


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


def test_a_directory_that_looks_like_a_partition_is_none(tmp_path):
    store = Store.open(tmp_path / "seed=7" / ".hidden", SETTINGS)
    store.write([row()])
    assert rows_of(store) == [row()]


def test_parts_that_may_not_be_read_are_not_none(store, monkeypatch):
    store.write([row()])

    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("os.listdir", refuse)  # as root may read all
    with pytest.raises(PermissionError):
        Store(store.path).keys()
