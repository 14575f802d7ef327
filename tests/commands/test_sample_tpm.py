"""`asyncdiff sample --tpm`: drawing with a trained module."""

from pathlib import Path

import pytest

from asyncdiff_cli.engine.drawing.provenance import read_provenance
from tests.helpers.modules import save_module


def test_each_image_and_step_has_its_own_deviation(draw, tmp_path):
    module = save_module(tmp_path / "tpm")
    found = draw("a cat", "a dog", "--tpm", module, "--steps", 4, "--json").json
    first, second = (image["deviations"] for image in found["images"])
    assert len(first) == 3
    assert len({*first, *second}) == 6
    assert all(0 < abs(d) <= 0.5 for d in (*first, *second))


def test_gamma_scales_it_and_0_is_the_stock_sampler(draw, tmp_path):
    module = save_module(tmp_path / "tpm")
    stock = draw("a cat", "--gamma", 0, "--out", "stock").out.strip()
    off = draw("a cat", "--tpm", module, "--gamma", 0, "--out", "off").out.strip()
    on = draw("a cat", "--tpm", module, "--gamma", 2, "--out", "on").out.strip()
    grids = [read_provenance(path).cond_sigmas for path in (stock, off, on)]
    assert grids[0] == grids[1] != grids[2]


def test_it_is_drawn_again_to_the_byte(draw, asyncdiff, tmp_path):
    source = Path(draw("a cat", "--tpm", save_module(tmp_path / "tpm")).out.strip())
    policy = read_provenance(source).policy
    assert (policy["name"], policy["source"]) == ("learned", str(tmp_path / "tpm"))
    outcome = asyncdiff("sample", "--from", source, "--out", "again", "--model-path",
                        read_provenance(source).backbone)  # fmt: skip
    assert outcome.code == 0
    assert (Path("again") / source.name).read_bytes() == source.read_bytes()


def test_another_module_in_its_place_is_refused_unless_another_policy_is_asked_for(
    draw, asyncdiff, tmp_path
):
    source = draw("a cat", "--tpm", save_module(tmp_path / "tpm")).out.strip()
    where = ("--model-path", read_provenance(source).backbone, "--out", "again")
    save_module(tmp_path / "tpm", seed=2)
    outcome = asyncdiff("sample", "--from", source, *where)
    assert outcome.code == 2
    assert "is not the one that was used" in outcome.err
    assert asyncdiff("sample", "--from", source, *where, "--deviation", 0.5).code == 0


@pytest.mark.parametrize("other", [("--deviation", 0.5), ("--schedule", "0,1"), ("--bound", 1)])
def test_it_excludes_the_other_policies(draw, tmp_path, other):
    outcome = draw("a cat", "--tpm", save_module(tmp_path / "tpm"), *other)
    assert outcome.code == 2
    assert len(outcome.err.splitlines()) == 1


def test_a_module_of_another_backbone_is_refused_with_the_numbers(draw, tmp_path):
    outcome = draw("a cat", "--tpm", save_module(tmp_path / "tpm", prompt_channels=48))
    assert outcome.code == 2
    assert "48 prompt channels" in outcome.err


def test_what_is_no_module_is_refused(draw, tmp_path):
    assert draw("a cat", "--tpm", tmp_path).code == 2
    assert draw("a cat", "--tpm", tmp_path / "nowhere").code == 2
    assert draw("a cat", "--tpm", "flux").code == 2
    module = save_module(tmp_path / "tpm")
    (module / "model.safetensors").write_bytes(b"torn")
    outcome = draw("a cat", "--tpm", module)
    assert outcome.code == 1
    assert "damaged" in outcome.err


def test_a_line_of_a_prompt_file_may_name_one(draw, tmp_path):
    module = save_module(tmp_path / "tpm")
    Path("prompts.jsonl").write_text(
        f'{{"prompt": "a cat", "tpm": "{module}"}}\n{{"prompt": "a dog", "deviation": 0.25}}\n'
    )
    images = draw("--prompt-file", "prompts.jsonl", "--deviation", 1, "--json").json["images"]
    assert images[1]["deviations"] == [0.25, 0.25]
    assert len({*images[0]["deviations"]}) == 2
