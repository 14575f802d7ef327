import numpy as np
import pytest
from PIL import Image

from asyncdiff_cli.engine.drawing.panel import GAP, make_panel

COLOURS = [["red", "green", "blue"], ["yellow", "black", "cyan"]]


def panel(size: tuple[int, int], title: str = "a cat") -> Image.Image:
    tiles = [[Image.new("RGB", size, colour) for colour in row] for row in COLOURS]
    return make_panel(tiles, ["γ = 0", "γ = 1", "γ = 2"], ["seed 0", "seed 1"], title)


@pytest.mark.parametrize(
    ("size", "drawn"),
    [
        ((128, 128), (256, 256)),
        ((64, 48), (256, 192)),
        ((512, 512), (512, 512)),
        ((100, 60), (300, 180)),
    ],
)
def test_tiles_are_in_their_places_and_enlarged_by_a_whole_factor(size, drawn):
    pixels = np.asarray(panel(size))
    height, width = pixels.shape[:2]
    for i, row in enumerate(reversed(COLOURS)):
        for j, colour in enumerate(reversed(row)):
            bottom, right = height - GAP - i * (drawn[1] + GAP), width - GAP - j * (drawn[0] + GAP)
            tile = pixels[bottom - drawn[1] : bottom, right - drawn[0] : right]
            assert (tile == Image.new("RGB", (1, 1), colour).getpixel((0, 0))).all()
    assert width > 3 * (drawn[0] + GAP)


def test_title_and_labels_are_written():
    with_title, without = (np.asarray(panel((128, 128), title)) for title in ("a cat", " "))
    top = with_title.shape[0] - 2 * (256 + GAP)
    assert (with_title[:top] < 128).any()
    assert (with_title[:top] != without[:top]).any()
    assert (with_title[top:, : GAP + 20] < 128).any()  # the rows' labels, on their side


def test_a_long_title_is_wrapped_and_the_same_request_is_the_same_picture():
    long = panel((128, 128), "an octopus on a yellow background " * 6)
    assert long.width == panel((128, 128)).width
    assert long.height > panel((128, 128)).height
    assert long.tobytes() == panel((128, 128), "an octopus on a yellow background " * 6).tobytes()
