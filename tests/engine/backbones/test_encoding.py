"""What of a prompt no text encoder reads."""

import warnings

import pytest
import torch

from asyncdiff_cli import app
from asyncdiff_cli.engine import AsyncDiffWarning
from asyncdiff_cli.engine.backbones.adapters.encoding import warn_of_cuts
from tests.conftest import TINY, make_case

WORDS = "zero one two three four five six seven eight nine ten eleven"


def told(adapter, prompts, length):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warn_of_cuts(adapter.readers(length), prompts)
    return [str(warning.message) for warning in caught if warning.category is AsyncDiffWarning]


@pytest.mark.parametrize("family", TINY)
def test_what_is_told_to_be_cut_is_what_changes_nothing(family):
    adapter, length = make_case(family).backbone.adapter, 40
    if family == "qwen-image":  # a token per letter of the template, in place of 34
        length += adapter.pipe.prompt_template_encode.index("{}") - 34
    (line,) = told(adapter, [WORDS], length)
    cuts = [reader.cut(WORDS) for reader in adapter.readers(length)]
    lost = max(cuts, key=lambda own: own[0])
    assert f"the last {len(lost)} of" in line
    place = lost[0]
    assert place > 1
    expected = encoded(adapter, WORDS, length)
    assert same(encoded(adapter, WORDS[:place] + "x" * (len(WORDS) - place), length), expected)
    assert not same(encoded(adapter, f"{WORDS[: place - 1]}q{WORDS[place:]}", length), expected)


def encoded(adapter, text, length):
    none = dict.fromkeys(
        f"{branch}{name}"
        for branch in ("", "negative_")
        for name in ("prompt_embeds", "pooled_prompt_embeds", "prompt_embeds_mask")
    )
    with torch.no_grad():
        text = adapter.encode([text], None, none, False, length)
    return [value for value in vars(text).values() if value is not None]


def same(one, other):
    return all(map(torch.equal, one, other))


def test_what_t5_reads_is_not_cut_by_clip():
    case = make_case("sd3")
    assert told(case.backbone.adapter, [WORDS], 200) == []
    case.pipe.text_encoder_3 = None
    (line,) = told(case.backbone.adapter, [WORDS], 200)
    assert line.startswith("CLIP takes 48 tokens: the last ")
    assert line.endswith("are cut, from 'eleven' on")


def test_each_command_tells_it_once(tmp_path, capsys):
    prompt = " ".join(["a red cat"] * 8)
    run = ["sample", prompt, prompt, "--steps", "1", "--out", str(tmp_path / "drawn")]
    assert app.run(run) == 0
    file = tmp_path / "prompts.txt"
    file.write_text(prompt + "\n")
    evaluated = ["--policies", "baseline", "--rewards", "noise", "--steps", "1"]
    store = ["--out", str(tmp_path / "store")]
    first = capsys.readouterr().err
    assert app.run(["eval", "--dataset", str(file), *evaluated, *store]) == 0
    for error in (first, capsys.readouterr().err):
        lines = [line for line in error.splitlines() if "are cut" in line]
        assert len(lines) == 1, error
        assert lines[0].startswith("warning: CLIP takes 24 tokens: the last 2 of 'a red cat a red")
        assert lines[0].endswith("are cut, from 'red' on")
