"""What all commands share: help without torch, completion, and the boundary for errors."""

import subprocess
import sys

import pytest

import asyncdiff_cli
from asyncdiff_cli import app as command_line
from asyncdiff_cli import render
from asyncdiff_cli.engine.messages import SAID

NO_TORCH = """
import sys
from asyncdiff_cli.app import app, run
for command in ([], *([c.name] for c in app.registered_commands)):
    assert run([*command, "--help"]) == 0, command
heavy = {"torch", "diffusers", "transformers", "pydantic", "numpy", "PIL"} & set(sys.modules)
allowed = {"pydantic"} if "typer._adapters" in sys.modules else set()
assert not heavy - allowed, heavy
"""


def python(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    import os

    return subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        timeout=120,
    )


def test_help_of_every_command_needs_no_heavy_import():
    done = python("-c", NO_TORCH)
    assert done.returncode == 0, done.stderr
    for name in ("sample", "backbones", "inspect"):
        assert name in done.stdout
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("words", "completions"),
    [
        ("sample --backbone s", ["sd35", "sd35-large"]),
        ("sample --solver u", ["unipc"]),
        ("sample --grid l", ["logsnr"]),
        ("sample --dtype b", ["bf16"]),
        ("backbones q", ["qwen-image"]),
    ],
)
def test_the_shell_completes_names_without_torch(words, completions):
    shell = {"_ASYNCDIFF_COMPLETE": "complete_bash", "COMP_WORDS": f"asyncdiff {words}"}
    code = "import sys; from asyncdiff_cli.app import run\ntry: run([])\nfinally: "
    code += "print('torch' in sys.modules, file=sys.stderr)"
    done = python("-c", code, **shell, COMP_CWORD=str(len(words.split())))
    assert done.stdout.split() == completions
    assert done.stderr.split() == ["False"]


def test_the_version(asyncdiff):
    assert asyncdiff("--version").out == f"asyncdiff {asyncdiff_cli.__version__}\n"


def test_without_a_command_there_is_help(asyncdiff):
    outcome = asyncdiff()
    assert outcome.code == 0
    assert "Usage: asyncdiff" in outcome.out


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["smple"], "No such command 'smple'. Did you mean 'sample'? (see asyncdiff --help)"),
        (["sample", "--stps", "3"], "No such option: --stps"),
        (["sample", "x", "--steps", "many"], "--steps"),
        (["inspect"], "Missing argument 'IMAGE'"),
    ],
)
def test_a_mistake_in_the_command_line_is_one_line(asyncdiff, arguments, line):
    outcome = asyncdiff(*arguments)
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.startswith("error: ")
    assert line in outcome.err
    assert outcome.err.count("\n") == 1


def test_an_error_of_no_class_of_ours_is_one_line_and_debug_shows_where(asyncdiff, monkeypatch):
    def broken(*_):
        raise ZeroDivisionError("by\nzero")

    monkeypatch.setattr(render, "table", broken)
    outcome = asyncdiff("backbones")
    assert (outcome.code, outcome.out) == (1, "")
    assert outcome.err == "error: ZeroDivisionError: by zero (asyncdiff --debug shows where)\n"
    with monkeypatch.context() as patch:
        patch.setenv(command_line.DEBUG, "1")
        with pytest.raises(ZeroDivisionError):
            asyncdiff("backbones")


def test_the_debug_option_shows_the_traceback():
    done = python("-m", "asyncdiff_cli", "--debug", "inspect", "nowhere.png")
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "InputError: there is no file nowhere.png" in done.stderr


def test_of_several_processes_the_first_that_fails_says_why(asyncdiff, monkeypatch, tmp_path):
    """Also of another error: that of a process that waited for the one that failed."""
    monkeypatch.setenv(SAID, str(tmp_path))
    first, second = asyncdiff("inspect", "a.png"), asyncdiff("inspect", "b.png")
    assert (first.code, first.err) == (2, "error: there is no file a.png\n")
    assert (second.code, second.err) == (2, "")


def test_several_processes_warn_once(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv(SAID, str(tmp_path))
    for text in ("it is slow", "it is slow", "it is large"):
        render.warning(text)
    assert capsys.readouterr().err == "warning: it is slow\nwarning: it is large\n"
    monkeypatch.delenv(SAID)
    for _ in range(2):
        render.warning("it is slow")
    assert capsys.readouterr().err == "warning: it is slow\n" * 2


REFUSED_EARLY = """
import sys
from asyncdiff_cli.app import run
for line in sys.argv[1:]:
    assert run(line.split()) == 2, line
assert "torch" not in sys.modules
"""


def test_what_names_and_the_disk_tell_is_refused_without_torch():
    lines = [
        "sample x --solver eular",
        "sample x --model-path nowhere.gguf",
        "sample x --lora nowhere.safetensors",
        "sample x --policy fixd:1",
        "sample --from nowhere.png",
        "eval --policies baseline,lerned",
        "eval --rewards clipp",
        "eval --grid karas",
        "sweep --gammas 1 --policies lerned",
        "panel x --policies lerned",
        "score . --rewards clipp",
        "train --dtype fp64",
    ]
    done = python("-c", REFUSED_EARLY, *lines)
    assert done.returncode == 0, done.stderr
    assert len(done.stderr.splitlines()) == len(lines)
    assert all(line.startswith("error: ") for line in done.stderr.splitlines())
