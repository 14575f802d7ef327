"""`asyncdiff train`."""

import json
import signal
import subprocess
import sys
import time

import pytest
import torch
import yaml
from accelerate.utils import LoggerType

from asyncdiff_cli.engine.policies.learned import LearnedDeviation
from asyncdiff_cli.engine.policies.schedule_file import Schedule
from asyncdiff_cli.engine.rewards.noise import Noise
from asyncdiff_cli.engine.training.recipe_files import load_recipe
from asyncdiff_cli.engine.training.run_options import TRACKERS
from asyncdiff_cli.engine.training.trainer import Trainer
from tests.helpers.processes import Forked
from tests.helpers.training import (
    checkpoints,
    module_bytes,
    rows,
    settings,
    small_recipe,
)


@pytest.fixture
def train(asyncdiff, pipelines):
    """`asyncdiff train` at the smallest settings, two iterations on a tiny pipeline if new."""

    def call(*arguments, **changes):
        if "--resume" in arguments:
            return asyncdiff("train", "--device", "cpu", *arguments)
        small = ["--recipe", "mini", "--backbone", pipelines["sd3"], "--device", "cpu"]
        given = settings({"iterations": 2, "evaluation": {"every": 0}, **changes})
        return asyncdiff("train", *small, "--out", "r", *given, *arguments)

    return call


def one_line(outcome, code):
    """The one line that a failed command is, without its prefix."""
    assert (outcome.code, outcome.out) == (code, "")
    (line,) = outcome.err.splitlines()
    assert line.startswith("error: ")
    return line


def test_a_run_tells_a_line_per_event_and_prints_where_its_module_is(train, tmp_path):
    outcome = train(evaluation={"every": 2, "prompts": 2})
    assert (outcome.code, outcome.out) == (0, "r/tpm\n")
    lines = outcome.err.splitlines()
    assert [line.split(":")[0] for line in lines] == [
        "iteration 0 of 2, held out",
        "iteration 1 of 2",
        "iteration 2 of 2",
        "iteration 2 of 2, held out",
    ]
    assert "noise" in lines[1]
    assert "images/s" in lines[1]
    assert LearnedDeviation.load(tmp_path / "r" / "tpm").bound == 0.5


def test_json_is_an_object_per_event(train, tmp_path):
    outcome = train("--json", evaluation={"every": 2, "prompts": 2})
    assert (outcome.code, outcome.err) == (0, "")
    events = [json.loads(line) for line in outcome.out.splitlines()]
    assert [(event.pop("event"), event["iteration"]) for event in events] == [
        ("evaluation", 0),
        ("iteration", 1),
        ("iteration", 2),
        ("evaluation", 2),
    ]
    assert events == rows(tmp_path / "r", timings=True)


def test_the_same_command_writes_the_same_bytes(train, tmp_path):
    for out in "ab":
        assert train("--out", out, "--seed", 3).code == 0
    assert module_bytes(tmp_path / "a") == module_bytes(tmp_path / "b")
    assert train("--out", "c", "--seed", 4).code == 0
    assert module_bytes(tmp_path / "c") != module_bytes(tmp_path / "a")
    assert load_recipe("c/recipe.yaml").seed == 4


def test_the_trained_module_draws(train, asyncdiff, pipelines, tmp_path):
    train(learning_rate=0.05, iterations=3)
    outcome = asyncdiff(
        *("sample", "a cat", "--tpm", "r/tpm", "--backbone", pipelines["sd3"]),
        *("--steps", 3, "--size", 16, "--out", "drawn", "--json"),
    )
    assert (outcome.code, outcome.err) == (0, "")


