"""Pictures of every mode, turned and transparent ones, and files that are none."""

import numpy as np
import pytest
from PIL import Image, ImageOps

from asyncdiff_cli.engine import InputError, score
from asyncdiff_cli.engine.pictures import read_picture, rgb
from tests.helpers.pictures import COLOURS, GREY, bad_pictures


def in_mode(mode: str) -> Image.Image:
    """The grey ramp in a mode, as bright there as the numbers of the mode can be."""
    grey = Image.fromarray(GREY)
    if mode.startswith("I;16"):
        order = ">" if mode.endswith("B") else "<"
        wide = (GREY.astype(np.uint16) * 257).astype(f"{order}u2")
        return Image.frombytes(mode, grey.size, wide.tobytes())
    if mode in ("RGBa", "La"):
        return grey.convert(f"{mode[:-1]}A").convert(mode)
    if mode == "LAB":
        return Image.merge("LAB", [grey, *[Image.new("L", grey.size)] * 2])
    return grey.convert(mode)


@pytest.mark.parametrize("mode", Image.MODES)
def test_every_mode_of_pillow_is_read(mode):
    picture = rgb(in_mode(mode))
    assert (picture.mode, picture.size) == ("RGB", (16, 16))
    if mode not in ("1", "LAB"):
        np.testing.assert_allclose(np.asarray(picture), np.stack([GREY] * 3, -1), atol=2)
    assert np.isfinite(score("noise", [in_mode(mode)]).item())


@pytest.mark.parametrize(
    ("factor", "kind"), [(257, "int32"), (1 / 255, "float32"), (257, "float32")]
)
def test_wide_numbers_are_scaled_and_not_clipped(factor, kind, tmp_path):
    Image.fromarray((GREY * np.float64(factor)).astype(kind)).save(tmp_path / "a.tiff")
    assert np.array_equal(np.asarray(read_picture(tmp_path / "a.tiff"))[..., 0], GREY)


def test_a_16_bit_picture_scores_as_its_8_bit_twin(tmp_path):
    ramp = np.kron(GREY, np.ones((8, 8), np.uint8))
    Image.fromarray(ramp).save(tmp_path / "8.png")
    Image.fromarray(ramp.astype(np.uint16) * 257).save(tmp_path / "16.png")
    pictures = [read_picture(tmp_path / name) for name in ("8.png", "16.png")]
    one, other = score("mini_clip", pictures, "a cat").tolist()
    assert one == pytest.approx(other, abs=1e-3)
    assert pictures[0].tobytes() == pictures[1].tobytes()


@pytest.mark.parametrize("numbers", [[[-1.0]], [[7e4]], [[float("nan")]], [[float("inf")]]])
def test_numbers_of_no_known_range_are_refused(numbers):
    with pytest.raises(InputError, match="its grey goes from"):
        rgb(Image.fromarray(np.array(numbers, np.float32)))


def test_transparency_lies_over_white(tmp_path):
    clear = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    half = Image.new("LA", (4, 4), (0, 128))
    Image.new("P", (4, 4)).save(tmp_path / "palette.png", transparency=0)
    Image.new("RGB", (4, 4), "red").save(tmp_path / "key.png", transparency=(255, 0, 0))
    wide = np.array([[2570, 5140]], np.uint16)
    Image.fromarray(wide).save(tmp_path / "wide.png", transparency=2570)
    assert rgb(clear).getpixel((0, 0)) == (255, 255, 255)
    assert rgb(half).getpixel((0, 0)) == (127, 127, 127)
    for name in ("palette.png", "key.png"):
        assert read_picture(tmp_path / name).getpixel((0, 0)) == (255, 255, 255)
    assert np.asarray(read_picture(tmp_path / "wide.png"))[0, :, 0].tolist() == [255, 20]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_orientation_is_honoured(tmp_path, orientation):
    image = Image.fromarray(COLOURS[:, :12])
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.save(tmp_path / "a.png", exif=exif)
    with Image.open(tmp_path / "a.png") as stored:
        expected = ImageOps.exif_transpose(stored)
    assert np.array_equal(np.asarray(read_picture(tmp_path / "a.png")), np.asarray(expected))
    assert expected.size == ((16, 12) if orientation > 4 else (12, 16))


def test_what_is_no_picture_is_said_in_one_line(tmp_path):
    for name, message in bad_pictures(tmp_path).items():
        with pytest.raises(InputError, match=message) as caught:
            read_picture(tmp_path / name)
        assert str(caught.value).startswith(f"{tmp_path / name} ")
    with pytest.raises(InputError, match="there is no file"):
        read_picture(tmp_path / "missing.png")
