"""Stage ``evaluate``: measure the exported pipeline on what it was not trained on.

Every number stands beside the same measure on the real art, and carries a 95 % bootstrap interval.
The judge is an image-text model of another seed and other data than the one that conditions mini.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
import torch
from diffusers import StableDiffusion3Pipeline
from PIL import Image
from torch import Tensor

from mini.clip import ImageText
from mini.data import Composer, Concept, held_out, with_article
from mini.settings import COLOURS, Settings
from mini.vae import to_tensor

EVALUATION_SEED = 90_001
BORDER = 0.04  # share of the side that is ground in every scene


@dataclass(frozen=True)
class Question:
    """A prompt with what it asks for."""

    prompt: str
    concepts: tuple[Concept, ...]
    colour: str


def evaluate(
    pipe: StableDiffusion3Pipeline, judge: ImageText, composer: Composer, settings: Settings
) -> dict[str, dict[str, float | list[float]]]:
    """All measures, by name: ``{"mean", "interval", "n"}``."""
    singles, colours, pairs = questions(composer)
    retrieval = Retrieval(judge, composer)
    draw = Painter(pipe, settings)
    rng = np.random.default_rng(EVALUATION_SEED)
    measures: dict[str, list[float]] = {}

    def real(question: Question) -> np.ndarray:
        return composer.draw(list(question.concepts), question.colour, rng).picture

    measures["vae_psnr"] = reconstruction_psnr(pipe, [real(q) for q in colours + pairs])
    for source, pictures in (("real", real), ("mini", draw)):
        ranks = [retrieval.rank(pictures(q), q.concepts[0]) for q in singles]
        measures[f"{source}_top1"] = [rank < 1 for rank in ranks]
        measures[f"{source}_top5"] = [rank < 5 for rank in ranks]
        measures[f"{source}_colour"] = [ground_colour(pictures(q)) == q.colour for q in colours]
        measures[f"{source}_pair"] = [retrieval.finds_both(pictures(q), q.concepts) for q in pairs]
    return {name: summary(values) for name, values in measures.items()}


def questions(
    composer: Composer, colours: int = 200, pairs: int = 150
) -> tuple[list[Question], list[Question], list[Question]]:
    """Every label; held-out (label, colour) combinations; held-out pairs of labels."""
    share, rng = composer.scenes.held_out, np.random.default_rng(EVALUATION_SEED)
    palette = list(COLOURS)

    def pick(items: Sequence, count: int) -> list:
        return [items[i] for i in rng.permutation(len(items))[:count]]

    singles = [
        Question(with_article(c.name), (c,), palette[rng.integers(len(palette))])
        for c in composer.concepts
    ]
    unseen_colours = [
        Question(f"{with_article(c.name)} on {with_article(colour)} background", (c,), colour)
        for c in composer.concepts
        for colour in palette
        if held_out(c.name, colour, share=share)
    ]
    unseen_pairs = [
        Question(f"{with_article(a.name)} and {with_article(b.name)}", (a, b), pick(palette, 1)[0])
        for a, b in combinations(composer.concepts, 2)
        if held_out(a.name, b.name, share=share)
    ]
    return singles, pick(unseen_colours, colours), pick(unseen_pairs, pairs)


class Painter:
    """Draws a question's prompt with the pipeline; the n-th picture has the n-th seed."""

    def __init__(self, pipe: StableDiffusion3Pipeline, settings: Settings) -> None:
        self.pipe, self.settings, self.count = pipe, settings, 0

    def __call__(self, question: Question) -> np.ndarray:
        self.count += 1
        generator = torch.Generator().manual_seed(EVALUATION_SEED + self.count)
        return np.asarray(paint(self.pipe, question.prompt, generator, self.settings))


def paint(
    pipe: StableDiffusion3Pipeline, prompt: str, generator: torch.Generator, settings: Settings
) -> Image.Image:
    return pipe(
        prompt,
        num_inference_steps=settings.sampling.steps,
        guidance_scale=settings.sampling.guidance,
        max_sequence_length=settings.transformer.padding,
        generator=generator,
    ).images[0]


