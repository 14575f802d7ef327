"""`sample --stepwise`: x̂0 after every step, without deviations and with them."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from asyncdiff_cli.engine.drawing.panel import GAP, TILE
from asyncdiff_cli.engine.drawing.provenance import read_provenance

CAT, DOG = "0000-a-cat-seed0", "0001-a-dog-seed1"
LINE = 27
"""Pixels of a line of text on a sheet of small images."""


def pixels(path):
    return np.asarray(Image.open(path))


def tile(sheet, row, column, rows=2, columns=3):
    """A tile of a sheet, from its lower right corner."""
    right = sheet.width - GAP - (columns - 1 - column) * (TILE + GAP)
    bottom = sheet.height - GAP - LINE - (rows - 1 - row) * (TILE + GAP + LINE)
    return np.asarray(sheet.crop((right - TILE, bottom - TILE, right, bottom)))


def shown(path):
    return np.asarray(Image.open(path).resize((TILE, TILE), Image.Resampling.LANCZOS))


@pytest.mark.parametrize("family", ["sd3", "flux"])
def test_a_sheet_per_image_shows_the_way_to_both(draw, family):
    chosen = "a cat", "a dog", "--policy", "fixed:0.5@1.5"
    report = draw(*chosen, "--stepwise", "--json", family=family).json
    assert [Path(sheet["path"]).name for sheet in report["sheets"]] == [
        f"{CAT}-stepwise.png", f"{DOG}-stepwise.png"
    ]  # fmt: skip
    assert [(s["seed"], s["gamma"]) for s in report["sheets"]] == [(0, 1.5), (1, 1.5)]
    assert (len(report["images"]), report["panels"]) == (4, [])
    draw(*chosen, "--out", "plain", family=family)
    draw("a cat", "a dog", "--gamma", 0, "--out", "stock", family=family)
    ways = "-synchronous", ""
    for row, (way, same) in enumerate(zip(ways, ("stock", "plain"), strict=True)):
        drawn = f"outputs/{DOG}{way}.png"
        assert (pixels(drawn) == pixels(f"{same}/{DOG}.png")).all()
        sheet = Image.open(f"outputs/{DOG}-stepwise.png")
        assert np.abs(tile(sheet, row, 2).astype(int) - shown(drawn)).max() <= 1
    assert (tile(sheet, 0, 0) == tile(sheet, 1, 0)).all()  # told the same time so far
    for column in (0, 1):
        assert (tile(sheet, 1, column) != tile(sheet, 1, column + 1)).any()


def test_a_sheet_is_drawn_again_to_the_byte_and_from_an_image_that_has_none(draw):
    draw("a cat", "a dog", "--policy", "fixed:0.5", "--stepwise")
    sheet = f"{DOG}-stepwise.png"
    again = draw("--from", f"outputs/{sheet}", "--out", "again")
    assert (again.code, again.out) == (0, f"again/{sheet}\n")
    draw("--from", f"outputs/{DOG}.png", "--stepwise", "--out", "later")
    for directory in ("again", "later"):
        assert Path(directory, sheet).read_bytes() == Path("outputs", sheet).read_bytes()
    refused = draw("--from", f"outputs/{sheet}", "--stepwise", "--out", "again")
    assert refused.code == 2
    assert "a panel is only redrawn as it is" in refused.err


def test_a_sheet_says_what_drew_it(draw, asyncdiff):
    draw("a cat", "--policy", "fixed:0.5@2", "--stepwise")
    synchronous, asynchronous = read_provenance(f"outputs/{CAT}-stepwise.png").cells
    assert synchronous == (read_provenance(f"outputs/{CAT}-synchronous.png"),)
    assert asynchronous == (read_provenance(f"outputs/{CAT}.png"),)
    text = asyncdiff("inspect", f"outputs/{CAT}-stepwise.png").out
    for name, record in (("sigmas", synchronous[0]), ("cond_sigmas", asynchronous[0])):
        times = " ".join(f"{value:.4g}" for value in record.cond_sigmas)
        assert f"\n{name} {times}\n" in "\n".join(" ".join(s.split()) for s in text.split("\n"))


def test_without_deviations_there_is_one_row(draw):
    report = draw("a cat", "--policy", "baseline", "--stepwise", "--json").json
    assert len(report["images"]) == 1
    sheet = Image.open(f"outputs/{CAT}-stepwise.png")
    assert np.abs(tile(sheet, 0, 2, rows=1).astype(int) - shown(f"outputs/{CAT}.png")).max() <= 1
    assert sheet.height < 2 * TILE


def test_a_dry_run_names_what_a_run_writes(asyncdiff):
    given = "sample", "a cat", "a dog", "--deviation", 0.5, "--stepwise", "--steps", 1, "--size", 32
    found = asyncdiff(*given, "--dry-run", "--json").json
    assert (found["dry_run"], found["images"]) == (True, 4)
    written = asyncdiff(*given).out.split()
    assert sorted(found["files"]) == sorted(written)


def test_a_comparison_is_refused(draw):
    outcome = draw("a cat", "--compare", "0,1", "--stepwise")
    assert (outcome.code, outcome.out) == (2, "")
    assert "--stepwise shows one γ beside the stock sampler" in outcome.err
