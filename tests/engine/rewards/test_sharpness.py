import numpy as np
import pytest
from PIL import Image, ImageFilter

from asyncdiff_cli.engine import InputError, score
from asyncdiff_cli.engine.rewards.sharpness import detail


def test_neighbours_by_hand():
    pixels = np.zeros((2, 3, 3))
    pixels[:, 1] = 60  # across: 60, 60 in both rows; down: nothing
    assert detail(pixels) == pytest.approx((60 + 0) / 2)


def test_green_counts_as_eyes_see_it():
    pixels = np.zeros((2, 2, 3))
    pixels[0, :, 1] = 100
    assert detail(pixels) == pytest.approx(58.7 / 2)


def test_blur_takes_it_away():
    board = (np.indices((64, 64)).sum(0) // 4 % 2 * 255).astype(np.uint8)
    sharp = Image.fromarray(board)
    blurred = [sharp.filter(ImageFilter.GaussianBlur(radius)) for radius in (1, 2, 3)]
    scores = score("sharpness", [sharp, *blurred]).tolist()
    assert scores == sorted(scores, reverse=True)
    assert scores[-1] < 0.5 * scores[0]


def test_one_row_has_no_neighbours():
    with pytest.raises(InputError, match="2×2"):
        score("sharpness", Image.new("L", (9, 1)))
