"""An evaluation by several processes, and by one that is killed again and again."""

import json
import random
import signal
import sys
import time

import psutil
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from asyncdiff_cli.engine import InputError, devices
from asyncdiff_cli.engine import processes as module
from asyncdiff_cli.engine.backbones.choice import ModelChoice
from asyncdiff_cli.engine.drawing.provenance import read_provenance
from asyncdiff_cli.engine.evaluation.comparison import Comparison
from asyncdiff_cli.engine.evaluation.start import open_evaluation
from asyncdiff_cli.engine.evaluation.store import Store
from asyncdiff_cli.engine.launching import launch, must_launch
from tests.helpers.evaluations import assert_alike, finish, rows
from tests.helpers.processes import Forked, ranks, server

PROMPTS = 60


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    path = tmp_path_factory.mktemp("texts") / "prompts.txt"
    path.write_text("\n".join(f"a picture of {n}" for n in range(PROMPTS)))
    return path


@pytest.fixture
def opened(sd3_directory, texts):
    """Open an evaluation, a prompt with its two policies in a batch; all images are kept."""

    def make(out, **changes):
        options = {
            **{"steps": (2,), "dataset": str(texts), "size": 16, "rewards": ("sharpness",)},
            **{"batch_size": 2, "kept_images": PROMPTS, **changes},
        }
        choice = ModelChoice(backbone=str(sd3_directory), device="cpu")
        return open_evaluation(Comparison(choice, "baseline,fixed:0.5", **options), out)

    return make


@pytest.fixture
def line(sd3_directory, texts):
    """The same as a command line."""

    def make(out, *arguments):
        return (
            "eval", "--policies", "baseline,fixed:0.5", "--steps", 2, "--dataset", texts,
            "--size", 16, "--rewards", "sharpness", "--batch-size", 2, "--images", PROMPTS,
            "--backbone", sd3_directory, "--device", "cpu", "--out", out, *arguments,
        )  # fmt: skip

    return make


@pytest.fixture
def start(line):
    """The same in a process of its own."""
    return lambda out, *arguments: Forked(*line(out, *arguments))


def stored(path):
    """How many parts a store has, which may be in the making."""
    return len(list((path / "parts").glob("[!.]*.parquet")))


def started(*arguments):
    """What the first of two processes tells; the other one is silent."""
    first, second = ranks(2, *arguments)
    told = first.communicate(timeout=300)
    assert second.communicate(timeout=300)[0] == ""
    assert second.returncode == 0
    return first, *told


def launched(*arguments):
    run = Forked(*arguments, "--processes", 2)
    return run, *run.communicate(timeout=300)


@pytest.mark.parametrize("draw", [started, pytest.param(launched, marks=pytest.mark.slow)])
def test_two_processes_draw_what_one_draws(tmp_path, opened, line, draw):
    run, out, err = draw(*line(tmp_path / "two", "--shard", "0/2", "--limit", 5, "--json"))
    assert run.returncode == 0, err
    assert json.loads(out)["drawn"] == 6
    other = opened(tmp_path / "two", limit=5, shard=(1, 2))
    assert sum(finish(other)) == 4
    other.finish(0)
    alone = opened(tmp_path / "one", limit=5)
    assert sum(finish(alone)) == 10
    both = Store(tmp_path / "two")
    assert stored(both.path) == 5
    assert both.keys() == alone.store.keys()
    assert_alike(both, alone.store)
    images = sorted(path.name for path in (alone.store.path / "images").iterdir())
    assert sorted(path.name for path in (both.path / "images").iterdir()) == images
    assert (both.path / "table.md").is_file()
    assert opened(tmp_path / "two", limit=5).pending() == []


