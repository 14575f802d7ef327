"""Stage ``card``: what each exported model is and reaches, from the settings and the measures."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from asyncdiff_cli.engine.evaluation.set_metrics.reference import find_reference
from asyncdiff_cli.engine.rewards.world.vocabulary import THINGS
from mini.art import LABELS, PACKAGES
from mini.settings import Settings

TEMPLATES = Path(__file__).parent / "cards"
BESIDE = {"mini_clip": "clip", "mini_quality": "quality"}
"""Models whose measures lie beside them as JSON; mini's would change what it is known by."""


def write(metrics: dict, settings: Settings, out: Path, models: Sequence[str]) -> None:
    """A ``README.md`` beside each of the models, and the rewards' numbers."""
    rungs = settings.quality.rungs
    values = {
        "things": len(THINGS),
        "art": ", ".join(f"`{package}`" for package in PACKAGES.values()),
        "labels": f"`{LABELS}`",
        "padding": settings.transformer.padding,
        "tokens": settings.text.tokens,
        "fitted": settings.judge.fitted,
        "pictures": find_reference(out / "mini_judge").images if "mini_judge" in models else 0,
        "steps": settings.sampling.steps,
        "guidance": settings.sampling.guidance,
        "rungs": " and ".join(", ".join(map(str, part)) for part in (rungs[:-1], rungs[-1:])),
        "trained": _table(("part", "steps", "last losses"), _trained(metrics["trained"])),
        **_tables(metrics),
    }
    for name in models:
        template, directory = TEMPLATES / f"{name}.md", out / name
        weights = sum(path.stat().st_size for path in directory.rglob("*.safetensors"))
        text = template.read_text().format(megabytes=weights / 1e6, **values)
        (directory / "README.md").write_text(text)
        if name in BESIDE:
            measured = json.dumps(metrics.get(BESIDE[name], {}), indent=1)
            (directory / "metrics.json").write_text(measured + "\n")


def _tables(metrics: dict) -> dict[str, str]:
    mini = metrics.get("mini", {})
    sets = {"real scenes, others": mini.get("real"), "real scenes, decoded": mini.get("vae")}
    sets |= {f"K = {steps}": row for steps, row in mini.get("by_steps", {}).items()}
    sets |= {f"guidance {g}": row for g, row in mini.get("by_guidance", {}).items()}
    measured = ("set", "Fréchet", "spectrum, dB", "detail, dB", "judge", "noise")
    deviations = [
        (steps, d, *_set(row), _change(row["scores_change"]), _change(row["noise_change"]))
        for steps, rows in mini.get("deviations", {}).items()
        for d, row in sorted(rows.items(), key=lambda item: float(item[0]))
    ]
    return {
        "categories": _table(
            ("category", "real scenes", "mini", "share"),
            [_category(name, row) for name, row in mini.get("categories", {}).items()],
        ),
        "psnr": _mean(mini["vae_psnr"], 1) if "vae_psnr" in mini else "not measured",
        "sets": _table(measured, [(name, *_set(row)) for name, row in sets.items() if row]),
        "deviations": _table(
            ("K", "D", *measured[1:], "judge, change", "noise, change"), deviations
        ),
        "clip": _table(
            ("exchanged", "right"),
            [(name, _mean(row, 3)) for name, row in metrics.get("clip", {}).items()],
        ),
        "quality": _table(
            ("degradation", "within a picture", "across pictures"),
            [
                (name, _mean(row["within"], 3), _mean(row["across"], 3))
                for name, row in metrics.get("quality", {}).items()
                if "within" in row
            ],
        ),
    }


def _trained(trained: dict[str, dict]) -> list[tuple]:
    rows = []
    for stage, line in trained.items():
        losses = {k: v for k, v in line.items() if k not in ("step", "progress", "seconds")}
        rows.append((stage, line["step"], ", ".join(f"{k} {v:.3g}" for k, v in losses.items())))
    return rows


def _category(name: str, row: dict[str, dict]) -> tuple:
    share = row["mini"]["mean"] / max(row["real"]["mean"], 1e-9)
    return name, _mean(row["real"], 3), _mean(row["mini"], 3), f"{100 * share:.0f} %"


def _set(row: dict) -> tuple[str, ...]:
    distance, spectrum = row["frechet"], row["spectrum"]
    return (
        f"{distance['mean']:.2f} ± {distance['sd']:.2f}",
        f"{spectrum['mean']:.2f} ± {spectrum['sd']:.2f}",
        _mean(spectrum["detail"], 2),
        _mean(row["scores"], 3),
        _mean(row["noise"], 2),
    )


def _mean(measure: dict, digits: int) -> str:
    low, high = measure["interval"]
    return f"{measure['mean']:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def _change(measure: dict) -> str:
    low, high = measure["interval"]
    return f"{measure['mean']:+.3f} [{low:+.3f}, {high:+.3f}]"


def _table(head: tuple[str, ...], rows: list[tuple]) -> str:
    if not rows:
        return "Not measured."
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)