class Retrieval:
    """Which of all labels the judge sees in a picture."""

    def __init__(self, judge: ImageText, composer: Composer) -> None:
        self.judge, self.size = judge, composer.scenes.size
        self.names = [concept.name for concept in composer.concepts]
        with torch.no_grad():
            embeds = judge.embed_texts([with_article(name) for name in self.names])
        self.labels = embeds.mean(0)

    @torch.no_grad()
    def similarity(self, picture: np.ndarray) -> Tensor:
        """Cosine of the picture to "a {label}", [labels]."""
        return self.labels @ self.judge.embed_images(to_tensor([picture]))[0]

    def rank(self, picture: np.ndarray, concept: Concept) -> int:
        """How many labels the judge prefers to the right one."""
        similarity = self.similarity(picture)
        return int((similarity > similarity[self.names.index(concept.name)]).sum())

    def finds_both(self, picture: np.ndarray, concepts: Sequence[Concept]) -> bool:
        """Whether each half of the picture, seen alone, shows the object meant for it."""
        middle = picture.shape[1] // 2
        halves = [self._square(half) for half in (picture[:, :middle], picture[:, middle:])]
        return all(self.rank(half, c) < 1 for half, c in zip(halves, concepts, strict=True))

    def _square(self, half: np.ndarray) -> np.ndarray:
        """The middle square of a half, as large as a picture: the object as singles show it."""
        side = half.shape[1]
        top = (half.shape[0] - side) // 2
        square = Image.fromarray(half[top : top + side])
        return np.asarray(square.resize((self.size, self.size), Image.Resampling.BICUBIC))


def ground_colour(picture: np.ndarray) -> str:
    """The named colour nearest to the median of the picture's border, in sRGB."""
    width = max(1, round(BORDER * len(picture)))
    inner = np.zeros(picture.shape[:2], bool)
    inner[width:-width, width:-width] = True
    median = np.median(picture[~inner], axis=0)
    return min(COLOURS, key=lambda name: float(np.square(median - COLOURS[name]).sum()))


@torch.no_grad()
def reconstruction_psnr(pipe: StableDiffusion3Pipeline, pictures: list[np.ndarray]) -> list[float]:
    """dB per picture, of decode(encode(picture)) rounded to 8 bits."""
    values = []
    for picture in pictures:
        latent = pipe.vae.encode(to_tensor([picture])).latent_dist.mode()
        decoded = pipe.image_processor.postprocess(pipe.vae.decode(latent).sample, "pil")[0]
        error = np.square(np.asarray(decoded, float) - picture).mean()
        values.append(float(10 * np.log10(255**2 / error)))
    return values


def summary(values: Sequence[float]) -> dict[str, float | list[float]]:
    """Mean with a 95 % percentile bootstrap interval over the pictures."""
    array = np.asarray(values, float)
    rng = np.random.default_rng(0)
    means = array[rng.integers(0, len(array), (2000, len(array)))].mean(1)
    low, high = np.percentile(means, (2.5, 97.5))
    return {"mean": float(array.mean()), "interval": [float(low), float(high)], "n": len(array)}


def sheet(
    pipe: StableDiffusion3Pipeline, composer: Composer, settings: Settings, side: int = 10
) -> Image.Image:
    """``side`` × ``side`` pictures of "a {label}", labels spread evenly, in vocabulary order."""
    every = np.linspace(0, len(composer.concepts) - 1, side * side).round().astype(int)
    size = composer.scenes.size
    canvas = Image.new("RGB", (side * size, side * size))
    for cell, index in enumerate(every):
        generator = torch.Generator().manual_seed(EVALUATION_SEED - 1 - cell)
        prompt = with_article(composer.concepts[index].name)
        picture = paint(pipe, prompt, generator, settings)
        canvas.paste(picture, (cell % side * size, cell // side * size))
    return canvas


def load_pipeline(directory: Path) -> StableDiffusion3Pipeline:
    pipe = StableDiffusion3Pipeline.from_pretrained(directory, torch_dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    return pipe
