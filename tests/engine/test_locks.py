"""One command writes to a directory at a time, and clears what dead ones have left in it."""

import os
import signal
import subprocess
import sys

import pytest

from asyncdiff_cli.engine import AsyncDiffError, InputError
from asyncdiff_cli.engine.files import check_writable, temporary, write_text
from asyncdiff_cli.engine.locks import hold, turn


def refused(directory, shard=None):
    """What a second command is told."""
    with pytest.raises(InputError) as error, hold(directory, shard):
        pass
    return str(error.value)


def test_a_second_command_is_told_who_holds_a_directory(tmp_path):
    with hold(tmp_path / "deep" / "out") as alone:
        assert alone
        message = refused(tmp_path / "deep" / "out")
    assert f"out is being written by process {os.getpid()} on {os.uname().nodename} sin" in message
    assert message.endswith(": wait until it ends, or use another directory")
    assert not (tmp_path / "deep").exists()  # nothing was written


def test_a_directory_is_free_after_its_command_and_keeps_what_it_wrote(tmp_path):
    for _ in range(2):
        with hold(tmp_path / "out"):
            write_text(tmp_path / "out" / "a.txt", "a")
    assert os.listdir(tmp_path / "out") == ["a.txt"]


@pytest.mark.parametrize(
    ("one", "other", "apart"),
    [
        ((0, 2), (1, 2), True),
        ((0, 2), (0, 2), False),
        ((0, 1), (3, 4), False),
        ((1, 2), (3, 4), False),
        ((0, 2), (3, 4), True),
        ((0, 2), (1, 3), False),  # both have the prompt 4
    ],
)
def test_shards_work_side_by_side_if_they_have_no_prompt_in_common(tmp_path, one, other, apart):
    with hold(tmp_path, one):
        if not apart:
            assert f"process {os.getpid()} on" in refused(tmp_path, other)
            return
        with hold(tmp_path, other) as alone:
            assert not alone
            with turn(tmp_path):
                pass
    with hold(tmp_path, other) as alone:
        assert alone


def test_of_the_processes_of_a_run_the_first_holds(tmp_path, monkeypatch):
    with hold(tmp_path):
        monkeypatch.setenv("RANK", "1")
        with hold(tmp_path) as alone:
            assert not alone
        monkeypatch.setenv("RANK", "0")
        refused(tmp_path)


KILLED = """
import os, signal, sys
from pathlib import Path
from asyncdiff_cli.engine.files import temporary
from asyncdiff_cli.engine.locks import hold
out = Path(sys.argv[1])
with hold(out, (0, 2)), temporary(out / "parts" / "a.png"), temporary(out / "tpm", True) as folder:
    (folder / "file").touch()
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_command_left_is_removed_by_the_next_and_nothing_else(tmp_path):
    (tmp_path / "parts").mkdir()
    run = subprocess.run([sys.executable, "-c", KILLED, tmp_path])
    assert run.returncode == -signal.SIGKILL
    names = sorted(path.name for path in tmp_path.rglob("*"))
    assert [name[:4] for name in names] == [".a-", ".loc", ".tpm", "file", "part"] or len(
        names
    ) == 5
    for name in (".mine.part", "parts/a-12345678.part", "parts/.hidden"):
        (tmp_path / name).write_text("mine")
    (tmp_path / "parts" / ".a-link5678.part").symlink_to(tmp_path / ".mine.part")
    with temporary(tmp_path / "parts" / "b.png") as own, hold(tmp_path):
        assert own.exists()  # of a process that lives
    with hold(tmp_path, (0, 1)):
        pass
    assert sorted(p.name for p in tmp_path.rglob("*")) == [
        ".a-link5678.part", ".hidden", ".mine.part", "a-12345678.part", "parts"
    ]  # fmt: skip


def test_where_nothing_can_be_written_is_told_at_once(tmp_path):
    (tmp_path / "file").write_text("mine")
    with (
        pytest.raises(InputError, match="file is a file: give --out a directory"),
        hold(tmp_path / "file"),
    ):
        pass
    for path in (tmp_path / "file" / "below", tmp_path / ("x" * 300)):
        with pytest.raises(AsyncDiffError, match="cannot write to "), hold(path):
            pass
    (tmp_path / ".lock").symlink_to(tmp_path / "file")
    with pytest.raises(AsyncDiffError, match="cannot write to "), hold(tmp_path):
        pass
    assert (tmp_path / "file").read_text() == "mine"


def test_a_files_place_is_tried_before_there_is_something_to_write(tmp_path):
    write_text(tmp_path / "file", "mine")
    (tmp_path / "folder").mkdir()
    for name in ("file/below.png", "folder", "x" * 300):
        with pytest.raises(AsyncDiffError, match="cannot write "):
            check_writable(tmp_path / name)
    dead = tmp_path / ".a-12345678.part"
    for name in (dead.name, ".ab-12345678.part", ".a-1.part"):
        (tmp_path / name).touch()
    check_writable(tmp_path / "a.png")
    check_writable(tmp_path / "new" / "a.png")  # and leaves no directory
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"file", "folder", ".ab-12345678.part", ".a-1.part"}
    assert (tmp_path / "file").read_text() == "mine"


def test_a_name_that_just_fits_is_written(tmp_path):
    write_text(tmp_path / ("ä" * 125 + ".txt"), "text")
    with pytest.raises(AsyncDiffError, match=r"cannot write .*File name too long"):
        write_text(tmp_path / ("ä" * 130 + ".txt"), "text")
    assert len(os.listdir(tmp_path)) == 1
