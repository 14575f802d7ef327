import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from asyncdiff_cli.engine.rewards.world.vocabulary import Thing
from mini import art
from mini.art import LABELS, PACKAGES, PAPER, SIDE, Sprites, dominant_hue, outlined, pack
from tests.mini.conftest import shape, to_json, write_package

RING = '<circle cx="8" cy="8" r="6" fill="none" stroke="currentColor" stroke-width="2"/>'


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The packages in their real layout; emojibase knows two labels."""

    pytest.importorskip("resvg_py")
    entries = [{"label": "ball", "hexcode": "1F600"}, {"label": "red box", "hexcode": "1F601"}]
    write_package(tmp_path, LABELS, {"package/en/data.json": to_json(entries)})
    buffer = io.BytesIO()
    shape(1).save(buffer, "WEBP", lossless=True)
    write_package(tmp_path, PACKAGES["3d"], {"package/assets/1f600-fe0f.webp": buffer.getvalue()})
    icons = {"icons": {"round": {"body": RING}}, "width": 16, "height": 16}
    icons["aliases"] = {"ball": {"parent": "round"}}
    for style in ("flat", "contrast", "noto"):
        names = {"1f600": "ball", "1f601": "round"}
        files = {"package/icons.json": to_json(icons), "package/chars.json": to_json(names)}
        write_package(tmp_path, PACKAGES[style], files)
    monkeypatch.setattr(art, "THINGS", (Thing("ball"), Thing("red_box=box")))
    return tmp_path


def test_every_style_of_every_thing_is_packed_and_read_back(packages: Path) -> None:
    packed = pack(packages)
    names = [(drawing.thing, drawing.style) for drawing in packed.drawings]
    styles = ["flat", "contrast", "noto"]
    assert names == [("ball", "3d"), *(("ball", s) for s in styles), *(("box", s) for s in styles)]
    packed.save(packages / "sprites.webp")
    again = Sprites.load(packages / "sprites.webp")
    np.testing.assert_array_equal(again.pixels, packed.pixels)
    assert again.drawings == packed.drawings


def test_a_label_that_is_not_in_the_package_is_refused(
    packages: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(art, "THINGS", (Thing("unicycle"),))
    with pytest.raises(ValueError, match="'unicycle' is not a label"):
        pack(packages)


def test_an_outlined_drawing_encloses_paper_and_a_black_shape_is_left_out() -> None:
    canvas = Image.new("RGBA", (64, 64))
    ImageDraw.Draw(canvas).ellipse((4, 4, 60, 60), outline=(0, 0, 0, 255), width=4)
    filled = outlined(canvas)
    assert filled is not None
    assert filled.getpixel((32, 32)) == (*PAPER, 255)
    assert filled.getpixel((0, 0))[3] == 0
    ImageDraw.Draw(canvas).ellipse((4, 4, 60, 60), fill=(0, 0, 0, 255))
    assert outlined(canvas) is None


def test_the_dominant_hue_is_found_unless_there_are_several() -> None:
    two = np.asarray(shape(0)).copy()
    two[: SIDE // 2] = np.asarray(shape(4))[: SIDE // 2]
    assert dominant_hue(two) is None
    hue = dominant_hue(np.asarray(shape(4)))
    assert hue == pytest.approx(360 * 4 * 32 / 256, abs=3)
