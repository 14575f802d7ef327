"""Whether `noise` sees noise and not detail: how it moves when either is added to clean pictures.

    python -m benchmarks.noise [--json]

The pictures are mini's own. Real detail is theirs too: four of them at half size in one picture.
Noise that is left in mini's latent reaches the picture through the VAE, which is another thing than
white noise; it is in the table because it is what a sampler that stops early leaves.
"""

from __future__ import annotations

import json as json_module
from collections.abc import Callable, Mapping
from typing import Annotated

import numpy as np
import torch
import typer
from PIL import Image, ImageFilter
from rich.table import Table

from asyncdiff_cli import render
from asyncdiff_cli.engine import Backbone, load_backbone, sample, score
from asyncdiff_cli.engine.backbones.vocabulary import Vocabulary
from benchmarks import options

SIGMAS = (2, 4, 6, 8, 10)
TIMES = (0.1, 0.3)
MEASURES = ("noise", "sharpness", "mini_quality")
Change = Callable[[int], Image.Image]


def draw(backbone: Backbone, count: int) -> list[Image.Image]:
    """Pictures of different things on plain grounds, from different noise."""
    vocabulary = Vocabulary.load(backbone.directory)
    assert vocabulary is not None
    names, colours = list(vocabulary.objects), vocabulary.colours
    prompts = [
        f"a {names[i * len(names) // count]} on a {colours[i % len(colours)]} background"
        for i in range(count)
    ]
    generators = [torch.Generator().manual_seed(seed) for seed in range(count)]
    return [
        image
        for start in range(0, count, 4)
        for image in sample(
            backbone, prompts[start : start + 4], generator=generators[start : start + 4]
        ).images
    ]


def white(image: Image.Image, sigma: float, seed: int) -> Image.Image:
    """The picture with white Gaussian noise of `sigma` of 255 in each channel."""
    pixels = np.asarray(image)
    noisy = pixels + np.random.default_rng(seed).normal(0, sigma, pixels.shape)
    return Image.fromarray(noisy.clip(0, 255).round().astype(np.uint8))


def tiled(images: list[Image.Image]) -> Image.Image:
    """Four pictures at half size in one."""
    width, height = images[0].size
    canvas = Image.new("RGB", (width, height))
    for index, image in enumerate(images):
        half = image.resize((width // 2, height // 2), Image.Resampling.LANCZOS)
        canvas.paste(half, (index % 2 * (width // 2), index // 2 * (height // 2)))
    return canvas


@torch.no_grad()
def undenoised(backbone: Backbone, image: Image.Image, t: float, seed: int) -> Image.Image:
    """Decoded from (1 − t) x + t ε, where x is the picture's latent."""
    pipe, config = backbone.pipe, backbone.pipe.vae.config
    pixels = pipe.image_processor.preprocess(image)
    clean = pipe.vae.encode(pixels).latent_dist.mode() - config.shift_factor
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(clean.shape, generator=generator)
    latents = torch.lerp(clean * config.scaling_factor, noise, t)
    decoded = pipe.vae.decode(latents / config.scaling_factor + config.shift_factor).sample
    return pipe.image_processor.postprocess(decoded)[0]


def changes(backbone: Backbone, images: list[Image.Image]) -> dict[str, Change]:
    """What is done to the picture of a number, by name."""
    count = len(images)

    def added(sigma: float) -> Change:
        return lambda i: white(images[i], sigma, i)

    def latent(t: float) -> Change:
        return lambda i: undenoised(backbone, images[i], t, i)

    return {
        **{f"white noise, σ = {sigma}/255": added(sigma) for sigma in SIGMAS},
        "four pictures in one": lambda i: tiled([images[(i + k) % count] for k in range(4)]),
        "unsharp mask, 80 %": lambda i: images[i].filter(ImageFilter.UnsharpMask(2, 80, 0)),
        **{f"noise in the latent, t = {t}": latent(t) for t in TIMES},
    }


def interval(values: np.ndarray) -> dict[str, float]:
    """The mean and its 95 % bootstrap interval; `values` is [n]."""
    rng = np.random.default_rng(0)
    means = rng.choice(values, (10_000, len(values))).mean(1)
    low, high = np.percentile(means, [2.5, 97.5])
    return {"mean": float(values.mean()), "low": float(low), "high": float(high)}


def _cell(found: Mapping[str, float]) -> str:
    return "{mean:+.2f} [{low:+.2f}, {high:+.2f}]".format(**found)


def main(
    count: Annotated[int, typer.Option(min=4, help="Pictures.")] = 24,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print a table for a page.")] = False,
    json: options.Json = False,
) -> None:
    """Add noise and detail to clean pictures and report the paired change of the scores."""
    render.quiet_libraries()
    backbone = load_backbone("mini", device="cpu")
    images = draw(backbone, count)
    before = {name: score(name, images).numpy() for name in MEASURES}
    rows = {}
    for title, change in changes(backbone, images).items():
        changed = [change(i) for i in range(count)]
        rows[title] = {
            name: interval(score(name, changed).numpy() - before[name]) for name in MEASURES
        }
    clean = {name: interval(values) for name, values in before.items()}
    if json:
        print(json_module.dumps({"count": count, "clean": clean, "changes": rows}))
        return
    if markdown:
        print(f"| added | `{'` | `'.join(MEASURES)}` |", "| --- | --- | --- | --- |", sep="\n")
        for title, row in rows.items():
            print(f"| {title} |" + "".join(f" {_cell(row[name])} |" for name in MEASURES))
        return
    table = Table(title=f"change of the score, {count} pictures of mini")
    for heading in ("what is done", *MEASURES):
        table.add_column(heading)
    for title, row in {"clean (score)": clean, **rows}.items():
        table.add_row(title, *(_cell(row[name]) for name in MEASURES))
    render.tables([table])


if __name__ == "__main__":
    typer.run(main)
