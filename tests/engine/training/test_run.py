"""The files of a run: complete or not at all, and what is damaged is told from what is whole."""

import json
import os
import resource
from contextlib import contextmanager

import pytest
import torch

from asyncdiff_cli.engine import AsyncDiffError, InputError
from asyncdiff_cli.engine.backbones.adapters import TextConditions
from asyncdiff_cli.engine.drawing.encoded_text import EncodedText
from asyncdiff_cli.engine.figures.report_run import run_part
from asyncdiff_cli.engine.files import umask, write_atomically, write_text
from asyncdiff_cli.engine.policies.tpm import TimestepPredictionModule
from asyncdiff_cli.engine.training.run import RunDirectory
from tests.helpers.runs import checkpoint, last


def test_the_last_few_and_the_best_are_kept(run):
    for iteration in range(1, 8):
        run.save(checkpoint(iteration), keep=2, best=2 if iteration > 2 else None)
    assert sorted(p.name for p in run.checkpoints.iterdir()) == [
        "000002.safetensors",
        "000006.safetensors",
        "000007.safetensors",
    ]
    assert last(run) == (7, [])


def test_a_copy_of_a_checkpoint_is_not_ours_and_stays(run):
    run.save(checkpoint(1), keep=1, best=None)
    copies = [run.checkpoints / "000001-mine.safetensors", run.path / "samples" / "1 copy.png"]
    for copy in copies:
        copy.parent.mkdir(exist_ok=True)
        copy.touch()
    for iteration in (999_999, 1_000_000):
        run.save(checkpoint(iteration), keep=1, best=None)
    assert last(run) == (1_000_000, [])
    assert run.files() == [run.file(1_000_000)]
    assert run.samples() == []
    assert all(copy.exists() for copy in copies)


@contextmanager
def full_disk():
    """No file may grow beyond some bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_disk_that_is_full_is_one_line_and_leaves_nothing(run):
    run.start("")
    text = EncodedText(run.path / ".text", "model")
    module = TimestepPredictionModule(4, 8, 8, width=16, heads=2, layers=1)
    for write in (
        lambda: run.save(checkpoint(1), keep=1, best=None),
        lambda: text.write("a cat", TextConditions(torch.zeros(1, 4, 8))),
        lambda: run.keep(module),
        lambda: write_text(run.path / "report.html", "x" * 100),
    ):
        with full_disk(), pytest.raises(AsyncDiffError, match=r"cannot write .*: .*too large"):
            write()
    assert [path.name for path in run.path.rglob("*") if path.is_file()] == ["recipe.yaml"]


def test_nothing_is_read_or_written_through_a_link_out_of_a_run(run, tmp_path):
    mine = tmp_path / "mine"
    mine.write_text("mine")
    (run.path / "samples").mkdir(parents=True)
    for name in ("metrics.jsonl", "samples/000001.png", "recipe.yaml"):
        (run.path / name).symlink_to(mine)
    for use in (
        lambda: run.log({"iteration": 1}),
        lambda: run.sample(1),
        lambda: run_part(run),
    ):
        with pytest.raises(InputError, match="which is not in it"):
            use()
    assert mine.read_text() == "mine"


def test_without_checkpoints_there_is_none(run):
    assert last(run) == (None, [])


def test_a_new_run_needs_a_directory_that_is_empty(run, tmp_path):
    run.path.mkdir()
    run.start("seed: 1\n")
    assert (run.path / "recipe.yaml").read_text() == "seed: 1\n"
    with pytest.raises(InputError, match=f"go on with `asyncdiff train --resume {run.path}`"):
        run.start("seed: 2\n")
    assert (run.path / "recipe.yaml").read_text() == "seed: 1\n"
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="exists"):
        RunDirectory(tmp_path / "file", "").start("")


def test_later_metrics_and_a_torn_line_are_forgotten(run):
    run.start("")
    for iteration in (0, 1, 2, 2, 3):
        run.log({"iteration": iteration, "text": "für"})
    with run.metrics.open("a") as file:
        file.write('{"iteration": 2, "rew')
    run.forget_after(2)
    found = [json.loads(line) for line in run.metrics.read_text().splitlines()]
    assert [row["iteration"] for row in found] == [0, 1, 2, 2]
    run.log({"iteration": 3})
    assert json.loads(run.metrics.read_text().splitlines()[-1]) == {"iteration": 3}
    run.forget_after(-1)
    assert run.metrics.read_text() == ""


def test_without_metrics_there_is_nothing_to_forget(run):
    run.start("")
    run.forget_after(0)
    assert not run.metrics.exists()


def test_metrics_that_cannot_be_written_are_one_line(run):
    run.start("")
    run.metrics.mkdir()
    with pytest.raises(AsyncDiffError, match=r"metrics\.jsonl is not a file"):
        run.log({"iteration": 1})


def test_a_failed_write_leaves_what_was_there(tmp_path):
    path = tmp_path / "deep" / "file.txt"
    write_text(path, "before")

    def half(file):
        file.write_text("aft")
        raise OSError(28, "No space left on device")

    with pytest.raises(AsyncDiffError, match=r"cannot write .*file\.txt: No space left on device"):
        write_atomically(path, half)
    assert path.read_text() == "before"
    assert list(path.parent.iterdir()) == [path]


def test_an_interrupted_write_leaves_what_was_there(tmp_path):
    path = tmp_path / "file.txt"
    write_text(path, "before")

    def interrupted(file):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, interrupted)
    assert (path.read_text(), list(tmp_path.iterdir())) == ("before", [path])


def test_files_have_the_permissions_of_others(tmp_path):
    before = os.umask(0o027)
    try:
        assert umask() == 0o027
        write_text(tmp_path / "file.txt", "")
        assert (tmp_path / "file.txt").stat().st_mode & 0o777 == 0o640
    finally:
        os.umask(before)


def test_a_directory_in_the_way_is_one_line(tmp_path):
    (tmp_path / "file.txt").mkdir()
    with pytest.raises(AsyncDiffError, match="cannot write"):
        write_text(tmp_path / "file.txt", "")
    (tmp_path / "other").write_text("")
    with pytest.raises(AsyncDiffError, match="cannot write"):
        write_text(tmp_path / "other" / "file.txt", "")


def test_the_metrics_are_read_without_a_torn_line(run):
    assert (run.rows(), run.samples()) == ([], [])
    run.start("backbone: mini\n")
    run.log({"iteration": 1, "rewards": {}})
    run.log({"iteration": 1, "warning": "größer"})
    with run.metrics.open("a") as file:
        file.write('{"iteration": 2, "rew')
    assert run.rows() == [{"iteration": 1, "rewards": {}}, {"iteration": 1, "warning": "größer"}]
    for iteration in (25, 5):
        write_text(run.sample(iteration), "")
    assert run.samples() == [5, 25]
