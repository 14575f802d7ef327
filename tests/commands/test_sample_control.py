"""`asyncdiff sample --controlnet`, on a tiny pipeline of SD3."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import SD3ControlNetModel, StableDiffusion3ControlNetPipeline
from PIL import Image

from asyncdiff_cli.engine.drawing.input_image import ControlImage
from asyncdiff_cli.engine.drawing.provenance import read_provenance
from asyncdiff_cli.engine.errors import InputError
from tests.helpers.flow_pipelines import picture, sd3_control, stock_image

NAME = "0000-a-cat-seed0.png"


@pytest.fixture(scope="module")
def saved_net(tmp_path_factory):
    path = tmp_path_factory.mktemp("net")
    sd3_control("StableDiffusion3ControlNetPipeline").pipe.controlnet.save_pretrained(path)
    return path


@pytest.fixture(autouse=True)
def net(draw, saved_net):
    """A net and what it is shown, in the directory that is drawn in."""
    picture().save("edges.png")
    return shutil.copytree(saved_net, "net")


@pytest.fixture
def controlled(draw):
    def call(*options, prompts=("a cat",)):
        return draw(*prompts, "--controlnet", "net", "--control-image", "edges.png", *options)

    return call


def test_without_deviations_it_is_the_stock_pipeline_s_to_the_bit(controlled, pipelines, net):
    assert controlled("--control-scale", 0.7, "--gamma", 0, "--out", "o").code == 0
    record = read_provenance(f"o/{NAME}")
    pipe = StableDiffusion3ControlNetPipeline.from_pretrained(
        pipelines["sd3"], controlnet=SD3ControlNetModel.from_pretrained(net)
    )
    torch.manual_seed(0)
    stock = stock_image(
        pipe, record, control_image=Image.open("edges.png"), controlnet_conditioning_scale=0.7
    )
    assert np.array_equal(np.asarray(stock), np.asarray(Image.open(f"o/{NAME}")))


def test_it_is_recorded_and_drawn_again_with_the_same_net_and_image(draw, controlled, tmp_path):
    assert controlled("--deviation", 0.5, "--out", "o").code == 0
    control = read_provenance(f"o/{NAME}").control
    assert (control.path, control.net, control.scale) == (
        str(tmp_path / "edges.png"),
        str(tmp_path / "net"),
        1.0,
    )

    def again(*options):
        return draw("--from", f"o/{NAME}", "--out", "again", *options)

    assert again().code == 0
    assert Path(f"again/{NAME}").read_bytes() == Path(f"o/{NAME}").read_bytes()
    assert again("--control-scale", 0.5).code == 0
    assert read_provenance("again/0000-a-cat-seed0-control_scale0.5.png").control.scale == 0.5
    picture(1).save("edges.png")
    refused = again()
    assert refused.code == 2
    assert "edges.png is another image" in refused.err
    assert "give --control-image FILE" in refused.err
    picture().save("edges.png")
    Path("net/other.json").write_text("{}")
    refused = again()
    assert refused.code == 2
    assert "net is another control net than the one that was drawn with" in refused.err
    Path("net/other.json").unlink()
    Path("net").rename("moved")
    refused = again()
    assert (refused.code, "neither a directory nor a repository" in refused.err) == (2, True)
    assert again("--controlnet", "moved", "--out", "moved-too").code == 0


def test_nothing_takes_the_place_of_a_repository_s_net(net):
    control = ControlImage.of("edges.png", net=f"alice/net@{'0' * 40}")
    with pytest.raises(InputError, match=r"alice/net@0+: leave out --controlnet"):
        control.at(None, str(net))


def test_each_line_of_a_file_has_its_own_image(draw):
    picture(1).save("other.png")
    lines = [{"prompt": "a cat", "control_image": "edges.png"}]
    lines.append({"prompt": "a dog", "control_image": "other.png", "control_scale": 0.4})
    Path("p.jsonl").write_text("\n".join(map(json.dumps, lines)))
    outcome = draw("--prompt-file", "p.jsonl", "--controlnet", "net", "--json")
    controls = [read_provenance(image["path"]).control for image in outcome.json["images"]]
    assert [(Path(control.path).name, control.scale) for control in controls] == [
        ("edges.png", 1.0),
        ("other.png", 0.4),
    ]
    assert [s["control"]["fingerprint"] for s in outcome.json["settings"]] == [
        control.fingerprint for control in controls
    ]


def test_at_several_gammas(controlled):
    assert controlled("--compare", "0,1", "--out", "c", "--steps", 2).code == 0
    panel = read_provenance(next(Path("c").glob("*-compare.png")))
    assert [cell.gamma for cell in panel.cells[0]] == [0, 1]


def test_a_dry_run_tells_of_it(asyncdiff, net):
    options = ("--controlnet", net, "--control-image", "edges.png", "--dry-run", "--json")
    told = asyncdiff("sample", "a cat", *options).json["settings"][0]["control"]
    assert (told["net"], told["scale"]) == (str(Path("net").absolute()), 1.0)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"_class_name": "FluxControlNetModel"}, "holds a FluxControlNetModel"),
        ({"_class_name": "UNet2DModel", "num_attention_heads": None}, "holds a UNet2DModel"),
        ({"num_attention_heads": 8}, "num_attention_heads is 8"),
    ],
)
def test_a_net_of_another_model(controlled, change, said):
    config = Path("net/config.json")
    config.write_text(json.dumps({**json.loads(config.read_text()), **change}))
    refused = controlled()
    assert (refused.code, said in refused.err) == (2, True)


def test_a_picture_that_was_drawn_without_takes_none(draw):
    assert draw("a cat", "--out", "o", "--steps", 1).code == 0
    options = ("--controlnet", "net", "--control-image", "edges.png", "--out", "again")
    refused = draw("--from", f"o/{NAME}", *options)
    assert (refused.code, "this image was drawn with none" in refused.err) == (2, True)
