"""The command line on the embedded backbone, as it is after an installation."""

from pathlib import Path

from PIL import Image

from asyncdiff_cli.engine import REGISTRY
from asyncdiff_cli.engine.backbones.editions import GONE
from asyncdiff_cli.engine.backbones.registry import MINI_DIRECTORY as MINI
from asyncdiff_cli.engine.drawing.provenance import read_provenance, save_png
from asyncdiff_cli.engine.policies.specs import parse_policy
from asyncdiff_cli.engine.prompts.mini import EXAMPLES


def test_known_words_are_drawn_without_a_word(asyncdiff):
    prompts = "a cat", "a kitten on a yellow background", "an octopus and a rocket"
    outcome = asyncdiff("sample", *prompts, "--steps", 2, "--json")
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.json["backbone"] == "mini"
    for image in outcome.json["images"]:
        record = read_provenance(image["path"])
        assert record.max_sequence_length == REGISTRY["mini"].max_sequence_length
        own = parse_policy(REGISTRY["mini"].policy, REGISTRY["mini"])
        assert record.policy == own.policy.to_dict()
        assert any(image["deviations"])


def test_other_words_are_drawn_with_a_warning(asyncdiff):
    outcome = asyncdiff("sample", "a flying octopuss", "--steps", 1)
    assert outcome.code == 0
    assert outcome.err.startswith("warning: mini does not know 'flying'")
    assert "'octopuss' (nearest: octopus" in outcome.err
    assert Path(outcome.out.strip()).is_file()


def test_words_of_negative_prompts_and_of_files_are_known_or_told(asyncdiff):
    told = asyncdiff("sample", "a cat", "--negative", "zzz", "--steps", 1)
    assert "warning: mini does not know 'zzz'" in told.err
    Path("p.txt").write_text("a cat\na zzz\n")
    settings = ("--steps", 1, "--size", 16, "--rewards", "sharpness", "--policies", "baseline")
    outcome = asyncdiff("eval", "--dataset", "p.txt", *settings)
    assert outcome.code == 0, outcome.err
    assert "warning: mini does not know 'zzz'" in outcome.err


def test_the_same_bytes_out_of_a_batch_of_three(asyncdiff):
    given = "--deviation", 0.5, "--gamma", 1.5, "--steps", 3
    asyncdiff("sample", "a cat", "-n", 3, "--batch-size", 3, *given)
    source = Path("outputs/0001-a-cat-seed1.png")
    assert len(read_provenance(source).batch) == 3
    outcome = asyncdiff("sample", "--from", source, "--out", "again")
    assert (outcome.code, outcome.err) == (0, "")
    assert Path("again", source.name).read_bytes() == source.read_bytes()


def test_a_comparison_and_its_redraw(asyncdiff):
    given = "--deviation", 0.5, "--gamma", 1.5, "--steps", 3
    asyncdiff("sample", "a cat", "--compare", "0,2", *given)
    panel = Path("outputs/0000-a-cat-compare.png")
    assert [cell.gamma for cell in read_provenance(panel).cells[0]] == [0, 1.5, 2]
    asyncdiff("sample", "--from", panel, "--out", "again")
    assert Path("again", panel.name).read_bytes() == panel.read_bytes()


def test_its_words_and_its_size_are_listed(asyncdiff):
    found = asyncdiff("backbones", "mini", "--json").json
    assert found["present"]
    assert {"cat", "apple", "octopus"} <= {*found["vocabulary"]["objects"]}
    assert "yellow" in found["vocabulary"]["colours"]
    out = asyncdiff("backbones", "mini").out
    assert "octopus" in out
    assert all(example in out for several in EXAMPLES.values() for example in several)


def test_a_dry_run_tells_what_measuring_finds(asyncdiff):
    given = ("sample", "a cat", "--policy", "fixed:0.5", "--size", 32, "--stepwise", "--json")
    measured = asyncdiff(*given, "--measure").json
    assert measured["seconds"] > 0
    assert measured["memory_bytes"] > measured["weights_bytes"]
    told = asyncdiff(*given, "--dry-run").json
    buffers = measured["weights_bytes"] - told["weights_bytes"]
    assert 0 <= buffers < 0.001 * told["weights_bytes"]
    assert told["memory_bytes"] is told["seconds"] is None
    assert "--measure" in told["memory_reason"]
    assert "--measure" in told["seconds_reason"]
    for found in (measured, told):
        for settings in found["settings"]:
            settings["policy"] = settings["policy"]["name"]
    same = ("dry_run", "images", "files", "backbone", "device", "dtype", "model", "settings")
    assert {name: told[name] for name in same} == {name: measured[name] for name in same}


def test_a_picture_of_weights_that_are_gone_says_who_has_them(asyncdiff):
    asyncdiff("sample", "a cat", "--steps", 1)
    source = Path("outputs/0000-a-cat-seed0.png")
    fingerprint, commit = next(iter(GONE.items()))
    record = read_provenance(source).model_copy(update={"fingerprint": fingerprint + 48 * "0"})
    save_png(Image.open(source), source, record)
    for command in (("sample", "--from", source), ("sample", "--from", source, "--dry-run")):
        outcome = asyncdiff(*command, "--out", "again")
        assert (outcome.code, outcome.err.count("\n")) == (2, 1)
        assert f"commit {commit} of asyncdiff has them: give --model-path" in outcome.err
    assert asyncdiff("sample", "--from", source, "--out", "b", "--model-path", MINI).code == 0


def test_a_picture_of_a_module_that_is_gone_asks_for_its_place(asyncdiff):
    asyncdiff("sample", "a cat", "--steps", 2)
    source = Path("outputs/0000-a-cat-seed0.png")
    policy = {"name": "learned", "source": "flux:lifted", "fingerprint": "0"}
    record = read_provenance(source).model_copy(update={"policy": policy})
    save_png(Image.open(source), source, record)
    outcome = asyncdiff("sample", "--from", source, "--out", "again")
    assert (outcome.code, outcome.err.count("\n")) == (2, 1)
    assert "the module that came with flux:lifted, which this version lacks" in outcome.err
    assert asyncdiff("sample", "--from", source, "--out", "again", "--deviation", 0).code == 0


def test_a_gamma_that_scales_nothing_is_told(asyncdiff):
    told = asyncdiff("sample", "a cat", "--policy", "baseline", "--compare", "0,2", "--steps", 1)
    assert told.err == (
        "warning: γ multiplies deviations, and this policy has none: give --deviation 0.5, or"
        " another --policy\n"
    )
    quiet = asyncdiff("sample", "a cat", "--compare", "0,2", "--steps", 1, "--out", "ahead")
    assert quiet.err == ""
