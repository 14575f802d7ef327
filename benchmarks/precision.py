"""What half precision does to each published reward, beside the spread that a policy learns from.

    python -m benchmarks.precision [--rewards clip,hpsv2] [--json]

A group is images of one prompt from different noise, as in GRPO; a reward's gradient comes from the
differences within it. So the error of a dtype is shown as a share of the standard deviation in a
group. Without `--reward-path` the weights are synthetic ones of the published sizes, as in
benchmarks/parity, and both the errors and the spread are those of the synthetic networks.
"""

from __future__ import annotations

import copy
import json as json_module
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from PIL import Image
from rich.console import Console
from rich.table import Table

from asyncdiff_cli import render
from asyncdiff_cli.engine import Reward, load_backbone, load_reward, rewards, sample
from asyncdiff_cli.engine.devices import resolve_device
from asyncdiff_cli.engine.rewards import parse_reward_paths
from benchmarks import options
from benchmarks.parity.weights import synthetic_state_dict

FIXTURE = Path(__file__).parent / "parity" / "scores_full.json"
DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16}


def group(prompt: str, size: int) -> list[Image.Image]:
    """Pictures of one prompt by mini, from the seeds 0, 1, …"""
    backbone = load_backbone("mini")
    generators = [torch.Generator().manual_seed(seed) for seed in range(size)]
    return sample(backbone, [prompt] * size, generator=generators).images


def build(name: str, path: Path | None, device: str) -> Reward:
    """The reward with published weights if there is a file of them, else with synthetic ones."""
    if path is not None:
        return load_reward(name, path, device)
    fixture = json_module.loads(FIXTURE.read_text())[name.replace("_", "")]
    weights = synthetic_state_dict(fixture["shapes"], fixture["seed"])
    return rewards.reward_class(name).from_state_dict(weights, fixture["config"]).to(device)


def errors(reward: Reward, groups: dict[str, list[Image.Image]]) -> list[dict[str, Any]]:
    """The error of each dtype against fp32, and the deviation in a group, over all groups."""
    exact = {p: reward.score(images, p).double() for p, images in groups.items()}
    spread = torch.stack([scores.std() for scores in exact.values()]).mean().item()
    rows = []
    for name, dtype in DTYPES.items():
        half = copy.deepcopy(reward).to(dtype=dtype)
        rough = {p: half.score(images, p).double() for p, images in groups.items()}
        # what all images of a group share is taken out, as the z-score takes it out
        error = torch.cat([rough[p] - exact[p] - (rough[p] - exact[p]).mean() for p in groups])
        row = {"reward": reward.name, "dtype": name, "spread": spread}
        rows.append({**row, "error": error.std().item(), "share": error.std().item() / spread})
    return rows


def main(
    names: Annotated[str, typer.Option("--rewards")] = "image_reward,hpsv2,clip,pickscore",
    prompts: Annotated[str, typer.Option(help="Comma-separated.")] = "a cat,a red apple",
    size: Annotated[int, typer.Option(min=3, help="Images per group.")] = 8,
    reward_path: Annotated[list[str] | None, typer.Option(metavar="NAME=FILE")] = None,
    device: Annotated[str | None, typer.Option()] = None,
    json: options.Json = False,
) -> None:
    """Compare fp16 and bf16 with fp32."""
    render.quiet_libraries()
    where = str(resolve_device(device, torch.float32)[0])
    chosen = names.split(",")
    paths = parse_reward_paths(reward_path or (), chosen)
    groups = {prompt: group(prompt, size) for prompt in prompts.split(",")}
    rows = []
    for name in chosen:
        rows += errors(build(name, paths.get(name), where), groups)
        Console(stderr=True).print(rows[-2:])
    if json:
        weights = "published" if paths else "synthetic"
        print(json_module.dumps({"device": where, "weights": weights, "size": size, "rows": rows}))
        return
    table = Table(title=f"{len(groups)} groups of {size}, {where}")
    for heading in ("reward", "dtype", "error", "deviation in a group", "error / deviation"):
        table.add_column(heading)
    for row in rows:
        numbers = (f"{row[key]:.2g}" for key in ("error", "spread"))
        table.add_row(row["reward"], row["dtype"], *numbers, f"{100 * row['share']:.2g} %")
    render.tables([table])


if __name__ == "__main__":
    typer.run(main)