def test_a_recipe_of_ones_own(asyncdiff, pipelines, tmp_path):
    recipe = small_recipe(pipelines["sd3"], iterations=1, evaluation={"every": 0})
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(recipe.model_dump(mode="json")))
    outcome = asyncdiff("train", "--recipe", "mine.yaml", "--device", "cpu")
    assert (outcome.code, outcome.out) == (0, "runs/mine/tpm\n")
    kept = load_recipe("runs/mine/recipe.yaml")
    assert (kept.dtype, kept.scheduler) == ("fp32", "euler")
    filled = {"dtype", "scheduler", "guidance_scale", "size"}  # which were the backbone's
    assert kept.model_dump(exclude=filled) == recipe.model_dump(exclude=filled)


def test_a_run_begins_at_a_schedule_file_from_anywhere(train, tmp_path):
    Schedule(deviations=(0.3, -0.2), steps=3).save(tmp_path / "s.json")
    outcome = train("start=schedule:s.json", iterations=1)
    assert (outcome.code, outcome.out) == (0, "r/tpm\n")
    assert load_recipe("r/recipe.yaml").start == f"schedule:{tmp_path / 's.json'}"
    (row,) = rows(tmp_path / "r")
    assert row["alpha"][0] > row["beta"][0]
    assert row["alpha"][1] < row["beta"][1]


def test_a_file_of_prompts_is_trained_on(train, tmp_path):
    prompts = [f"a cat and {number} dogs" for number in range(40)]
    (tmp_path / "prompts.txt").write_text("\n".join(prompts))
    outcome = train("--prompts", "prompts.txt", samples={"every": 1, "count": 1})
    assert outcome.code == 0
    assert load_recipe("r/recipe.yaml").prompts == str(tmp_path / "prompts.txt")
    from asyncdiff_cli.engine.drawing.provenance import read_provenance

    record = read_provenance("r/samples/000002.png")
    assert record.cells[0][0].prompt in prompts


@pytest.mark.parametrize(
    ("options", "chosen"),
    [
        ([], ("mini", "runs/mini")),
        (["--backbone", "mini"], ("mini", "runs/mini")),
        (["--backbone", "flux"], ("flux-coco", "runs/flux-coco")),
        (["--backbone", "sd35"], ("sd35-coco", "runs/sd35-coco")),
        (["--recipe", "mini-lifted"], ("mini-lifted", "runs/mini-lifted")),
    ],
)
def test_a_backbone_has_a_recipe_of_its_own(asyncdiff, monkeypatch, options, chosen):
    asked = []

    def stop(recipe, path, *rest):
        asked.append((recipe, str(path)))
        raise KeyboardInterrupt

    monkeypatch.setattr("asyncdiff_cli.engine.training.start.open_trainer", stop)
    assert asyncdiff("train", *options).code == 130
    assert asked == [(load_recipe(chosen[0]), chosen[1])]


def test_all_problems_of_a_recipe_are_told_at_once(train, tmp_path):
    outcome = train("iteratons=3", "group_size=5", "rewards={pikscore: 1}", "tpm.heads=3", "x")
    line = one_line(outcome, 2)
    for part in (
        "did you mean 'iterations'",
        "group_size 5 = 5 is not divisible by mini_batch_size 2 (try 1)",
        "did you mean 'pickscore'",
        "heads start in opposite pairs, so 3 is not even",
        "KEY=VALUE",
    ):
        assert part in line
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--recipe", "minni"], "did you mean 'mini'"),
        (["--recipe", "nowhere.yaml"], "no file nowhere.yaml"),
        (["--backbone", "some/where"], "there is no recipe for some/where: give --recipe"),
        (["--resume", "."], ". is not a run: it has no recipe.yaml"),
        (["--resume", ".", "--out", "r"], "give neither"),
        (["--resume", ".", "--recipe", "mini"], "give neither"),
        (["--prompts", "nowhere.txt"], "nowhere.txt"),
        (["--tracker", "tensorbord"], "did you mean 'tensorboard'"),
        (["--processes", "0", "--device", "cpu"], "a whole number from 1, not 0"),
        (["--device", "abacus"], "abacus"),
        (["--dtype", "fp8"], "fp8"),
        (["--seed", "x"], "'--seed'"),
        (["num_inference_steps=1"], "num_inference_steps"),
        (["iterations=true"], "not a yes-or-no setting"),
        (["start=schedule:nowhere.json"], "nowhere.json"),
        (["start=learned"], "'learned' is none of fixed, schedule, spectral, calibrated"),
    ],
)
def test_bad_input_is_one_line(asyncdiff, tmp_path, arguments, message):
    assert message in one_line(asyncdiff("train", *arguments), 2)
    assert not (tmp_path / "runs").exists()


