"""Captioned scenes composed on the fly from Fluent Emoji 3D art and emojibase labels."""

import hashlib
import io
import json
import subprocess
import tarfile
import tempfile
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image

from mini.settings import ART_PACKAGE, COLOURS, CONCEPTS, LABEL_PACKAGE, Scenes


@dataclass(frozen=True)
class Concept:
    """One thing that mini can draw: its name, the other words for it, and its art."""

    name: str
    tags: tuple[str, ...]
    art: Image.Image  # RGBA, cropped to its content


@dataclass(frozen=True)
class Scene:
    """A picture [size, size, 3] uint8 (None once it is encoded); ``objects`` from left to right."""

    picture: np.ndarray | None
    objects: tuple[str, ...]
    colour: str


def download(directory: Path) -> None:
    """Fetch both npm packages into ``directory`` with ``npm pack`` (which checks their hashes)."""
    directory.mkdir(parents=True, exist_ok=True)
    for package in (ART_PACKAGE, LABEL_PACKAGE):
        target = directory / file_name(package)
        if target.exists():
            continue
        with tempfile.TemporaryDirectory(dir=directory) as scratch:
            command = ["npm", "pack", "--silent", "--pack-destination", scratch, package]
            subprocess.run(command, check=True)
            (Path(scratch) / target.name).rename(target)


def file_name(package: str) -> str:
    name, version = package.rsplit("@", 1)
    return f"{name.lstrip('@').replace('/', '-')}-{version}.tgz"


@lru_cache
def load_concepts(directory: Path) -> tuple[Concept, ...]:
    """Read the chosen concepts out of the two packages.

    Raises:
        ValueError: a label in ``CONCEPTS`` does not exist, or a word in it is not emojibase's.
    """
    with tarfile.open(directory / file_name(LABEL_PACKAGE)) as labels:
        entries = json.load(_member(labels, "package/en/data.json"))
    codes = {entry["label"]: entry["hexcode"].lower() for entry in entries}
    words = {word.lower() for entry in entries for word in (entry["label"], *entry.get("tags", ()))}
    with tarfile.open(directory / file_name(ART_PACKAGE)) as archive:
        files = {Path(name).stem: name for name in archive.getnames()}
        concepts = []
        for item in CONCEPTS.split():
            head, _, tags = item.replace("_", " ").partition(":")
            label, _, name = head.partition("=")
            concept_words = [name or label, *filter(None, tags.split(","))]
            if unknown := [word for word in concept_words if word.lower() not in words]:
                raise ValueError(f"not a label or tag of {LABEL_PACKAGE}: {', '.join(unknown)}")
            stem = next(code for code in (codes[label], f"{codes[label]}-fe0f") if code in files)
            art = Image.open(_member(archive, files[stem])).convert("RGBA")
            opaque = art.getchannel("A").point(lambda alpha: 255 * (alpha > 8))
            concepts.append(
                Concept(concept_words[0], tuple(concept_words[1:]), art.crop(opaque.getbbox()))
            )
    return tuple(concepts)


def _member(archive: tarfile.TarFile, name: str) -> io.BytesIO:
    file = archive.extractfile(name)
    if file is None:
        raise ValueError(f"{name} is not a file in {archive.name}")
    return io.BytesIO(file.read())


def held_out(*parts: str, share: float) -> bool:
    """Whether this combination is kept from training; the same answer on every machine."""
    digest = hashlib.sha256("|".join(sorted(parts)).encode()).digest()
    return int.from_bytes(digest[:4], "big") < share * 2**32


class Composer:
    """Draws scenes. ``compose(rng)`` never returns a held-out combination."""

    def __init__(self, concepts: tuple[Concept, ...], scenes: Scenes) -> None:
        self.concepts = concepts
        self.scenes = scenes
        self._by_name = {concept.name: concept for concept in concepts}

    def compose(self, rng: np.random.Generator) -> Scene:
        """A random training scene."""
        while True:
            count = 2 if rng.random() < self.scenes.pair_share else 1
            chosen = [
                self.concepts[i] for i in rng.choice(len(self.concepts), count, replace=False)
            ]
            colour = list(COLOURS)[rng.integers(len(COLOURS))]
            kept = [(concept.name, colour) for concept in chosen]
            if count == 2:
                kept.append((chosen[0].name, chosen[1].name))
            if not any(held_out(*parts, share=self.scenes.held_out) for parts in kept):
                return self.draw(chosen, colour, rng)

    def draw(self, concepts: list[Concept], colour: str, rng: np.random.Generator) -> Scene:
        """One or two ``concepts``, from left to right, on a ground of ``colour``."""
        size = self.scenes.size
        ground = np.array(COLOURS[colour]) + rng.normal(0, self.scenes.colour_jitter, 3)
        canvas = Image.new("RGB", (size, size), tuple(int(c) for c in ground.clip(0, 255)))
        pair = len(concepts) == 2
        extent = self.scenes.pair_extent if pair else self.scenes.single_extent
        for index, concept in enumerate(concepts):
            side = size * rng.uniform(*extent)
            centre = np.array([(0.27 + 0.46 * index) if pair else 0.5, 0.5])
            centre = size * (
                centre + rng.uniform(-1, 1, 2) * self.scenes.jitter * (0.5 if pair else 1)
            )
            scale = side / max(concept.art.size)
            shape = [max(1, round(length * scale)) for length in concept.art.size]
            art = concept.art.resize(shape, Image.Resampling.LANCZOS)
            corner = (centre - np.array(shape) / 2).round().astype(int)
            canvas.paste(art, tuple(corner), art)
        names = tuple(concept.name for concept in concepts)
        return Scene(np.asarray(canvas), names, colour)

    def caption(self, scene: Scene, rng: np.random.Generator) -> str:
        """A caption in the words of the labels or their tags, naming the ground or not."""
        words = []
        for name in scene.objects:
            concept = self._by_name[name]
            if concept.tags and rng.random() < self.scenes.caption_tag:
                name = concept.tags[rng.integers(len(concept.tags))]
            words.append(name if rng.random() < self.scenes.caption_bare else with_article(name))
        ground = f" on {with_article(scene.colour)} background"
        named = rng.random() < self.scenes.caption_colour
        return " and ".join(words) + (ground if named else "")


def with_article(name: str) -> str:
    """ "a cat", "an octopus", "a UFO"."""
    vowel = name[0] in "aeio" or (name[0] == "u" and not name.startswith("uni"))
    return f"{'an' if vowel else 'a'} {name}"
