"""Stage ``sprites``: every thing in up to four drawings, packed into one picture of a few MB.

The art comes from npm packages with permissive licences (`notices/`). The packed file is all that
the other stages need, so that they run where there is no network.
"""

from __future__ import annotations

import io
import json
import subprocess
import tarfile
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from scipy import ndimage

from asyncdiff_cli.engine.rewards.world.vocabulary import STYLES, THINGS

LABELS = "emojibase-data@17.0.0"
PACKAGES = {
    "3d": "@lobehub/fluent-emoji-3d@1.1.0",
    "flat": "@iconify-json/fluent-emoji-flat@1.2.6",
    "contrast": "@iconify-json/fluent-emoji-high-contrast@1.2.6",
    "noto": "@iconify-json/noto@1.2.9",
}
SIDE = 112  # of a sprite, pixels
RENDERED = 448  # side at which the vector art is rendered before it is cropped
PAPER = (255, 64, 64)  # what the outlined drawings enclose: hue 0, to be turned into any colour
HUE_BINS = 36
LEAST_PAPER = 0.3  # share of an outlined drawing; one with less is a black shape, and left out
DOMINANT = 0.75  # share of a sprite's chroma that one hue must have for it to be recoloured …
COLOURFUL = 0.3  # … and the chroma that its pixels must have on average


@dataclass(frozen=True)
class Drawing:
    """Where a sprite is in the sheet, and the hue in degrees that a named colour replaces."""

    thing: str
    style: str
    hue: float | None


@dataclass(frozen=True)
class Sprites:
    """uint8 RGBA [N, SIDE, SIDE, 4], each centred and as large as its square allows."""

    pixels: np.ndarray
    drawings: tuple[Drawing, ...]

    def save(self, path: Path) -> None:
        """One lossless WebP, and beside it what is drawn where, as JSON."""
        columns = int(np.ceil(np.sqrt(len(self.drawings))))
        sheet = np.zeros((columns * SIDE, columns * SIDE, 4), np.uint8)
        for index, pixels in enumerate(self.pixels):
            row, column = divmod(index, columns)
            sheet[row * SIDE :, column * SIDE :][:SIDE, :SIDE] = pixels
        partial = path.with_suffix(".partial")
        Image.fromarray(sheet).save(partial, "WEBP", lossless=True, exact=True, quality=100)
        described = json.dumps([asdict(drawing) for drawing in self.drawings])
        path.with_suffix(".json").write_text(described)
        partial.replace(path)

    @classmethod
    def load(cls, path: Path) -> Sprites:
        described = json.loads(path.with_suffix(".json").read_text())
        drawings = tuple(Drawing(**each) for each in described)
        sheet = np.asarray(Image.open(path).convert("RGBA"))
        columns = sheet.shape[1] // SIDE
        cells = sheet.reshape(columns, SIDE, columns, SIDE, 4).swapaxes(1, 2)
        return cls(cells.reshape(-1, SIDE, SIDE, 4)[: len(drawings)].copy(), drawings)


def make(work: Path) -> Path:
    """The packed sprites in ``work``, made from the packages if they are not there yet."""
    path = work / "sprites.webp"
    if not path.exists():
        download(work / "npm")
        pack(work / "npm").save(path)
    return path


def download(directory: Path) -> None:
    """Fetch the packages into ``directory`` with ``npm pack`` (which checks their hashes)."""
    directory.mkdir(parents=True, exist_ok=True)
    for package in (LABELS, *PACKAGES.values()):
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


def pack(directory: Path) -> Sprites:
    """Read or render every thing in every style that has it.

    Raises:
        ValueError: emojibase has no such label, or no style draws the thing.
    """
    with tarfile.open(directory / file_name(LABELS)) as archive:
        entries = json.loads(_member(archive, "package/en/data.json"))
    codes = {entry["label"]: entry["hexcode"].lower() for entry in entries}
    readers = {style: _reader(style, directory / file_name(PACKAGES[style])) for style in STYLES}
    pixels, drawings = [], []
    for thing in THINGS:
        if thing.label not in codes:
            raise ValueError(f"{thing.label!r} is not a label of {LABELS}")
        found = {style: read(codes[thing.label]) for style, read in readers.items()}
        if not any(found.values()):
            raise ValueError(f"no style draws {thing.label!r}")
        for style, art in found.items():
            if style == "contrast" and art is not None:
                art = outlined(art)
            if art is not None:
                pixels.append(_squared(art))
                drawings.append(Drawing(thing.name, style, dominant_hue(pixels[-1])))
    return Sprites(np.stack(pixels), tuple(drawings))


