"""Two processes do what one does, and neither waits for ever for the other."""

import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
import torch

from asyncdiff_cli.engine import InputError, launching
from asyncdiff_cli.engine import processes as module
from tests.helpers.processes import Forked, ranks
from tests.helpers.training import (
    assert_close,
    checkpoints,
    module_weights,
    rows,
    settings,
    trained,
)

CPU = torch.device("cpu")
CHANGES = {
    **{"iterations": 3, "prompts_per_iteration": 2, "noises_per_prompt": 2},
    "learning_rate": 1e-4,  # Adam makes steps of about this size out of any difference at all
}


@pytest.fixture(scope="module")
def alone(tmp_path_factory, sd3_directory):
    """A run of one process; leave it as it is."""
    path = tmp_path_factory.mktemp("runs") / "alone"
    trained(path, sd3_directory, **CHANGES)
    return path


def launched(*arguments: object) -> Forked:
    return Forked("train", "--processes", 2, "--device", "cpu", *arguments)


def new(sd3_directory: Path, out: Path, **changes: object) -> list[object]:
    given = settings({**CHANGES, **changes})
    return ["--recipe", "mini", "--backbone", sd3_directory, "--out", out, *given]


def workers(run: Forked) -> list[psutil.Process]:
    return sorted(psutil.Process(run.pid).children(), key=lambda child: child.pid)


def under_way(sd3_directory: Path, out: Path) -> Forked:
    """A long run of two processes that has three iterations behind it."""
    rarely = {"every": 1000, "keep": 1}
    run = launched(
        *new(sd3_directory, out, iterations=1000, evaluation={"every": 0}, checkpoint=rarely)
    )
    lines = [run.stderr.readline() for _ in range(3)]
    assert lines[2].startswith("iteration 3 of 1000"), lines
    return run


def gone(processes: list[psutil.Process]) -> bool:
    """Whether none is left, soon."""
    return not psutil.wait_procs(processes, timeout=10)[1]


def started(*arguments: object) -> tuple[int, str, str]:
    """The exit code and the output of two processes together."""
    both = ranks(2, "train", "--device", "cpu", *arguments)
    told = [run.communicate(timeout=300) for run in both]
    return max(run.returncode for run in both), *map("".join, zip(*told, strict=True))


def launched_to_the_end(*arguments: object) -> tuple[int, str, str]:
    run = launched(*arguments)
    out, err = run.communicate(timeout=300)
    return run.returncode, out, err


@pytest.mark.parametrize(
    "start", [started, pytest.param(launched_to_the_end, marks=pytest.mark.slow)]
)
def test_two_processes_do_what_one_does(tmp_path, sd3_directory, alone, start):
    code, out, err = start(*new(sd3_directory, tmp_path / "both"))
    assert (code, out) == (0, f"{tmp_path / 'both' / 'tpm'}\n")
    assert len(err.splitlines()) == 6  # 3 iterations, 3 evaluations, each told once
    ours, theirs = rows(tmp_path / "both"), rows(alone)
    assert_close(ours, theirs, tolerance=2e-3)  # a level of 256 may turn
    for one, other in zip(ours, theirs, strict=True):
        if "deviation" in one:
            assert_close(one["deviation"], other["deviation"])
    assert np.abs(module_weights(tmp_path / "both") - module_weights(alone)).max() < 1e-5
    assert checkpoints(tmp_path / "both") == checkpoints(alone)


@pytest.mark.slow
def test_what_two_processes_began_one_ends(tmp_path, sd3_directory, alone):
    run = launched(*new(sd3_directory, tmp_path / "r", iterations=2))
    run.communicate(timeout=300)
    assert run.returncode == 0
    trained(tmp_path / "r", sd3_directory, True, **CHANGES)
    assert np.abs(module_weights(tmp_path / "r") - module_weights(alone)).max() < 1e-5
    run = launched("--resume", tmp_path / "r", "iterations=4")
    run.communicate(timeout=300)
    assert run.returncode == 0
    assert rows(tmp_path / "r")[-1]["iteration"] == 4


