"""`asyncdiff inspect`."""

import json

import pytest
from PIL import Image

from asyncdiff_cli.engine.drawing.provenance import CHUNK, read_provenance


def test_an_image_tells_what_it_was_drawn_from(draw, asyncdiff):
    draw("a cat", "a dog", "--gamma", 1.5, "--deviation", 0.5, "--seed", 7)
    path = "outputs/0001-a-dog-seed8.png"
    outcome = asyncdiff("inspect", path)
    assert (outcome.code, outcome.err) == (0, "")
    lines = dict(line.split(maxsplit=1) for line in outcome.out.splitlines())
    assert (lines["prompt"], lines["seed"], lines["gamma"]) == ("a dog", "8", "1.5")
    assert lines["policy"] == "name fixed, deviation 0.5"
    assert lines["deviations"] == "0.5 0.5"
    record = asyncdiff("inspect", path, "--json").json
    assert record == json.loads(read_provenance(path).model_dump_json())


def test_a_panel_tells_of_its_rows_and_columns(draw, asyncdiff):
    draw("a cat", "-n", 2, "--compare", "0,2")
    outcome = asyncdiff("inspect", "outputs/0000-a-cat-compare.png")
    lines = dict(line.split(maxsplit=1) for line in outcome.out.splitlines())
    assert (lines["seed"], lines["gamma"]) == ("0, 1", "0 2")
    record = asyncdiff("inspect", "outputs/0000-a-cat-compare.png", "--json").json
    assert [[cell["gamma"] for cell in row] for row in record["cells"]] == [[0, 2]] * 2


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (None, "carries no asyncdiff provenance"),
        ("{}", "provenance is damaged: backbone: Field required"),
        ('{"cells":[]}', "provenance is damaged: cells: "),
        ('{"cells":[[]]}', "provenance is damaged: cells.0: "),
    ],
)
def test_another_image_is_refused(asyncdiff, text, line):
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    if text is not None:
        info.add_itxt(CHUNK, text)
    Image.new("RGB", (4, 4)).save("other.png", pnginfo=info)
    for command in (["inspect"], ["sample", "--from"]):
        outcome = asyncdiff(*command, "other.png")
        assert (outcome.code, outcome.out) == (2, "")
        assert line in outcome.err
        assert outcome.err.count("\n") == 1
