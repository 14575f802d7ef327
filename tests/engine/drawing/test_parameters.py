"""What other tools read of an image."""

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from asyncdiff_cli.engine.drawing.parameters import (
    parsed_parameters,
    read_record,
    shared_parameters,
)
from asyncdiff_cli.engine.drawing.provenance import CHUNK

WEB_UI = """a cat, (sitting:1.2)
on a mat: red
Negative prompt: blurry, text
Steps: 20, Sampler: DPM++ 2M, CFG scale: 7, Seed: 7, Model: "a, b: c", Hash: "x\\"y\""""


def test_the_web_uis_own_text_is_taken_apart():
    assert parsed_parameters(WEB_UI) == {
        "prompt": "a cat, (sitting:1.2)\non a mat: red",
        "negative prompt": "blurry, text",
        **{"Steps": "20", "Sampler": "DPM++ 2M", "CFG scale": "7", "Seed": "7"},
        **{"Model": "a, b: c", "Hash": 'x"y'},
    }


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a cat", {"prompt": "a cat"}),
        ("a: cat, b: dog", {"prompt": "a: cat, b: dog"}),
        ("", {"prompt": ""}),
        (
            'a\nSteps: "2, Seed: 1, Size: 3',
            {"prompt": "a", "Steps": '"2', "Seed": "1", "Size": "3"},
        ),
    ],
)
def test_what_does_not_fit_is_a_prompt(text, expected):
    assert parsed_parameters(text) == expected


def test_several_images_say_what_they_share():
    other = WEB_UI.replace("Steps: 20", "Steps: 30").replace("Seed: 7", "Seed: 8")
    shared = parsed_parameters(shared_parameters([WEB_UI, other]))
    gone = ("Steps", "Seed")
    assert shared == {k: v for k, v in parsed_parameters(WEB_UI).items() if k not in gone}
    assert parsed_parameters(shared_parameters([WEB_UI])) == parsed_parameters(WEB_UI)
    assert shared_parameters([WEB_UI, WEB_UI.replace("a cat", "a dog")]) == ""
    assert shared_parameters([WEB_UI, ""]) == shared_parameters([]) == ""


def test_an_image_of_another_tool_tells_what_it_says(tmp_path):
    info = PngInfo()
    info.add_text("parameters", WEB_UI)
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png", pnginfo=info)
    assert read_record(tmp_path / "a.png")["Seed"] == "7"
    assert CHUNK not in read_record(tmp_path / "a.png")