@pytest.mark.slow
def test_more_processes_than_trajectories(tmp_path, sd3_directory):
    """In some mini-batches, and here in all of an iteration, a process has nothing to do."""
    few = {
        **CHANGES,
        **{"iterations": 2, "prompts_per_iteration": 1, "group_size": 2, "mini_batch_size": 1},
        **{"noises_per_prompt": None, "evaluation": {"every": 1, "prompts": 2}},
        **{"scale_rewards": "baseline"},
    }
    trained(tmp_path / "alone", sd3_directory, **few)
    run = launched("--processes", 3, *new(sd3_directory, tmp_path / "many", **few))
    _, err = run.communicate(timeout=300)
    assert run.returncode == 0, err
    apart = module_weights(tmp_path / "many") - module_weights(tmp_path / "alone")
    assert np.abs(apart).max() < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_a_process_that_dies_ends_the_run(tmp_path, sd3_directory, rank):
    run = under_way(sd3_directory, tmp_path / "r")
    processes = workers(run)
    assert len(processes) == 2
    processes[rank].kill()
    _, err = run.communicate(timeout=90)
    assert run.returncode == 1
    assert err.splitlines()[-1] == "error: a process of this run has died of signal 9"
    assert "Traceback" not in err
    assert gone(processes)
    if rank == 0:  # which is the one that writes
        assert checkpoints(tmp_path / "r") == []
        return
    (complete,) = checkpoints(tmp_path / "r")
    assert complete >= 3
    assert f"go on from {complete:06d}.safetensors with `asyncdiff train --resume" in err
    changes = {**CHANGES, "evaluation": {"every": 0}, "checkpoint": {"every": 1000, "keep": 1}}
    changes["iterations"] = complete + 1
    trained(tmp_path / "r", sd3_directory, True, **changes)
    trained(tmp_path / "alone", sd3_directory, **changes)
    apart = module_weights(tmp_path / "r") - module_weights(tmp_path / "alone")
    assert np.abs(apart).max() < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_them_together(tmp_path, sd3_directory, number):
    run = under_way(sd3_directory, tmp_path / "r")
    processes = workers(run)
    if number == signal.SIGINT:  # a terminal sends it to all
        for process in processes:
            process.send_signal(number)
    run.send_signal(number)
    _, err = run.communicate(timeout=90)
    assert run.returncode == 128 + number
    assert gone(processes)
    (complete,) = checkpoints(tmp_path / "r")
    (line,) = (line for line in err.splitlines() if line.startswith("error"))
    assert line.startswith(f"error: stopped after iteration {complete}; go on from ")


def test_bad_input_is_refused_by_the_launcher_alone(tmp_path, sd3_directory):
    run = launched(*new(sd3_directory, tmp_path / "r"), "group_size=7")
    _, err = run.communicate(timeout=60)
    assert run.returncode == 2
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize("codes", [(1, 2), (2, 1), (0, 2), (2, 0)])
def test_the_exit_code_is_that_of_the_one_with_bad_input(codes):
    children = [
        SimpleNamespace(poll=lambda n=n: n, returncode=n, terminate=lambda: None) for n in codes
    ]
    assert launching._wait(children) == 2


@pytest.mark.parametrize(
    ("devices", "message"),
    [
        (["cpu", "cpu"], None),
        (["GPU-a", "GPU-b", "GPU-c"], None),
        (["GPU-a", "GPU-b", "GPU-a"], "processes 0 and 2 see one and the same GPU: start as many"),
        (["GPU-a", "cpu"], "process 1 sees no GPU and others do: give each task a GPU"),
    ],
)
def test_processes_have_a_gpu_each_or_none(devices, message):
    if message is None:
        module.check_apart(devices)
        return
    with pytest.raises(InputError, match=message):
        module.check_apart(devices)


def test_waiting_asks_for_no_gpu_of_the_process_s_number(monkeypatch):
    """As under Slurm with a GPU per task, where the second process sees one only, as its first."""
    state = SimpleNamespace(destroy_process_group=lambda: None)
    accelerator, shared, waited = SimpleNamespace(state=state, device=CPU), SimpleNamespace(), []
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(module, "Accelerator", lambda **_: accelerator)
    monkeypatch.setattr(module, "PartialState", lambda: shared)
    monkeypatch.setattr(module, "gather_object", lambda own: [*own, *own])
    monkeypatch.setattr(torch.distributed, "barrier", lambda **given: waited.append(given))
    assert module.join("cpu") is accelerator
    shared.wait_for_everyone()
    assert waited == [{}]


def test_the_launcher_does_not_wait_for_a_process_that_hangs(monkeypatch):
    """One fails, and the other does not listen."""
    deaf = "import signal, time; signal.signal(15, signal.SIG_IGN); print(1, flush=True);"
    hanging = subprocess.Popen(
        [sys.executable, "-c", f"{deaf} time.sleep(600)"], stdout=subprocess.PIPE
    )
    assert hanging.stdout.readline() == b"1\n"
    failing = subprocess.Popen([sys.executable, "-c", "raise SystemExit(1)"])
    monkeypatch.setattr(launching, "GRACE", 1.0)
    assert launching._wait([hanging, failing]) == 1
    assert hanging.returncode == -signal.SIGKILL
