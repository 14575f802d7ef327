"""A labelled grid of images: a row per image, a column per γ, the same noise along a row."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

TILE = 256
"""Smaller images are enlarged, by a whole factor, to at least so many pixels on their longer
side: 128 pixels are hard to see beside others on today's screens."""
GAP = 8
LABEL = 26
"""Characters of a prompt that fit beside a tile."""
PAPER, INK, SUBDUED = "white", "#111111", "#555555"


def make_panel(
    images: Sequence[Sequence[Image.Image]],
    columns: Sequence[str],
    rows: Sequence[str],
    title: str,
    captions: Sequence[Sequence[str]] = (),
) -> Image.Image:
    """Put images of one size into a grid, with a title above and a label at each row and column.

    Args:
        images: [rows][columns].
        captions: what stands below each of them, [rows][columns]; none if empty.
    """
    factor = max(1, -(-TILE // max(images[0][0].size)))
    width, height = (factor * side for side in images[0][0].size)
    font = _font(max(16, min(width, height) // 14))
    line = round(1.5 * font.size)
    left, total = line + GAP, line + GAP + len(columns) * (width + GAP)
    title_lines = _wrapped(title, font, total - left - GAP) if title else []
    top = GAP + line * (len(title_lines) + 1)
    pitch = height + GAP + (line if captions else 0)

    panel = Image.new("RGB", (total, top + len(rows) * pitch), PAPER)
    draw = ImageDraw.Draw(panel)
    for i, text in enumerate(title_lines):
        draw.text((left, GAP + i * line), text, INK, font)
    for j, label in enumerate(columns):
        middle = left + j * (width + GAP) + width / 2
        draw.text((middle, top - line / 2), label, INK, font, anchor="mm")
    for i, label in enumerate(rows):
        y = top + i * pitch
        panel.paste(_sideways(label, font, line, height), (0, y))
        for j, image in enumerate(images[i]):
            tile = image.convert("RGB").resize((width, height), Image.Resampling.LANCZOS)
            panel.paste(tile, (left + j * (width + GAP), y))
        for j, caption in enumerate(captions[i] if captions else ()):
            middle = left + j * (width + GAP) + width / 2
            draw.text((middle, y + height + line / 2), caption, SUBDUED, font, anchor="mm")
    return panel


def _sideways(label: str, font: ImageFont.FreeTypeFont, line: int, height: int) -> Image.Image:
    strip = Image.new("RGB", (height, line), PAPER)
    ImageDraw.Draw(strip).text((height / 2, line / 2), label, SUBDUED, font, anchor="mm")
    return strip.transpose(Image.Transpose.ROTATE_90)


def _wrapped(text: str, font: ImageFont.FreeTypeFont, width: int) -> list[str]:
    """The words in as few lines as fit; a word that is too long has a line of its own."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and font.getlength(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines


@functools.cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans out of matplotlib, the same on every machine; Pillow's own font has no γ."""
    import matplotlib

    path = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
    return ImageFont.truetype(str(path), size, layout_engine=ImageFont.Layout.BASIC)
