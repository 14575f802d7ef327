"""The reward ``mini_clip``: the trained towers as a `CLIPModel`, its measures and its card.

What is measured is the exported directory, read as the package reads it.
"""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import StableDiffusion3Pipeline
from PIL import Image
from torch import Tensor
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel

from asyncdiff_cli.engine.rewards.mini_clip import MiniClip
from mini.clip import ImageText
from mini.data import Composer, with_article
from mini.evaluate import EVALUATION_SEED, Painter, Question, Retrieval, questions, summary
from mini.export import NOTICES
from mini.settings import ART_PACKAGE, COLOURS, LABEL_PACKAGE, Settings

TEMPLATE = Path(__file__).with_suffix(".md")
ALTERNATIVES = 9  # wrong captions that the right one of a pair is compared with

ROWS = (
    ('object first among all labels, "a {label}", unseen combinations with a ground', "object"),
    ("ground first among the ten captions, unseen combinations", "ground"),
    ("both objects found in their halves, unseen pairs", "pair"),
    ("caption of an unseen pair before nine with one object exchanged", "pair_caption"),
    ("caption of an unseen pair before the one with the objects exchanged", "pair_order"),
)


def export(model: ImageText, settings: Settings, target: Path) -> None:
    """Write ``target`` in fp16, anew: `CLIPModel`, its tokenizer and its image processor."""
    config = CLIPConfig(
        text_config=model.texts[0].config.to_dict(),
        vision_config=model.vision.config.to_dict(),
        projection_dim=settings.clip.projection,
    )
    whole = CLIPModel(config)
    weights = {**model.texts[0].state_dict(), **model.vision.state_dict()}
    weights["logit_scale"] = model.temperature["log_scale"]
    whole.load_state_dict(weights)
    side = {"height": settings.scenes.size, "width": settings.scenes.size}
    processor = CLIPImageProcessor(
        size=side, do_center_crop=False, image_mean=[0.5] * 3, image_std=[0.5] * 3
    )
    shutil.rmtree(target, ignore_errors=True)
    whole.half().save_pretrained(target)
    model.tokenizer.save_pretrained(target)
    processor.save_pretrained(target)
    for notice in NOTICES.glob("LICENSE-*"):
        shutil.copy(notice, target / notice.name)


