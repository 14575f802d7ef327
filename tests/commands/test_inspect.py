"""`asyncdiff inspect`."""

import json
from pathlib import Path

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from asyncdiff_cli.engine.drawing.parameters import parsed_parameters
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


def parameters(path):
    with Image.open(path) as image:
        assert not image.getexif()
        return image.info.get("parameters")


def test_other_tools_read_what_an_image_was_drawn_with(draw, asyncdiff):
    draw("a cat: red", "--gamma", 1.5, "--deviation", 0.5, "--negative", "a dog", "--guidance", 3)
    (path,) = Path("outputs").iterdir()
    prompt, negative, values = parameters(path).splitlines()
    assert (prompt, negative) == ("a cat: red", "Negative prompt: a dog")
    taken = parsed_parameters(parameters(path))
    record = read_provenance(path)
    assert values.startswith(f"Steps: {record.num_inference_steps}, Sampler: Euler, CFG scale: 3,")
    assert taken["Size"] == f"{record.width}x{record.height}"
    assert taken["Model"] == Path(record.backbone).name
    assert (taken["Seed"], taken["Async policy"], taken["Async gamma"]) == ("0", "fixed", "1.5")
    image = Image.open(path)
    info = PngInfo()
    info.add_itxt("parameters", parameters(path))
    image.save("other.png", pnginfo=info)
    assert asyncdiff("inspect", "other.png", "--json").json == taken
    lines = dict(
        line.split(maxsplit=1) for line in asyncdiff("inspect", "other.png").out.splitlines()
    )
    assert lines["Seed"] == "0"


def test_a_panel_says_what_its_images_share(draw):
    draw("a cat", "--compare", "0,2", "-n", 2)
    taken = parsed_parameters(parameters("outputs/0000-a-cat-compare.png"))
    assert (taken["prompt"], taken["Sampler"]) == ("a cat", "Euler")
    assert not {"Seed", "Async gamma"} & taken.keys()
    draw("a cat", "--compare", "0,2", "--no-parameters", "--out", "none")
    assert parameters("none/0000-a-cat-compare.png") is None


def test_guidance_that_the_model_is_told_is_not_called_cfg(draw):
    draw("a cat", "--guidance", 3.5, family="flux")
    (path,) = Path("outputs").iterdir()
    taken = parsed_parameters(parameters(path))
    assert (taken["CFG scale"], taken["Distilled CFG Scale"]) == ("1", "3.5")


@pytest.mark.parametrize("told", [True, False])
def test_an_image_is_drawn_again_to_the_byte_with_or_without_them(draw, told):
    draw("a cat", *(() if told else ("--no-parameters",)))
    (path,) = Path("outputs").iterdir()
    assert (parameters(path) is not None) == told
    draw("--from", path, "--out", "again")
    assert (Path("again") / path.name).read_bytes() == path.read_bytes()
    draw("--from", path, "--out", "other", "--no-parameters" if told else "--parameters")
    assert (parameters(Path("other") / path.name) is None) == told


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
    info = PngInfo()
    if text is not None:
        info.add_itxt(CHUNK, text)
    Image.new("RGB", (4, 4)).save("other.png", pnginfo=info)
    for command in (["inspect"], ["sample", "--from"]):
        outcome = asyncdiff(*command, "other.png")
        assert (outcome.code, outcome.out) == (2, "")
        assert line in outcome.err
        assert outcome.err.count("\n") == 1