def test_a_directory_that_holds_something_is_left_alone(train, tmp_path):
    (tmp_path / "r").mkdir()
    (tmp_path / "r" / "notes.txt").write_text("mine")
    line = one_line(train(), 2)
    assert "r exists: go on with `asyncdiff train --resume r`, or give another --out" in line
    assert [file.name for file in (tmp_path / "r").iterdir()] == ["notes.txt"]


def test_a_finished_run_says_so_and_can_be_extended(train, tmp_path):
    train(iterations=1)
    line = one_line(train("--resume", "r"), 2)
    assert "all 1 iterations are done: add iterations=N to go on" in line
    told = train("--resume", "r", "iterations=3", "--dry-run", "--json").json
    drawn = 2 * told["group_size"] * told["prompts"] // 2
    assert (told["run"], told["done"], told["images"]) == ("r", 1, drawn)
    assert told["memory_bytes"] > told["weights_bytes"]
    outcome = train("--resume", "r", "iterations=3")
    assert outcome.code == 0
    assert [line.split(":")[0] for line in outcome.err.splitlines()] == [
        "iteration 2 of 3",
        "iteration 3 of 3",
    ]
    train("--out", "whole", iterations=3)
    assert module_bytes(tmp_path / "r") == module_bytes(tmp_path / "whole")
    assert "all 3 iterations" in train("--resume", "r").err


def test_what_decides_the_result_cannot_change_on_the_way(train, tmp_path):
    train(iterations=1)
    before = (tmp_path / "r" / "recipe.yaml").read_text()
    line = one_line(
        train("--resume", "r", "iterations=3", "learning_rate=1", "tpm.width=32", "--seed", "9"), 2
    )
    assert "a run that goes on keeps its seed, learning_rate, tpm" in line
    assert "start another with --recipe r/recipe.yaml" in line
    assert "what may change: iterations, " in line
    assert (tmp_path / "r" / "recipe.yaml").read_text() == before


def test_a_torn_checkpoint_is_named_on_stderr(train, tmp_path):
    train(iterations=3)
    file = tmp_path / "r" / "checkpoints" / "000003.safetensors"
    file.write_bytes(file.read_bytes()[:-10])
    outcome = train("--resume", "r")
    assert outcome.code == 0
    warning, iteration = outcome.err.splitlines()
    assert warning == "warning: checkpoint r/checkpoints/000003.safetensors is torn: skipped"
    assert iteration.startswith("iteration 3 of 3: ")
    for each in (tmp_path / "r" / "checkpoints").iterdir():
        each.write_bytes(b"")
    outcome = train("--resume", "r", "iterations=4")
    assert outcome.code == 1
    *warnings, error = outcome.err.splitlines()
    assert [line.split(":")[0] for line in warnings] == ["warning"] * 2
    assert error == "error: r has no checkpoint to go on from"


def test_a_score_that_is_no_number_is_one_line(train, tmp_path, monkeypatch):
    honest, calls = Noise._score, []

    def score(self, images, prompts):
        calls.append(1)
        scores = honest(self, images, prompts)
        return scores * float("nan") if len(calls) == 2 else scores

    with monkeypatch.context() as patch:
        patch.setattr(Noise, "_score", score)
        outcome = train()
    assert outcome.code == 1
    first, error = outcome.err.splitlines()
    assert first.startswith("iteration 1 of 2: ")
    assert error.startswith("error: iteration 2: noise is nan for image 0")
    assert error.endswith("go on from 000001.safetensors with `asyncdiff train --resume r`")
    assert train("--resume", "r").code == 0


