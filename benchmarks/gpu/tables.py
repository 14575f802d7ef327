"""Each section of the report as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from asyncdiff_cli import render

Section = Mapping[str, Any]


def table(name: str, section: Section) -> Table:
    """A section's table, or the reason why there is none."""
    if "reason" in section:
        return grid(name, ["not measured"], [[section["reason"]]])
    return TABLES[name](section)


def grid(title: str, headings: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """Rows under headings."""
    made = Table(*headings, title=title)
    for row in rows:
        made.add_row(*row)
    return made


def said(reached: bool) -> str:
    return "yes" if reached else "no"


def speed(section: Section) -> Table:
    title = (
        f"speed: product of {section['product_side']}² matrices"
        f" {section['product_tflops']:.3g} TFLOP/s, an evaluation"
        f" {section['evaluation_tflop']:.4g} TFLOP"
    )
    headings = ["batch", "rounds", "s / image", "images / s", "denoiser TFLOP/s", "of the product"]
    rows = [
        [str(row["batch"]), row["reason"]]
        if "reason" in row
        else [
            str(row["batch"]),
            str(row["rounds"]),
            f"{row['seconds_per_image']:.4g}",
            f"{row['images_per_second']:.4g}",
            f"{row['denoiser_tflops']:.4g}",
            f"{row['share_of_product']:.1%}",
        ]
        for row in section["rows"]
    ]
    return grid(title, headings, rows)


def ratios(title: str, rows: Sequence[Section]) -> Table:
    """Rows of `speed.compared`."""
    headings = ["batch", "method", "rounds", "time / stock", "95 % interval", "aim", "reached"]
    cells = [
        [str(row["batch"]), row["reason"]]
        if "reason" in row
        else [
            str(row["batch"]),
            row["method"],
            str(row["rounds"]),
            f"{row['ratio']:.4f}",
            f"{row['low']:.4f} … {row['high']:.4f}",
            f"≤ {row['aim']:g}",
            said(row["reached"]),
        ]
        for row in rows
    ]
    return grid(title, headings, cells)


def overhead(section: Section) -> Table:
    return ratios("overhead over the stock pipeline", section["rows"])


def training(section: Section) -> Table:
    row = {**section, "batch": section["images"], "method": "iteration / bare rollout"}
    title = (
        f"training: {section['iteration_seconds']:.4g} s an iteration,"
        f" {section['bare_seconds']:.4g} s its bare rollout, {section['steps']} steps"
    )
    return ratios(title, [row])


def compiled(section: Section) -> Table:
    title = (
        f"compiled with {section['backend']}: stock {section['compiled_seconds']:.4g} s an image,"
        f" {section['eager_seconds']:.4g} s uncompiled, {section['first_seconds']:.4g} s the first;"
        f" {section['graphs']} graphs, {section['recompilations']} more when γ and policy change"
    )
    return ratios(title, section["rows"])


def exactness(section: Section) -> Table:
    names = list(section["rows"][0]["equal"])
    rows = [
        [
            *(row[key] for key in ("backbone", "dtype", "solver")),
            *("equal" if row["equal"][name] else "NOT EQUAL" for name in names),
        ]
        for row in section["rows"]
    ]
    return grid("bits of the stock pipeline", ["backbone", "dtype", "solver", *names], rows)


def memory(section: Section) -> Table:
    title = f"memory of one image, {render.size(section['weight_bytes'])} of weights"
    peaks = ["GPU peak", "estimated", "while loading", "CPU peak"]
    headings = ["quantize", "offload", *peaks, "s to load", "note"]
    return grid(title, headings, [memory_row(row) for row in section["rows"]])


def memory_row(row: Section) -> list[str]:
    names = [row["quantize"], row["offload"]]
    if "reason" in row:
        return [*names, "", "", "", "", "", row["reason"]]
    keys = ("peak_bytes", "estimated_bytes", "loading_peak_bytes", "host_peak_bytes")
    shown = ["" if row[key] is None else render.size(row[key]) for key in keys]
    return [*names, *shown, f"{row['load_seconds']:.3g}", ""]


TABLES = {
    "exactness": exactness,
    "speed": speed,
    "overhead": overhead,
    "training": training,
    "compile": compiled,
    "memory": memory,
}
