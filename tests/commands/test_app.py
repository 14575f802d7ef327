"""What all commands share: help without torch, completion, and the boundary for errors."""

import contextlib
import errno
import io
import os
from pathlib import Path

import pytest
import rich.console
import torch

import asyncdiff_cli
from asyncdiff_cli import app as command_line
from asyncdiff_cli import render
from asyncdiff_cli.engine import InputError, launching
from asyncdiff_cli.engine.files import expanded
from asyncdiff_cli.engine.messages import SAID
from tests.helpers.interpreter import python

NO_TORCH = """
import sys
from asyncdiff_cli.app import app, run
for command in ([], *([c.name] for c in app.registered_commands)):
    assert run([*command, "--help"]) == 0, command
heavy = {"torch", "diffusers", "transformers", "pydantic", "numpy", "PIL"} & set(sys.modules)
allowed = {"pydantic"} if "typer._adapters" in sys.modules else set()
assert not heavy - allowed, heavy
"""


def raising(error):
    def broken(*_):
        raise error

    return broken


class Full(io.StringIO):
    """A stdout that cannot be written to."""

    def __init__(self, reason):
        super().__init__()
        self.reason = reason

    def write(self, text):
        raise OSError(self.reason, os.strerror(self.reason))


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
    assert "Begin with:\n  asyncdiff doctor" in outcome.out


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
    monkeypatch.setattr(render, "table", raising(ZeroDivisionError("by\nzero")))
    outcome = asyncdiff("backbones")
    assert (outcome.code, outcome.out) == (1, "")
    assert outcome.err.startswith("error: internal, ZeroDivisionError: by zero (a fault of")
    assert "please report this line, the command, and what `asyncdiff --debug" in outcome.err
    assert outcome.err.count("\n") == 1
    with pytest.raises(ZeroDivisionError):
        asyncdiff("--debug", "backbones")
    for value, shown in (("1", True), ("yes", True), ("0", False), ("false", False), ("", False)):
        monkeypatch.setenv(command_line.DEBUG, value)
        with pytest.raises(ZeroDivisionError) if shown else contextlib.nullcontext():
            assert asyncdiff("backbones").code == 1


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


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (PermissionError(13, "Permission denied", "a.txt"), 2, "a.txt: Permission denied"),
        (OSError(36, "File name too long", "a" * 9), 2, "aaaaaaaaa: File name too long"),
        (OSError(28, "No space left on device"), 1, "the system: No space left on device"),
        (MemoryError(), 1, "out of memory: use a smaller --batch-size"),
        (torch.OutOfMemoryError("CUDA"), 1, "out of memory: use a smaller --batch-size"),
        (ValueError("embedded null byte"), 2, "a path holds a NUL character"),
        (UnicodeEncodeError("utf-8", "\udce9", 0, 1, "-"), 2, r"'\udce9' is not Unicode text"),
    ],
)
def test_what_a_user_can_cause_is_told_in_a_users_words(asyncdiff, monkeypatch, error, code, line):
    monkeypatch.setattr(render, "table", raising(error))
    outcome = asyncdiff("backbones")
    assert (outcome.code, outcome.err.count("\n")) == (code, 1)
    assert outcome.err.startswith(f"error: {line}")


def test_a_torn_file_is_not_an_interrupt(asyncdiff, monkeypatch):
    monkeypatch.setattr(render, "table", raising(EOFError("Ran out of input")))
    outcome = asyncdiff("backbones")
    assert outcome.code == 1
    assert "EOFError: Ran out of input" in outcome.err


def test_an_output_that_takes_no_more_is_one_line(asyncdiff, monkeypatch):
    monkeypatch.setattr("sys.stdout", Full(errno.ENOSPC))
    outcome = asyncdiff("backbones")
    assert outcome.code == 1
    assert outcome.err == "error: cannot write to stdout: No space left on device\n"


def test_an_output_that_nobody_reads_ends_a_command_without_a_word(asyncdiff, monkeypatch):
    monkeypatch.setattr("sys.stdout", Full(errno.EPIPE))
    outcome = asyncdiff("backbones")
    assert (outcome.code, outcome.err) == (141, "")


