"""An evaluation or a training run as one HTML file that loads nothing from elsewhere.

Tables are those of `tables`, charts inline SVG, and images the files that were
kept, so that their provenance is in the report. The same data give the same bytes.
"""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

import asyncdiff_cli
from asyncdiff_cli.engine.errors import InputError
from asyncdiff_cli.engine.evaluation.cells import heading
from asyncdiff_cli.engine.evaluation.reproduce import UNRECORDED
from asyncdiff_cli.engine.evaluation.store import Store
from asyncdiff_cli.engine.figures.distributions import RUN_EVALUATION, is_store
from asyncdiff_cli.engine.files import check_writable, write_apart, write_text
from asyncdiff_cli.engine.training.run import RECIPE, RunDirectory

NAME = "report.html"
"""The report of the directory that it is in."""


def write_report(path: Path, out: Path) -> Path:
    """Write the report of a store, or of a run with the evaluation in it; returns its path.

    Beside its data it takes the place of the one before; elsewhere it is written as `write_apart`.

    Raises:
        InputError: for a directory of neither, or a store with nothing to compare yet.
        AsyncDiffError: if something in it is damaged, or `out` cannot be written.
    """
    check_writable(out)
    if not is_store(path) and not (path / RECIPE).is_file():
        raise InputError(
            f"{path} holds neither an evaluation nor a training run: give a directory that"
            " `asyncdiff eval`, `sweep` or `train` has written"
        )
    text = _render(**(_of_store(path) if is_store(path) else _of_run(path)))
    if out != path / NAME:
        return write_apart(out, text)
    write_text(out, text)
    return out


def _of_store(path: Path) -> dict[str, Any]:
    """The parts of the report of a store."""
    from asyncdiff_cli.engine.figures.report_store import store_part

    store = store_part(Store(path))
    return {"title": store.title, "run": None, "store": store}


def _of_run(path: Path) -> dict[str, Any]:
    """The parts of the report of a run, with the evaluation in it if there is one."""
    from asyncdiff_cli.engine.figures.report_run import run_part

    evaluation = path / RUN_EVALUATION
    store = _of_store(evaluation)["store"] if is_store(evaluation) else None
    run = run_part(RunDirectory(path, identity=""))
    return {"title": f"Training of {path.resolve().name}", "run": run, "store": store}


def _render(**parts: Any) -> str:
    environment = Environment(
        loader=PackageLoader("asyncdiff_cli", "assets"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"heading": heading, "source_hash": _source_hash}
    template = environment.get_template("report.html.j2")
    return template.render(version=asyncdiff_cli.__version__, unrecorded=UNRECORDED, **parts)


def _source_hash(script: str) -> str:
    """The hash by which a Content-Security-Policy names the one script that may run."""
    return f"sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}"