def test_memory_that_does_not_suffice_is_one_line_with_advice(train, monkeypatch):
    def draw(*arguments, **options):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")

    monkeypatch.setattr("asyncdiff_cli.engine.drawing.canvas.sample", draw)
    line = one_line(train(), 1)
    assert "iteration 1: out of memory with one image at a time: use a smaller size" in line
    assert "offload_rewards=true" in line


def test_an_interrupt_between_two_events_is_one_too(train, tmp_path, monkeypatch):
    """While a line is printed it is not the trainer that is interrupted."""
    from asyncdiff_cli import dashboard

    honest = dashboard.summary

    def summary(kind, values, total):
        if values["iteration"] == 2:
            raise KeyboardInterrupt
        return honest(kind, values, total)

    with monkeypatch.context() as patch:
        patch.setattr(dashboard, "summary", summary)
        outcome = train(iterations=3, checkpoint={"every": 100, "keep": 1})
    assert (outcome.code, outcome.out) == (130, "")
    assert outcome.err.splitlines()[-1] == (
        "error: stopped after iteration 2; go on from 000002.safetensors with"
        " `asyncdiff train --resume r`"
    )
    assert train("--resume", "r").code == 0
    train("--out", "whole", iterations=3)
    assert module_bytes(tmp_path / "r") == module_bytes(tmp_path / "whole")


def test_a_tracker_is_told_the_numbers(train, tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    assert train("--tracker", "tensorboard").code == 0
    (directory,) = (path.parent for path in (tmp_path / "r").glob("*/events.out.*"))
    events = EventAccumulator(str(directory))
    events.Reload()
    told = {event.step: event.value for event in events.Scalars("rewards/noise/raw")}
    known = {row["iteration"]: row["rewards"]["noise"]["raw"] for row in rows(tmp_path / "r")}
    assert told == pytest.approx(known)
    assert {"deviation/mean/0", "deviation/mean/1", "grad_norm"} <= set(events.Tags()["scalars"])


TRACKIO = """
def init(project):
    return Run()

class Run:
    def log(self, values, step): write(step, len(values))
    def finish(self): write("finished")

class config:
    def update(values, allow_val_change): write(values["iterations"])

def write(*words):
    with open(r"PATH", "a") as file:
        print(*words, file=file)
"""


@pytest.fixture
def trackio(tmp_path, monkeypatch):
    """A stand-in of the package, and the file of what it was told."""
    told = tmp_path / "told"
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "trackio.py").write_text(TRACKIO.replace("PATH", str(told)))
    monkeypatch.syspath_prepend(tmp_path / "site")
    monkeypatch.delitem(sys.modules, "trackio", raising=False)
    # which accelerate looks for once
    monkeypatch.setattr("accelerate.tracking._available_trackers", [LoggerType.TRACKIO])
    return told


def test_any_tracker_that_accelerate_knows_is_told_and_finished(train, tmp_path, trackio):
    assert train("--tracker", "trackio").code == 0
    first, *steps, last = trackio.read_text().splitlines()
    iterations = rows(tmp_path / "r")
    assert first == str(len(iterations))
    assert [int(line.split()[0]) for line in steps] == [row["iteration"] for row in iterations]
    assert last == "finished"


def test_a_tracker_that_does_not_start_is_one_line(train, trackio, tmp_path):
    module = tmp_path / "site" / "trackio.py"
    module.write_text("def init(project):\n    raise RuntimeError('log in first')")
    outcome = train("--tracker", "trackio")
    assert outcome.code == 1
    assert outcome.err.splitlines()[-1] == "error: trackio does not start: log in first"