def test_errors_without_a_stderr_are_not_among_the_results(asyncdiff, monkeypatch):
    for stream in (None, Full(errno.ENOSPC)):
        monkeypatch.setattr("sys.stderr", stream)
        outcome = asyncdiff("backbones", "nope")
        assert (outcome.code, outcome.out, outcome.err) == (2, "", "")


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["sample", ""], "an argument"),
        (["sample", "a cat", "--prompt-file", " "], "--prompt-file"),
        (["sample", "a cat", "--out="], "--out"),
        (["sample", "a cat", "-n", ""], "-n"),
        (["eval", "--policies", ""], "--policies"),
        (["eval", "--rewards", ""], "--rewards"),
        (["eval", "--dataset="], "--dataset"),
        (["eval", "--backbone", ""], "--backbone"),
        (["eval", "--lora", ""], "--lora"),
        (["train", ""], "an argument"),
        (["train", "--resume", ""], "--resume"),
        (["sweep", "--gammas", ""], "--gammas"),
        (["panel", ""], "an argument"),
        (["score", ""], "an argument"),
        (["score", ".", "--csv", ""], "--csv"),
        (["histogram", ""], "an argument"),
        (["report", ""], "an argument"),
        (["merge", "", "--out", "x"], "an argument"),
        (["inspect", ""], "an argument"),
        (["backbones", ""], "an argument"),
        (["recipes", "show", ""], "an argument"),
        (["recipes", "copy", "mini", ""], "an argument"),
    ],
)
def test_empty_is_not_given(asyncdiff, arguments, what):
    outcome = asyncdiff(*arguments)
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err == f"error: {what} is empty: give it a value, or leave it out\n"


def test_texts_are_unicode_without_nul(asyncdiff):
    assert asyncdiff("sample", "caf\udce9").err == (
        "error: an argument is not Unicode text: it holds a byte that is no UTF-8\n"
    )
    assert asyncdiff("sample", "caf\ud83d").err == (
        "error: an argument is not Unicode text: it holds half a surrogate pair\n"
    )
    typed = "gr\udcc3\udcbcn"  # as Python reads it in a locale of ASCII
    assert "'grün'" in asyncdiff("backbones", typed).err
    assert asyncdiff("sample", "a", "--out", "b\0c").err == "error: --out holds a NUL character\n"
    # a path may be any bytes
    assert asyncdiff("inspect", "caf\udce9.png").err == "error: there is no file caf\\udce9.png\n"


@pytest.mark.parametrize("name", ["x" * 300, "猫" * 100, "x" * 5000, "../" * 2000 + "x"])
@pytest.mark.parametrize(
    "arguments",
    [
        ["inspect"],
        ["report"],
        ["score"],
        ["histogram"],
        ["recipes", "validate"],
        ["recipes", "copy", "mini"],
        ["sample", "--prompt-file"],
        ["sample", "a cat", "--out"],
        ["sample", "a cat", "--tpm"],
        ["sample", "a cat", "--model-path"],
        ["sample", "a cat", "--backbone"],
        ["eval", "--dataset"],
    ],
)
def test_names_that_are_too_long_are_one_line(asyncdiff, arguments, name):
    outcome = asyncdiff(*arguments, name)
    assert (outcome.code, outcome.out, outcome.err.count("\n")) == (2, "", 1)
    assert "internal" not in outcome.err
    assert "Error" not in outcome.err
    assert len(outcome.err) < 2010