def _reader(style: str, path: Path) -> Callable[[str], Image.Image | None]:
    """A function from a code point to its art, RGBA, or None."""
    with tarfile.open(path) as archive:
        if style == "3d":
            files = {Path(name).stem: name for name in archive.getnames()}
            art = {code: _member(archive, name) for code, name in files.items() if ".webp" in name}
            return lambda code: _first(code, art, lambda data: Image.open(io.BytesIO(data)))
        names = json.loads(_member(archive, "package/chars.json"))
        icons = json.loads(_member(archive, "package/icons.json"))

    def render(name: str) -> Image.Image:
        import resvg_py

        icon = icons["icons"][icons.get("aliases", {}).get(name, {}).get("parent", name)]
        side = icon.get("height", icons.get("height", 16))
        svg = (
            '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
            f' viewBox="0 0 {icon.get("width", icons.get("width", side))} {side}">'
            f"{icon['body'].replace('currentColor', '#1c1c22')}</svg>"
        )
        data = resvg_py.svg_to_bytes(svg_string=svg, width=RENDERED, skip_system_fonts=True)
        return Image.open(io.BytesIO(bytes(data)))

    return lambda code: _first(code, names, render)


def _first(code: str, found: dict, read: Callable[..., Image.Image]) -> Image.Image | None:
    """What ``read`` makes of the entry for ``code``, with or without its variation selector."""
    for key in (code, f"{code}-fe0f", code.removesuffix("-fe0f")):
        if key in found:
            return read(found[key]).convert("RGBA")
    return None


def _member(archive: tarfile.TarFile, name: str) -> bytes:
    file = archive.extractfile(name)
    if file is None:
        raise ValueError(f"{name} is not a file in {archive.name}")
    return file.read()


def outlined(art: Image.Image) -> Image.Image | None:
    """A one-colour drawing on paper: what its lines enclose is filled with `PAPER`.

    None for a drawing that encloses too little.
    """
    pixels = np.array(art)
    ink = pixels[..., 3].astype(float) / 255
    inside = ndimage.binary_fill_holes(ink > 0.5)
    edge = np.maximum(ink, inside)
    if (edge - ink).sum() < LEAST_PAPER * edge.sum():
        return None
    colour = np.array(PAPER) * (1 - ink[..., None]) + pixels[..., :3] * ink[..., None]
    return Image.fromarray(np.dstack([colour, 255 * edge]).round().astype(np.uint8))


def _squared(art: Image.Image) -> np.ndarray:
    """Cropped to what is opaque, scaled to fill `SIDE` with one pixel free, and centred."""
    opaque = art.getchannel("A").point(lambda alpha: 255 * (alpha > 8))
    cropped = art.crop(opaque.getbbox())
    scale = (SIDE - 2) / max(cropped.size)
    shape = [max(1, round(length * scale)) for length in cropped.size]
    premultiplied = cropped.convert("RGBa").resize(shape, Image.Resampling.LANCZOS).convert("RGBA")
    square = Image.new("RGBA", (SIDE, SIDE))
    square.paste(premultiplied, tuple((SIDE - length) // 2 for length in shape))
    return np.asarray(square)


def dominant_hue(pixels: np.ndarray) -> float | None:
    """The hue, in degrees, that carries a sprite's colour; None if none or several do."""
    hsv = np.asarray(Image.fromarray(pixels[..., :3]).convert("HSV"), float)
    alpha = pixels[..., 3].astype(float) / 255
    chroma = hsv[..., 1] * hsv[..., 2] / 255**2 * alpha
    share, _ = np.histogram(hsv[..., 0] / 256, HUE_BINS, (0, 1), weights=chroma)
    around = share + np.roll(share, 1) + np.roll(share, -1) + np.roll(share, 2) + np.roll(share, -2)
    best = int(around.argmax())
    if around[best] < DOMINANT * share.sum() or chroma.sum() < COLOURFUL * alpha.sum():
        return None
    turned = (hsv[..., 0] / 256 - (best + 0.5) / HUE_BINS + 0.5) % 1 - 0.5  # from the best bin
    near = chroma * (np.abs(turned) * HUE_BINS <= 2.5)
    mean = (best + 0.5) / HUE_BINS + (turned * near).sum() / near.sum()
    return float(360 * mean % 360)