@dataclass
class Shipped:
    """The reward in the place of a judge (`mini.evaluate.Retrieval`)."""

    reward: MiniClip

    def embed_texts(self, captions: list[str]) -> Tensor:
        return self.reward.embed_texts(captions)[None]

    def embed_images(self, pictures: Tensor) -> Tensor:
        levels = ((pictures + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()
        return self.reward.embed_images([Image.fromarray(picture) for picture in levels])


def measure(
    reward: MiniClip, pipe: StableDiffusion3Pipeline, composer: Composer, settings: Settings
) -> dict[str, dict]:
    """All of ``ROWS``, on real art and, for fewer questions, on mini's own pictures."""
    retrieval = Retrieval(Shipped(reward), composer)
    rng = np.random.default_rng(EVALUATION_SEED)

    def real(question: Question) -> np.ndarray:
        return composer.draw(list(question.concepts), question.colour, rng).picture

    measures: dict[str, list[float]] = {}
    counts = {"real": (200, 150), "mini": settings.clip.reward_drawn}
    for source, draw in (("real", real), ("mini", Painter(pipe, settings))):
        _, colours, pairs = questions(composer, *counts[source])
        rows = _singles(retrieval, reward, draw, colours) | _pairs(retrieval, reward, draw, pairs)
        measures |= {f"{source}_{name}": values for name, values in rows.items()}
    return {name: summary(values) for name, values in measures.items()}


def _singles(
    retrieval: Retrieval,
    reward: MiniClip,
    draw: Callable[[Question], np.ndarray],
    asked: list[Question],
) -> dict[str, list[float]]:
    rows: dict[str, list[float]] = {"object": [], "ground": [], "score": [], "wrong_score": []}
    rng = np.random.default_rng(EVALUATION_SEED)
    for question in asked:
        picture, name = draw(question), question.concepts[0].name
        thing, ground = with_article(name), with_article(question.colour)
        other = with_article(str(rng.choice([n for n in retrieval.names if n != name])))
        captions = [f"{thing} on {with_article(colour)} background" for colour in COLOURS]
        scores = reward.score([Image.fromarray(picture)] * len(captions), captions)
        rows["object"].append(retrieval.rank(picture, question.concepts[0]) < 1)
        rows["ground"].append(list(COLOURS)[int(scores.argmax())] == question.colour)
        rows["score"].append(float(scores[list(COLOURS).index(question.colour)]))
        wrong = reward.score(Image.fromarray(picture), f"{other} on {ground} background")
        rows["wrong_score"].append(float(wrong))
    return rows


def _pairs(
    retrieval: Retrieval,
    reward: MiniClip,
    draw: Callable[[Question], np.ndarray],
    asked: list[Question],
) -> dict[str, list[float]]:
    rng = np.random.default_rng(EVALUATION_SEED)
    rows: dict[str, list[float]] = {"pair": [], "pair_caption": [], "pair_order": []}
    for question in asked:
        picture = draw(question)
        left, right = (with_article(concept.name) for concept in question.concepts)
        shown = {concept.name for concept in question.concepts}
        others = [name for name in retrieval.names if name not in shown]
        count = min(ALTERNATIVES, len(others))
        wrong = [with_article(str(name)) for name in rng.choice(others, count, replace=False)]
        captions = [f"{left} and {right}", f"{right} and {left}"]
        captions += [
            f"{left} and {name}" if n % 2 else f"{name} and {right}" for n, name in enumerate(wrong)
        ]
        scores = reward.score([Image.fromarray(picture)] * len(captions), captions)
        rows["pair"].append(retrieval.finds_both(picture, question.concepts))
        rows["pair_caption"].append(bool(scores[0] > scores[2:].max()))
        rows["pair_order"].append(bool(scores[0] > scores[1]))
    return rows


def write_card(metrics: dict, settings: Settings, target: Path) -> None:
    """Write ``metrics.json`` and ``README.md`` beside the weights that were measured."""
    (target / "metrics.json").write_text(json.dumps(metrics, indent=1) + "\n")
    clip = settings.clip
    text = TEMPLATE.read_text().format(
        megabytes=(target / "model.safetensors").stat().st_size / 1e6,
        size=settings.scenes.size,
        art=ART_PACKAGE,
        labels=LABEL_PACKAGE,
        text_layers=clip.text_layers,
        text_width=clip.text_width,
        vision_layers=clip.vision_layers,
        vision_width=clip.vision_width,
        patch=clip.patch,
        projection=clip.projection,
        tokens=clip.tokens,
        steps=clip.reward_steps,
        batch=clip.batch,
        seed=clip.reward_seed,
        clip_seed=clip.seed,
        judge_seed=clip.judge_seed,
        rows="\n".join(
            f"| {title} | {_percent(metrics[f'real_{key}'])} | {_percent(metrics[f'mini_{key}'])} |"
            for title, key in ROWS
        ),
        right=_cosine(metrics["real_score"]),
        wrong=_cosine(metrics["real_wrong_score"]),
        right_mini=_cosine(metrics["mini_score"]),
        wrong_mini=_cosine(metrics["mini_wrong_score"]),
    )
    (target / "README.md").write_text(text)


def _percent(measure: dict) -> str:
    low, high = measure["interval"]
    return f"{100 * measure['mean']:.1f} % [{100 * low:.1f}, {100 * high:.1f}], n = {measure['n']}"


def _cosine(measure: dict) -> str:
    low, high = measure["interval"]
    return f"{measure['mean']:.3f} [{low:.3f}, {high:.3f}], n = {measure['n']}"


def make(
    model: ImageText,
    pipe: StableDiffusion3Pipeline,
    composer: Composer,
    settings: Settings,
    target: Path,
) -> None:
    """Export, measure what was exported, and write it down."""
    export(model, settings, target)
    with torch.inference_mode():
        metrics = measure(MiniClip.from_directory(target), pipe, composer, settings)
    write_card(metrics, settings, target)
