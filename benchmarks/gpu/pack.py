"""The benchmark in one folder, for a machine that has torch and no network, and takes 64 MiB.

    python -m benchmarks.gpu.pack build/check          # gather it, and prove it on this CPU
    tar -cz -C build check | ssh MACHINE tar -xz       # or by whatever way there is
    ssh MACHINE sh check/run.sh --budget 570 --out rows.jsonl

The folder holds the code without its embedded weights, and the wheels of what such a machine lacks
beside torch, transformers and what they need: those of LACKING, for another Python if asked to. The
proof runs a copy of the folder at toy size, in a fresh virtual environment that sees nothing of
this one but torch, transformers and so on, and no network.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import venv
from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError, distribution, version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer
from packaging.requirements import Requirement

from asyncdiff_cli import render
from asyncdiff_cli.engine import AsyncDiffError, InputError
from benchmarks import options

ROOT = Path(__file__).parents[2]
MIB = 1 << 20
LIMIT = 64
"""Mebibytes of all that is brought to the machine."""
LACKING = (
    *("diffusers", "filelock", "pydantic", "pydantic_core", "annotated_types"),
    *("typing_inspection", "typing_extensions"),
)
"""Packages that are brought along, in the versions of this environment: they are missing there, or
may be too old for the others."""
PROVIDED = (
    *("torch", "torchvision", "transformers", "accelerate", "peft", "scipy", "psutil", "rich"),
    *("typer", "pyyaml", "pillow", "requests", "sentencepiece", "protobuf"),
)
"""What the machine has of its own, with all that these need."""
LEFT_BEHIND = ("*.safetensors", "*.png", "*.npz", "__pycache__")
GLIBC = ("manylinux_2_28", "manylinux_2_17", "manylinux2014")
TOY = (
    *("--device", "cpu", "--tiny", "--layers", "1", "--size", "64", "--steps", "2"),
    *("--rounds", "3", "--batches", "1", "--group", "4", "--product", "64"),
    *("--compiler", "eager", "--budget", "3600"),
)


def pack(folder: Path, python: str, wheels: Sequence[str] = (), limit: int = LIMIT) -> int:
    """Gather the folder, which is to be new; its bytes.

    Args:
        python: version of the machine's Python, such as 3.12.
        wheels: further packages, NAME or NAME==VERSION.
        limit: mebibytes that it may have.

    Raises:
        InputError: for a folder that is not empty.
        AsyncDiffError: if a wheel cannot be had, or all is too large.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} is there already: give a new folder")
    ignore = shutil.ignore_patterns(*LEFT_BEHIND)
    for name in ("asyncdiff_cli", "benchmarks", "recipes"):
        shutil.copytree(ROOT / name, folder / name, ignore=ignore)
    shutil.copy(ROOT / "LICENSE", folder)
    shutil.copy(Path(__file__).with_name("run.sh"), folder)
    download(folder / "wheels", python, wheels)
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    if size > limit * MIB:
        raise AsyncDiffError(f"{folder} has {size / MIB:.1f} MiB, and {limit} are taken")
    return size


def download(folder: Path, python: str, wheels: Sequence[str] = ()) -> None:
    """The wheels of LACKING and of others, for 64-bit Linux."""
    wanted = [*(f"{name}=={version(name)}" for name in LACKING), *wheels]
    platforms = (part for name in GLIBC for part in ("--platform", f"{name}_x86_64"))
    command = [
        *(sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary=:all:"),
        *("--python-version", python, "--implementation", "cp", *platforms),
        *("-d", str(folder), *wanted),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise AsyncDiffError(f"no wheels for Python {python}: {done.stderr.splitlines()[-1]}")


def needed(names: Sequence[str]) -> Iterator[str]:
    """Packages of this environment, and what they need without extras, but for LACKING."""
    waiting, seen = list(names), {*map(_canonical, LACKING)}
    while waiting:
        name = _canonical(waiting.pop())
        if name in seen:
            continue
        seen.add(name)
        try:
            requires = distribution(name).requires or ()
        except PackageNotFoundError:  # of another platform, or not needed here
            continue
        yield name
        for requirement in map(Requirement, requires):
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                waiting.append(requirement.name)


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def link(names: Sequence[str], folder: Path) -> None:
    """A folder in which nothing but these packages can be imported, without copies."""
    folder.mkdir()
    for name in names:
        own = distribution(name)
        for top in {file.parts[0] for file in own.files or () if file.parts[0] != ".."}:
            target = folder / top
            if not target.is_symlink():
                target.symlink_to(Path(str(own.locate_file(top))))


def prove(folder: Path, arguments: Sequence[str] = TOY) -> list[dict[str, object]]:
    """Run a folder's `run.sh` where there is nothing but it and PROVIDED; the rows.

    Raises:
        AsyncDiffError: if it fails, or one of its rows does.
    """
    with TemporaryDirectory() as directory:
        place = Path(directory)
        shutil.copytree(folder, place / "check")
        venv.create(place / "venv", with_pip=True)
        link(list(needed(PROVIDED)), place / "outside")
        (site,) = (place / "venv" / "lib").glob("python*/site-packages")
        (site / "outside.pth").write_text(f"{place / 'outside'}\n", encoding="utf-8")
        nowhere = dict.fromkeys(("http_proxy", "https_proxy", "all_proxy"), "http://127.0.0.1:9")
        python = str(place / "venv" / "bin" / "python")
        own = {"PATH": os.environ["PATH"], "HOME": directory, "PYTHON": python}
        own |= {"OMP_NUM_THREADS": "1", **nowhere}  # more only wait for one another at this size
        out = place / "rows.jsonl"
        done = subprocess.run(
            ["sh", str(place / "check" / "run.sh"), *arguments, "--out", str(out)],
            env=own,
            cwd=place,
            capture_output=True,
            text=True,
        )
        if done.returncode:
            lines = [f"exit code {done.returncode}", *done.stderr.splitlines()]
            raise AsyncDiffError(f"{folder} does not run by itself: {lines[-1]}")
        return [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]


def main(
    folder: Annotated[Path, typer.Argument(help="A new folder.")],
    python: Annotated[str, typer.Option(help="The machine's version of Python.")] = "3.12",
    wheel: Annotated[list[str] | None, typer.Option(help="One more package.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Mebibytes that it may have.")] = LIMIT,
    proof: Annotated[bool, typer.Option(help="Run it on this CPU at toy size.")] = True,
) -> None:
    """Gather all that the benchmark needs, and prove that it runs by itself."""
    with options.errors_told():
        size = pack(folder, python, wheel or (), limit)
        rows = _proven(folder, python, wheel or ()) if proof else []
    proven = f", and {len(rows)} rows of it on this CPU" if proof else ""
    render.line(
        f"{folder}: {size / MIB:.1f} MiB of {limit}{proven}; sh {folder / 'run.sh'} runs it"
    )


def _proven(folder: Path, python: str, wheels: Sequence[str]) -> list[dict[str, object]]:
    """The rows of the folder, or of one like it with wheels for the Python that runs here."""
    own = ".".join(map(str, sys.version_info[:2]))
    if python == own:
        return prove(folder)
    with TemporaryDirectory() as directory:
        same = Path(directory) / "check"
        pack(same, own, wheels)
        return prove(same)


if __name__ == "__main__":
    typer.run(main)
