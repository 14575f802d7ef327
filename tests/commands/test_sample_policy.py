"""`asyncdiff sample --policy`: policies by name."""

import json
from pathlib import Path

import pytest

from asyncdiff_cli.engine import EachPolicy, policy_from_dict
from asyncdiff_cli.engine.drawing.provenance import read_provenance
from tests.helpers.modules import save_module

POLICIES = ["detail-daemon", "velocity-scale:0.8", "time-shift", "combined:0.5/0.9"]


def test_a_name_is_the_option(draw):
    for policy, option in (
        ("fixed:0.5@1.5", ("--deviation", 0.5, "--gamma", 1.5)),
        ("schedule:0/0.5/0.25", ("--schedule", "0,0.5,0.25")),
        ("baseline", ("--deviation", 0)),
    ):
        one = draw("a cat", "--policy", policy, "--out", "one").out.strip()
        other = draw("a cat", *option, "--out", "other").out.strip()
        assert Path(one).read_bytes() == Path(other).read_bytes()


@pytest.mark.parametrize("policy", POLICIES)
def test_it_is_drawn_again_to_the_byte(draw, policy):
    stock = draw("a cat", "a dog", "--policy", "baseline", "--steps", 5, "--out", "stock")
    drawn = draw("a cat", "a dog", "--policy", f"{policy}@1.5", "--steps", 5)
    assert drawn.code == 0
    for source, baseline in zip(drawn.out.split(), stock.out.split(), strict=True):
        record = read_provenance(source)
        assert (record.policy["name"], record.gamma) == (policy.partition(":")[0], 1.5)
        again = draw("--from", source, "--out", "again")
        assert (again.code, again.err) == (0, "")
        assert Path(again.out.strip()).read_bytes() == Path(source).read_bytes()
        assert Path(source).read_bytes() != Path(baseline).read_bytes()
        assert policy_from_dict(record.policy).to_dict() == record.policy


def test_gamma_0_of_any_is_the_stock_sampler(draw, asyncdiff):
    from PIL import Image, ImageChops

    stock = Image.open(draw("a cat", "--deviation", 0, "--out", "stock").out.strip())
    for policy in POLICIES:
        off = Image.open(draw("a cat", "--policy", f"{policy}@0", "--out", "off").out.strip())
        assert ImageChops.difference(stock, off).getbbox() is None


def test_the_same_noise_with_another_policy(draw):
    source = draw("a cat", "a dog", "--gamma", 1.5).out.split()[1]
    for policy, name in (
        ("detail-daemon@2", "0001-a-dog-seed1-policy-detail-daemon-gamma2.png"),
        ("fixed:-0.5", "0001-a-dog-seed1-policy-fixed--0.5.png"),
        ("combined:0.5/0.9", "0001-a-dog-seed1-policy-combined-0.5-0.9.png"),
    ):
        outcome = draw("--from", source, "--policy", policy, "--out", "new")
        assert outcome.out == f"new/{name}\n"
    record = read_provenance("new/0001-a-dog-seed1-policy-detail-daemon-gamma2.png")
    assert (record.policy["name"], record.gamma, record.prompt) == ("detail-daemon", 2, "a dog")
    assert read_provenance(f"new/{name}").gamma == 1.5


def test_a_comparison_of_its_gammas(draw):
    report = draw("a cat", "--policy", "detail-daemon@2", "--compare", "0,1", "--json").json
    assert [panel["gammas"] for panel in report["panels"]] == [[0, 1, 2]]


def test_lines_of_a_prompt_file_name_their_own(draw):
    lines = [
        {"prompt": "a cat", "policy": "velocity-scale:0.8"},
        {"prompt": "a dog", "deviation": 0.25},
        {"prompt": "a pig", "gamma": 0.5},
    ]
    Path("p.jsonl").write_text("\n".join(map(json.dumps, lines)))
    report = draw("--prompt-file", "p.jsonl", "--policy", "fixed:1@2", "--json").json
    found = [(image["deviations"], image["gamma"]) for image in report["images"]]
    assert found == [([0, 0], 2), ([0.25, 0.25], 2), ([1, 1], 0.5)]


def test_a_module_is_learned_or_lifted(draw, tmp_path):
    half = save_module(tmp_path / "half")
    lifted = save_module(tmp_path / "lifted", bound=1.0)
    one = draw("a cat", "--policy", f"learned:{half}", "--out", "one").out.strip()
    other = draw("a cat", "--tpm", half, "--out", "other").out.strip()
    assert Path(one).read_bytes() == Path(other).read_bytes()
    assert draw("a cat", "--policy", f"lifted:{lifted}").code == 0
    both = draw("a cat", "--policy", "fixed:0.5", "--tpm", half)
    assert (both.code, both.err.count("\n")) == (2, 1)
    assert "give one of a deviation, a schedule" in both.err


def test_images_of_several_policies_are_drawn_again(draw, pipelines):
    """A batch whose images each have their own policy: as an evaluation draws it."""
    from asyncdiff_cli.engine import DetailDaemon, TimeShift, load_backbone
    from asyncdiff_cli.engine.drawing.draw import execute
    from asyncdiff_cli.engine.drawing.plan import Batch, Plan, defaults
    from asyncdiff_cli.engine.drawing.provenance import Drawn

    backbone = load_backbone(str(pipelines["sd3"]))
    each = EachPolicy([DetailDaemon(0.3), TimeShift(), TimeShift()], [1.5, 1.0, 1.0])
    settings = vars(defaults(backbone.entry, 16)) | {"policy": each, "num_inference_steps": 4}
    drawn = tuple(Drawn(prompt="a cat", seed=3) for _ in each.policies)
    batch = Batch(type(defaults(backbone.entry, 16))(**settings), drawn, ("a.png", "b.png", None))
    sources = [written.path for written in execute(Plan((batch,)), backbone, Path("drawn"))]
    for source in sources:
        assert draw("--from", source, "--out", "again").code == 0
        assert Path("again", source.name).read_bytes() == source.read_bytes()
    outcome = draw("--from", sources[0], "--gamma", 2, "--out", "again")
    assert (outcome.code, outcome.err.count("\n")) == (2, 1)
    assert "each image has its own gamma" in outcome.err


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["detail-deamon"], "unknown policy 'detail-deamon'; did you mean 'detail-daemon'"),
        (["fixed"], "policy fixed needs a value, such as fixed:0.5"),
        (["fixed:1.5"], "policy fixed: deviation 1.5 is outside [-1, 1]"),
        (["time-shift:x"], "policy time-shift: 'x' is not a number"),
        (["learned"], "no learned module is shipped for "),
        (["lifted:nowhere"], "there is no directory nowhere"),
        (["fixed:0.5@2", "--gamma", 2], "give gamma once"),
        (["fixed:0.5@nan"], "gamma is a finite number, not nan"),
        (["fixed:0.5", "--deviation", 0.5], "give one of a deviation, a schedule"),
        (["fixed:0.5", "--schedule", "0.5"], "give one of a deviation, a schedule"),
        (["fixed:0.5", "--bound", 1], "a bound is for a deviation or a schedule"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(draw, arguments, line):
    outcome = draw("a cat", "--policy", *arguments)
    assert (outcome.code, outcome.out) == (2, "")
    assert line in outcome.err
    assert outcome.err.count("\n") == 1


def test_a_half_bound_module_is_not_lifted(draw, tmp_path):
    outcome = draw("a cat", "--policy", f"lifted:{save_module(tmp_path / 'tpm')}")
    assert outcome.code == 2
    assert "has the bound 0.5" in outcome.err
