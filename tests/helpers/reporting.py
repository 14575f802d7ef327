"""Small stores and runs made by hand, to write reports of."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from asyncdiff_cli.engine.drawing.provenance import Drawn, PanelProvenance, Provenance, save_png
from asyncdiff_cli.engine.evaluation.store import Store

HOSTILE = "</script></table><img src=x onerror=alert(1)>\"' {{ 7*7 }} --> & <b>"
"""What a prompt of someone else's may be."""
PROMPTS = ("a cat", HOSTILE, "an owl")
POLICIES = (("baseline", 1.0), ("learned", 0.5), ("learned", 1.0), ("fixed:0.5", 1.0))
SETTINGS: dict[str, Any] = {
    "backbone": "mini",
    "revision": None,
    "fingerprint": "0123abcd",
    "dtype": "float32",
    "scheduler": "euler",
    "guidance_scale": 3.0,
    "size": 128,
    "dataset": "mini",
    "split": "validation",
    "prompts_sha256": "4567",
    "seed": 42,
    "rewards": {
        "clip": {"revision": None, "dtype": "float32"},
        "noise": {"revision": None, "dtype": "float32"},
    },
}
VERSIONS = {"asyncdiff-cli": "0.1.0", "torch": "2.9.0"}
RECIPE = """\
# a recipe <b>made by hand</b>
backbone: mini
prompts: mini
bound: 0.5
num_inference_steps: 3
rewards: {clip: 1.0}
iterations: 4
"""


def provenance(prompt: str, seed: int = 7, batch: int = 1, **changes: Any) -> Provenance:
    """Of the first image of a batch."""
    values: dict[str, Any] = {
        "backbone": "mini",
        "revision": None,
        "fingerprint": "0123abcd",
        "batch": (Drawn(prompt=prompt, seed=seed),) * batch,
        "index": 0,
        "negative_prompt": None,
        "num_inference_steps": 3,
        "guidance_scale": 3.0,
        "height": 128,
        "width": 128,
        "max_sequence_length": 8,
        "scheduler": "euler",
        "dtype": "float32",
        "device": "cpu",
        "policy": {"name": "synchronous"},
        "gamma": 1.0,
        "cond_sigmas": (1.0, 0.75, 0.5),
        "deviations": (0.0, 0.0),
        "versions": VERSIONS,
        **changes,
    }
    return Provenance(**values)


def store_row(place: int, prompt: str, policy: str, gamma: float, **changes: Any) -> dict[str, Any]:
    """A row whose scores are counted out of its place, its policy and γ."""
    baseline = policy == "baseline"
    gain = 0.0 if baseline else 0.25 * gamma * (1 + place)
    return {
        "prompt_id": place,
        "prompt": prompt,
        "category": None,
        "seed": 100 + place,
        "policy": policy,
        "gamma": gamma,
        "bound": 0.5,
        "num_inference_steps": 3,
        "deviations": [0.0, 0.0] if baseline else [0.25, -0.125],
        "cond_sigmas": [1.0, 0.75, 0.5] if baseline else [1.0, 0.625, 0.5625],
        "seconds": 0.5,
        "image": None,
        "policy_settings": json.dumps({"name": policy}),
        "provenance": provenance(prompt, 100 + place, batch=6).model_dump_json(),
        "clip": 2.0 + place + gain,
        "noise": -1.0 - gain / 8,
        **changes,
    }


def make_store(
    path: Path,
    prompts: Sequence[str] = PROMPTS,
    policies: Sequence[tuple[str, float]] = POLICIES,
    kept: int = 2,
    **settings: Any,
) -> Store:
    """All prompts with all policies, and an image of 8×8 pixels of each of the first few."""
    store = Store.open(path, {**SETTINGS, **settings})
    store.begin()  # before its images
    for place, prompt in enumerate(prompts):
        rows = [store_row(place, prompt, *policy) for policy in policies]
        for number, row in enumerate(rows if place < kept else []):
            row["image"] = f"images/{place}-{number}.png"
            tile = Image.new("RGB", (8, 8), (60 * place, 50 * number, 200))
            save_png(tile, store.image(row["image"]), provenance(prompt, row["seed"]))
        store.write(rows)
    return store


def compared(mean: float, difference: float) -> dict[str, Any]:
    """A held-out comparison, as it is in the metrics."""
    ends = {"low": difference - 0.5, "high": difference + 0.5}
    return {"mean": mean, "difference": difference, **ends, "n": 3}


def make_run(path: Path) -> Path:
    """Two of four iterations, each with an evaluation and a grid; the first is the best."""
    rows: list[dict[str, Any]] = [
        {"iteration": 0, "held_out": {"clip": 2.0, "noise": -1.0}},
    ]
    for iteration in (1, 2):
        held_out = {
            "clip": compared(2.5, 0.5),
            "noise": compared(-1.25, -0.25),
            "composite": compared(0.75 / iteration, 0.75 / iteration),
        }
        rows += [
            {
                "iteration": iteration,
                "rewards": {"clip": {"raw": 2.0 + iteration, "std": 0.5}},
                "deviation": {"mean": [0.1 * iteration, -0.1], "std": [0.2, 0.2]},
            },
            {"iteration": iteration, "held_out": held_out, "deviation": [0.25, 0.0], "best": 1},
        ]
        record = PanelProvenance(cells=((provenance("a cat"),),))
        panel = Image.new("RGB", (24, 12), (0, 0, 99 * iteration))
        save_png(panel, path / "samples" / f"{iteration:06d}.png", record)
    rows.append({"iteration": 2, "warning": "the noise rose <i>"})
    (path / "recipe.yaml").write_text(RECIPE)
    lines = [json.dumps(row) for row in rows]
    (path / "metrics.jsonl").write_text("\n".join([*lines, '{"iteration": 3, "rew']))
    return path
