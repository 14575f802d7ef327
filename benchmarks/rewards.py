"""What the published rewards cost: images per second by batch size, and peak memory.

    python -m benchmarks.rewards [--rewards clip,hpsv2] [--batches 1,16,64] [--json]

The published packages score one image at a time; the same loop over the same images, in the same
round, is what each batch is divided by. All images share one prompt, as in a group of GRPO. Without
`--reward-path` the models have random weights of the published sizes, which take as long.
"""

from __future__ import annotations

import json as json_module
import multiprocessing
import resource
import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from PIL import Image
from rich.console import Console
from rich.table import Table

from asyncdiff_cli import render
from asyncdiff_cli.engine import Reward, load_reward, rewards
from asyncdiff_cli.engine.devices import resolve_device
from asyncdiff_cli.engine.rewards import parse_reward_paths
from benchmarks import options

PROMPT = "an astronaut riding a horse on Mars, digital art, highly detailed"
SIZE = 512
MEMORY = {"all": "all loaded", "turns": "one after the other (asyncdiff score)"}


def pictures(count: int) -> list[Image.Image]:
    """Pictures of noise, of the size that the backbones draw."""
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 256, (SIZE, SIZE, 3), np.uint8)) for _ in range(count)]


def build(name: str, path: Path | None, device: str) -> Reward:
    """The reward with published weights if there is a file of them, else with random ones."""
    return (
        rewards.reward_class(name)().to(device) if path is None else load_reward(name, path, device)
    )


def images_per_second(reward: Reward, batch: int, rounds: int, loop: int) -> tuple[float, float]:
    """Median rates of the loop over single images and of whole batches, interleaved.

    Args:
        loop: images that a round of the loop takes, at most `batch`.
    """
    images, rates = pictures(batch), []
    reward.batch_size = batch
    for _ in range(rounds):
        start = time.perf_counter()
        for image in images[:loop]:
            reward.score([image], [PROMPT])
        middle = time.perf_counter()
        reward.score(images, [PROMPT] * batch)  # ends with scores on the CPU
        end = time.perf_counter()
        rates.append((min(loop, batch) / (middle - start), batch / (end - middle)))
    single, whole = np.median(rates, axis=0)
    return float(single), float(whole)


def peak_memory(names: list[str], paths: dict[str, Path], device: str, mode: str) -> int:
    """Bytes at the peak of a process of its own that scores a batch of 4 with every reward.

    Args:
        mode: "all" keeps all models loaded; "turns" drops each before the next one; "offload", for
            a GPU, keeps those that do not score in CPU memory.
    """
    images, kept = pictures(4), []
    if mode != "turns":
        kept = [build(n, paths.get(n), "cpu" if mode == "offload" else device) for n in names]
    for index, name in enumerate(names):
        reward = kept[index].to(device) if kept else build(name, paths.get(name), device)
        reward.score(images, PROMPT)
        if mode == "offload":
            reward.to("cpu")
        del reward
    if torch.device(device).type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def main(
    names: Annotated[str, typer.Option("--rewards")] = "image_reward,hpsv2,clip,pickscore",
    batches: Annotated[str, typer.Option(help="Images per batch.")] = "1,16,64",
    rounds: Annotated[int, typer.Option(min=1)] = 1,
    loop: Annotated[int, typer.Option(min=1, help="Images of a round's loop.")] = 4,
    reward_path: Annotated[list[str] | None, typer.Option(metavar="NAME=FILE")] = None,
    device: Annotated[str | None, typer.Option()] = None,
    memory: Annotated[bool, typer.Option(help="Also measure the peak memory.")] = True,
    json: options.Json = False,
) -> None:
    """Time the published rewards, and measure their memory."""
    render.quiet_libraries()
    chosen, where = names.split(","), str(resolve_device(device, torch.float32)[0])
    paths = parse_reward_paths(reward_path or (), chosen)
    sizes = [int(size) for size in batches.split(",")]
    report: dict[str, Any] = {
        "device": torch.cuda.get_device_name(where) if where.startswith("cuda") else where,
        "threads": torch.get_num_threads(),
        "weights": "published" if paths else "random",
        "rows": [],
        "memory": {},
    }
    for name in chosen:
        reward = build(name, paths.get(name), where)
        images_per_second(reward, 1, 1, 1)  # warm up
        for size in sizes:
            single, whole = images_per_second(reward, size, rounds, loop)
            row = {"reward": name, "batch": size, "single": single, "batched": whole}
            report["rows"].append({**row, "ratio": whole / single})
            Console(stderr=True).print(report["rows"][-1])
        del reward
    if memory:
        modes = [*MEMORY, *(["offload"] if where.startswith("cuda") else [])]
        with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
            for mode in modes:
                report["memory"][mode] = pool.apply(peak_memory, (chosen, paths, where, mode))
    if json:
        print(json_module.dumps(report))
        return
    table = Table(title=f"{report['device']}, {report['threads']} threads, fp32")
    for heading in ("reward", "batch", "images / s", "loop's images / s", "ratio"):
        table.add_column(heading)
    for row in report["rows"]:
        rates = (f"{row[key]:.3g}" for key in ("batched", "single", "ratio"))
        table.add_row(row["reward"], str(row["batch"]), *rates)
    render.tables([table])
    for mode, size in report["memory"].items():
        Console().print(f"peak memory, {MEMORY.get(mode, mode)}: {render.size(size)}")


if __name__ == "__main__":
    typer.run(main)