def launch_sleepers(executable):
    sys.executable = str(executable)
    launch(2, [], "cpu")


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel does it")
def test_what_a_launcher_started_ends_with_it(tmp_path):
    script = tmp_path / "python"
    script.write_text(f"#!/bin/sh\necho $$ >> {tmp_path}/started\nexec sleep 600\n")
    script.chmod(0o755)
    launcher = server().Process(target=launch_sleepers, args=[script])
    launcher.start()
    while len(children := psutil.Process(launcher.pid).children()) < 2 or any(
        child.name() != "sleep" for child in children
    ):
        assert launcher.is_alive()
        time.sleep(0.01)
    launcher.kill()
    assert psutil.wait_procs(children, timeout=60)[1] == []


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the kernel does it")
def test_processes_end_with_a_launcher_that_is_killed(tmp_path, opened, start):
    run = start(tmp_path / "store", "--processes", 2)
    while stored(tmp_path / "store") == 0 and run.poll() is None:
        time.sleep(0.01)
    run.kill()
    run.communicate(timeout=60)  # until the last of them has closed its output
    again = opened(tmp_path / "store")
    assert again.pending(), "they went on to the end"
    finish(again)
    assert sum(pq.read_metadata(p).num_rows for p in again.store.parts()) == 2 * PROMPTS


@pytest.mark.parametrize(
    ("kills", "prompts"), [(2, 20), pytest.param(10, PROMPTS, marks=pytest.mark.slow)]
)
def test_what_is_killed_loses_no_row_and_doubles_none(tmp_path, opened, start, kills, prompts):
    """Each process goes on where the one before was killed, at a random moment."""
    chance = random.Random(kills)
    for _ in range(kills):
        before = stored(tmp_path / "store")
        run = start(tmp_path / "store", "--limit", prompts)
        wanted = before + chance.randint(1, prompts // kills - 2)
        while stored(tmp_path / "store") < wanted and run.poll() is None:
            time.sleep(0.001)
        time.sleep(chance.uniform(0, 0.05))
        run.kill()
        _, err = run.communicate(timeout=60)
        assert run.returncode == -signal.SIGKILL, err
    again = opened(tmp_path / "store", limit=prompts)
    done = again.store.keys()
    assert 0 < len(done) < 2 * prompts
    assert len(again.pending()) == 2 * prompts - len(done)
    finish(again)
    whole = opened(tmp_path / "whole", limit=prompts)
    finish(whole)
    assert rows(again.store) == rows(whole.store)
    assert sum(pq.read_metadata(p).num_rows for p in again.store.parts()) == 2 * prompts
    for name in again.store.read(["image"])["image"].to_pylist():
        ours, theirs = again.store.image(name), whole.store.image(name)
        assert read_provenance(ours) == read_provenance(theirs)
        with Image.open(ours) as one, Image.open(theirs) as other:
            assert one.tobytes() == other.tobytes()


@pytest.mark.parametrize(
    ("world", "processes", "launches"),
    [(None, 1, False), (None, 2, True), ("1", 1, False), ("4", 1, False), ("4", 4, False)],
)
def test_one_process_starts_the_others_unless_a_launcher_has(
    monkeypatch, world, processes, launches
):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    if world is not None:
        monkeypatch.setenv("WORLD_SIZE", world)
    assert must_launch(processes) is launches


@pytest.mark.parametrize("processes", [0, -2])
def test_a_number_of_processes_is_from_1(processes):
    with pytest.raises(InputError, match=f"a whole number from 1, not {processes}"):
        must_launch(processes)


@pytest.mark.parametrize(("world", "processes"), [("4", 2), ("1", 2)])
def test_a_launchers_number_of_processes_is_the_one(monkeypatch, world, processes):
    monkeypatch.setenv("WORLD_SIZE", world)
    with pytest.raises(InputError, match=f"has started {world} processes: leave out --processes"):
        must_launch(processes)


def test_several_processes_do_not_share_a_gpu_or_ask_for_more_than_there_are(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(module, "resolve_device", lambda *_: (torch.device("cuda"), None))
    with pytest.raises(InputError, match=r"several processes use a GPU each: .*, not cuda:1"):
        module.join("cuda:1")
    monkeypatch.setattr(devices, "resolve_device", lambda *_: (torch.device("cuda"), None))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(InputError, match="3 processes need 3 GPUs, and there are 2: use a smaller"):
        launch(3, [], "cuda")