def test_trackers_are_those_of_accelerate():
    assert {*TRACKERS} == {*LoggerType.list()} - {"all"}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_a_run_that_can_go_on(train, pipelines, tmp_path, number):
    given = settings(
        {"iterations": 500, "evaluation": {"every": 0}, "checkpoint": {"every": 400, "keep": 1}}
    )
    prompts = "\n".join(f"a cat and {n} dogs" for n in range(40))  # mini has more to encode
    (tmp_path / "p.txt").write_text(prompts)
    run = Forked(
        *("train", "--recipe", "mini", "--backbone", pipelines["sd3"], "--device", "cpu"),
        *("--prompts", tmp_path / "p.txt", "--out", tmp_path / "r", *given),
    )
    lines = [run.stderr.readline() for _ in range(3)]
    assert lines[2].startswith("iteration 3 of 500")
    run.send_signal(number)
    _, rest = run.communicate(timeout=60)
    assert run.returncode == 128 + number
    last = rest.splitlines()[-1]
    (complete,) = checkpoints(tmp_path / "r")
    assert complete >= 3
    assert last == (
        f"error: stopped after iteration {complete}; go on from {complete:06d}.safetensors with"
        f" `asyncdiff train --resume {tmp_path / 'r'}`"
    )
    outcome = train("--resume", "r", f"iterations={complete + 1}")
    assert outcome.err.startswith(f"iteration {complete + 1} of ")
    assert outcome.code == 0


def test_a_signal_that_a_library_makes_an_error_of_stops_a_run_alike(train, tmp_path, monkeypatch):
    advance = Trainer._advance

    def caught_in_a_library(trainer):
        yield from advance(trainer)
        if trainer.state.iteration == 2:
            try:
                signal.raise_signal(signal.SIGTERM)
            except KeyboardInterrupt:
                raise RuntimeError("a callback failed") from None

    monkeypatch.setattr(Trainer, "_advance", caught_in_a_library)
    outcome = train(iterations=4, checkpoint={"every": 400})
    assert outcome.code == 143
    assert "error: stopped after iteration 2; go on from 000002.safetensors" in outcome.err
    assert checkpoints(tmp_path / "r") == [2]


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{}, {"ema_decay": 0.9, "epochs": 2}])
def test_a_run_that_is_killed_again_and_again_ends_as_if_it_had_not_been(
    pipelines, tmp_path, changes
):
    import random

    every = {"evaluation": {"every": 2, "prompts": 2}, "samples": {"every": 3, "count": 1}}
    given = settings({"iterations": 12, "checkpoint": {"every": 2, "keep": 2}, **every, **changes})
    new = ["--recipe", "mini", "--backbone", pipelines["sd3"], *given]

    def start(out, *arguments):
        where = ("--resume", out) if (out / "recipe.yaml").exists() else ("--out", out, *new)
        return Forked("train", "--device", "cpu", *where, *arguments)

    whole, cut, rng = tmp_path / "whole", tmp_path / "cut", random.Random(len(changes))
    run = start(whole)
    run.communicate(timeout=300)
    assert run.returncode == 0
    for _ in range(5):
        run = start(cut)
        for _ in range(rng.randrange(1, 6)):
            if not run.stderr.readline():
                break
        time.sleep(rng.random() * 0.3)
        run.kill()
        run.communicate(timeout=60)
    run = start(cut)
    run.communicate(timeout=300)
    assert run.returncode in (0, 2)  # 2 if it was done already
    assert module_bytes(cut) == module_bytes(whole)
    assert rows(cut) == rows(whole)
    assert checkpoints(cut) == checkpoints(whole)


def test_help_needs_no_torch():
    code = (
        "import sys; from asyncdiff_cli.app import run; run(['train', '--help']);"
        " sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("option", "override"),
    [
        (("--seed", 6), "seed=5"),
        (("--seed", 0), "seed=5"),
        (("--dtype", "fp32"), "dtype=fp32"),
        (("--prompts", "."), "prompts=q"),
        (("--seed", 6), " seed = 5"),
    ],
)
def test_a_setting_is_said_once(train, option, override):
    outcome = train(*option, override)
    name = override.partition("=")[0].strip()
    assert (outcome.code, outcome.out) == (2, "")
    assert f"error: {name} is given twice, as an option and as '{override}'" in outcome.err