def test_the_home_directory_is_found_in_every_path(asyncdiff, monkeypatch, tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    (home / "p.txt").write_text("a cat")
    for arguments in (
        ["recipes", "copy", "mini", "~/mine.yaml"],
        ["recipes", "validate", "~/mine.yaml"],
        ["sample", "--prompt-file=~/p.txt", "--out=~/x", "--steps=1"],
        ["score", "~/x", "--rewards=noise", "--csv=~/scores.csv"],
    ):
        assert asyncdiff(*arguments).code == 0, arguments
    assert {path.name for path in home.iterdir()} >= {"mine.yaml", "x", "scores.csv"}
    for arguments in (
        ["score", home / "x", "--rewards=clip", "--reward-path=clip=~/no.pt"],
        ["sample", "a", "--tpm=~/no.pt"],
        ["sample", "a", "--policy=learned:~/no.pt"],
        ["sample", "a", "--lora=~/no.pt@0.5"],
        ["sample", "a", "--backbone=~/no.pt"],
        ["sample", "a", "--model-path=~/no.pt"],
        ["train", "prompts=~/no.pt", "--out=~/run"],
        ["eval", "--dataset=~/no.pt"],
    ):
        outcome = asyncdiff(*arguments)
        assert (outcome.code, outcome.err.count("\n")) == (2, 1), arguments
        assert "no.pt" in outcome.err
    assert not any(path.name.startswith("~") for path in tmp_path.iterdir())


def test_a_home_that_is_not_known_is_said(monkeypatch):
    monkeypatch.setattr("os.path.expanduser", str)
    with pytest.raises(InputError, match="set HOME, or write ~/x in full"):
        expanded("~/x")
    assert expanded("~x") == Path("~x")  # a name like any other


def test_what_a_terminal_cannot_show_is_escaped():
    code = "from asyncdiff_cli.app import run; from asyncdiff_cli import render;"
    code += " assert run(['sample', '--help']) == 0;"
    code += " render.line('猫'); render.as_json({'a': '猫'}); render.warning('猫');"
    code += " render.table(['猫'], [['猫']])"
    done = python("-c", code, PYTHONIOENCODING="cp1252")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(r"\u732b") == 4
    assert '{"a": "\\u732b"}' in done.stdout
    assert done.stderr == "warning: \\u732b\n"


HOSTILE = "[red]x[/] :smile: [link=a]\x1b[31m\x07\u202e"
SHOWN = r"[red]x[/] :smile: [link=a]\x1b[31m\x07\u202e"


def test_text_of_anyone_is_printed_as_it_is(capsys):
    render.line(HOSTILE)
    render.fields({"prompt": HOSTILE})
    render.table([HOSTILE], [[HOSTILE]])
    render.error(HOSTILE)
    render.warning(HOSTILE)
    out, err = capsys.readouterr()
    assert (out.count(SHOWN), err.count(SHOWN)) == (4, 2)
    assert not {"\x1b", "\x07", "\u202e"} & {*out, *err}


def test_bars_show_text_as_it_is(monkeypatch):
    shown = io.StringIO()
    settings = {"force_terminal": True, "width": 200, "color_system": None}
    console = rich.console.Console(file=shown, markup=False, emoji=False, **settings)
    monkeypatch.setattr(render, "_console", lambda: console)
    with render.count("pictures") as update:
        update(HOSTILE, 1, 2)
    assert SHOWN in shown.getvalue()


@pytest.mark.parametrize("line", [["-m", "asyncdiff_cli"], ["-c", launching.ISOLATED]])
def test_files_of_the_current_directory_are_no_modules(tmp_path, monkeypatch, line):
    monkeypatch.chdir(tmp_path)
    for name in ("torch", "typer", "pydantic", "yaml", "typing", "signal", "random", "json"):
        (tmp_path / f"{name}.py").write_text(f"raise SystemExit('{name} was imported')")
    done = python(*line, "recipes", "validate", "mini")
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["sample", "a", "--size", 512], "the height is 512, and this backbone draws at most 128"),
        (["sample", "a", "--size", 512, "--dry-run"], "the height is 512, and this backbone draws"),
        (["eval", "--processes", 10**9], "is not asked for more than"),
        (["eval", "--processes", 10**30], "is not asked for more than"),
    ],
)
def test_numbers_out_of_range_are_told_in_a_users_words(asyncdiff, arguments, line):
    outcome = asyncdiff(*arguments)
    assert (outcome.code, outcome.out, outcome.err.count("\n")) == (2, "", 1)
    assert line in outcome.err
