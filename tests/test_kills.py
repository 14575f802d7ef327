"""What is killed again and again ends as if it had not been, and leaves nothing behind."""

import random
import signal
import time

import pytest

from asyncdiff_cli.engine.evaluation.store import Store
from tests.helpers.evaluations import rows as stored
from tests.helpers.processes import KILL_AT, Forked
from tests.helpers.training import rows as logged
from tests.helpers.training import settings

KILLS = 50
SPAN = 2.5
"""Seconds after which a process is killed at the latest; starting takes about one of them."""
WRITES = 8
"""So many files a process may write before it is killed, where it is not killed by the clock."""


@pytest.fixture(scope="module")
def model(pipelines):
    return "--backbone", pipelines["sd3"], "--device", "cpu"


@pytest.fixture(scope="module")
def commands(model, tmp_path_factory):
    """Command lines without their --out, for so many prompts or iterations."""
    prompts = tmp_path_factory.mktemp("prompts") / "prompts.txt"
    prompts.write_text("\n".join(f"a picture of {n}" for n in range(100)))
    small = (
        *("--steps", 2, "--size", 16, "--rewards", "sharpness", "--batch-size", 2),
        *("--dataset", prompts, "--images", 100, *model),
    )
    changes = {
        "evaluation": {"every": 4, "prompts": 2}, "samples": {"every": 3, "count": 1},
        "checkpoint": {"every": 2, "keep": 2}, "ema_decay": 0.9,
    }  # fmt: skip
    return {
        "eval": lambda n: ("eval", "--policies", "baseline,fixed:0.5", "--limit", n, *small),
        "sweep": lambda n: ("sweep", "--deviations", "0.5", "--limit", n, *small),
        "train": lambda n: ("train", *model, "--recipe", "mini", "--prompts", prompts,
                            *settings({**changes, "iterations": n})),
    }  # fmt: skip


def start(command, out, **variables):
    """A process that begins, or goes on with what an earlier one left."""
    if command[0] == "train" and (out / "recipe.yaml").exists():
        return Forked("train", "--resume", out, "--device", "cpu", **variables)
    return Forked(*command, "--out", out, **variables)


def finish(command, out):
    """Run to the end; 2 is the code of a training that was there already."""
    run = start(command, out)
    _, err = run.communicate(timeout=300)
    assert run.returncode in ((0, 2) if command[0] == "train" else (0,)), err
    return out


def contents(out):
    """All that a command wrote, but for the times that it took."""
    found = {
        str(path.relative_to(out)): path.read_bytes()
        for path in out.rglob("*")
        if path.is_file() and path.parent.name != "parts" and path.name != "metrics.jsonl"
    }
    return found, logged(out) if (out / "recipe.yaml").exists() else stored(Store(out))


def kill(command, out, chance, by_clock):
    """Kill a process by the clock, or before one of its writes; whether it was still running."""
    if by_clock:
        run = start(command, out)
        time.sleep(chance.uniform(0, SPAN))
        run.kill()
    else:
        run = start(command, out, **{KILL_AT: str(chance.randrange(WRITES))})
    _, err = run.communicate(timeout=120)
    assert run.returncode in (-signal.SIGKILL, 0, 2), err
    return run.returncode == -signal.SIGKILL


@pytest.mark.slow
@pytest.mark.parametrize(("name", "count"), [("eval", 30), ("sweep", 30), ("train", 60)])
def test_what_is_killed_ends_as_if_it_had_not_been(tmp_path, commands, name, count):
    command, chance = commands[name](count), random.Random(name)
    whole = contents(finish(command, tmp_path / "whole"))
    out, done = tmp_path / "cut-0", 0
    while done < KILLS:
        if kill(command, out, chance, by_clock=done % 2 == 0):
            done += 1
        else:  # it had come to its end
            assert contents(finish(command, out)) == whole
            out = tmp_path / f"{out.name}-0"
    assert contents(finish(command, out)) == whole
