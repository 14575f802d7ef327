"""`asyncdiff sample --image`, on a tiny pipeline of SD3."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusion3Img2ImgPipeline
from PIL import Image, ImageOps

from asyncdiff_cli.engine.drawing.parameters import parsed_parameters
from asyncdiff_cli.engine.drawing.provenance import read_provenance, text_chunks
from tests.helpers.flow_pipelines import picture, stock_image

NAME = "0000-a-cat-seed0.png"


@pytest.fixture(autouse=True)
def image(draw):
    """An image that is wider than it is high, in the directory that is drawn in."""
    picture(side=60).resize((80, 60)).save("in.png")


def test_without_deviations_it_is_the_stock_pipeline_s_to_the_bit(draw, pipelines):
    assert (
        draw("a cat", "--image", "in.png", "--strength", 0.7, "--gamma", 0, "--out", "o").code == 0
    )
    record = read_provenance(f"o/{NAME}")
    image = ImageOps.fit(Image.open("in.png"), (16, 16), Image.Resampling.LANCZOS)
    pipe = StableDiffusion3Img2ImgPipeline.from_pretrained(
        pipelines["sd3"], torch_dtype=torch.float32
    )
    stock = stock_image(pipe, record, image=[image], strength=0.7)
    assert np.array_equal(np.asarray(stock), np.asarray(Image.open(f"o/{NAME}")))


def test_it_is_recorded_and_drawn_again_from_the_same_image(draw, tmp_path):
    assert draw("a cat", "--image", "in.png", "--deviation", 0.5, "--out", "o").code == 0
    record = read_provenance(f"o/{NAME}")
    assert (record.image.path, record.image.strength) == (str(tmp_path / "in.png"), 0.6)
    assert (len(record.cond_sigmas), record.deviations) == (2, (0.5,))
    values = parsed_parameters(text_chunks(f"o/{NAME}")["parameters"])
    assert values["Denoising strength"] == "0.6"

    def again(*options):
        return draw("--from", f"o/{NAME}", "--out", "again", *options)

    assert again().code == 0
    assert Path(f"again/{NAME}").read_bytes() == Path(f"o/{NAME}").read_bytes()
    Path("in.png").rename("moved.png")
    refused = again()
    assert refused.code == 2
    assert "in.png, which was drawn from: give --image FILE" in refused.err
    assert again("--image", "moved.png").code == 0
    assert Path(f"again/{NAME}").read_bytes() == Path(f"o/{NAME}").read_bytes()
    assert again("--image", "moved.png", "--strength", 1).code == 0
    stronger = read_provenance("again/0000-a-cat-seed0-strength1.png")
    assert len(stronger.cond_sigmas) == 3
    picture(1).save("other.png")
    refused = again("--image", "other.png")
    assert refused.code == 2
    assert "other.png is another image than the one that was drawn from" in refused.err


def test_each_line_of_a_file_has_its_own(draw):
    picture(1).save("other.png")
    lines = [{"prompt": "a cat", "image": name} for name in ("in.png", "other.png")]
    lines.append({"prompt": "a dog", "image": "in.png", "strength": 0.4, "seed": 0})
    Path("p.jsonl").write_text("\n".join(map(json.dumps, lines)))
    outcome = draw("--prompt-file", "p.jsonl", "--json")
    paths = [image["path"] for image in outcome.json["images"]]
    images = [read_provenance(path).image for path in paths]
    assert [(Path(image.path).name, image.strength) for image in images] == [
        ("in.png", 0.6),
        ("other.png", 0.6),
        ("in.png", 0.4),
    ]
    assert {s["image"]["sha256"] for s in outcome.json["settings"]} == {i.sha256 for i in images}
    Path("p.jsonl").write_text(json.dumps(lines[0]) + '\n{"prompt": "a dog"}\n')
    refused = draw("--prompt-file", "p.jsonl")
    assert (refused.code, "others have none: draw them apart" in refused.err) == (2, True)
    Path("p.jsonl").write_text('{"prompt": "a dog", "image": 5}')
    refused = draw("--prompt-file", "p.jsonl")
    assert (refused.code, "image: Input is not a valid path for Path" in refused.err) == (2, True)


def test_beside_the_stock_sampler_and_at_several_gammas(draw):
    outcome = draw("a cat", "--image", "in.png", "--stepwise", "--deviation", 0.5, "--json")
    assert outcome.code == 0
    assert len(list(Path("outputs").glob("*stepwise*"))) == 1
    assert draw("a cat", "--image", "in.png", "--compare", "0,1", "--out", "c").code == 0
    panel = read_provenance(next(Path("c").glob("*-compare.png")))
    assert [cell.gamma for cell in panel.cells[0]] == [0, 1]


def test_a_picture_of_noise_alone_takes_no_image(draw):
    assert draw("a cat", "--out", "o").code == 0
    refused = draw("--from", f"o/{NAME}", "--image", "in.png", "--out", "again")
    assert (refused.code, "this one was from noise" in refused.err) == (2, True)
    refused = draw("--from", f"o/{NAME}", "--strength", 0.5, "--out", "again")
    assert (refused.code, "give --image FILE with it" in refused.err) == (2, True)
