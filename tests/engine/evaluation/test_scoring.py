import csv
import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from asyncdiff_cli.engine import AsyncDiffError, InputError, rewards
from asyncdiff_cli.engine.drawing.request import parse_request
from asyncdiff_cli.engine.evaluation.scoring import (
    ScoredPicture,
    Scores,
    find_files,
    prompts_of_pictures,
    score_files,
    write_csv,
)
from asyncdiff_cli.engine.prompts.compbench import T2I_CATEGORIES
from asyncdiff_cli.engine.prompts.load import load_evaluation_prompts
from asyncdiff_cli.engine.rewards import parse_reward_paths, parse_rewards


@pytest.fixture
def folder(tmp_path):
    """Three grey ramps of growing steepness, and a file that is none."""
    directory = tmp_path / "pictures"
    directory.mkdir()
    for step in (1, 2, 3):
        ramp = Image.linear_gradient("L").resize((64, 64)).point(lambda v, s=step: v * s // 3)
        ramp.save(directory / f"{step}.png")
    (directory / "notes.txt").write_text("no picture")
    return directory


def test_scores_are_those_of_the_reward(folder):
    found = score_files([folder], ["sharpness", "noise"])
    images = [Image.open(folder / f"{i}.png") for i in (1, 2, 3)]
    for name in ("sharpness", "noise"):
        assert found.values[name] == pytest.approx(rewards.score(name, images).tolist())
    assert found.values["sharpness"] == sorted(found.values["sharpness"])
    assert found.rewards["noise"] == {
        "revision": None,
        "dtype": "float32",
        "device": "cpu",
        "higher_is_better": True,
    }


def test_the_batch_size_does_not_matter(folder):
    calls = []
    found = score_files([folder], ["noise"], batch_size=2, on_scored=lambda *c: calls.append(c))
    assert found.values == score_files([folder], ["noise"]).values
    assert calls == [("noise", 2, 3), ("noise", 3, 3)]
    with pytest.raises(InputError, match="from 1 to 1,000,000, not 0"):
        score_files([folder], ["noise"], batch_size=0)


def test_mean_and_standard_error_by_hand():
    scores = Scores([], {"a": [1.0, 2.0, 6.0], "b": [4.0]})
    assert scores.summary() == {
        "a": {"mean": 3.0, "standard_error": math.sqrt(7) / math.sqrt(3), "n": 3},
        "b": {"mean": 4.0, "standard_error": None, "n": 1},
    }


def test_files_and_directories_are_found_once_and_in_order(folder):
    files = find_files([folder / "2.png", folder])
    assert [f.name for f in files] == ["2.png", "1.png", "3.png"]
    with pytest.raises(InputError, match="no file or directory"):
        find_files([folder / "4.png"])
    (folder / "empty").mkdir()
    with pytest.raises(InputError, match="no pictures"):
        find_files([folder / "empty"])


def test_prompts_go_by_line_or_by_name(folder, tmp_path):
    files, prompts = find_files([folder]), tmp_path / "prompts.txt"
    prompts.write_text("a cat\n\na dog\nan owl\n")
    assert prompts_of_pictures(prompts, files) == ["a cat", "a dog", "an owl"]
    lines = [{"image": f"pictures/{i}.png", "prompt": f"picture {i}"} for i in (3, 1, 2)]
    prompts.write_text("\n".join(map(json.dumps, lines)))
    assert prompts_of_pictures(prompts, files) == ["picture 1", "picture 2", "picture 3"]


ONE = '{"image": "1.png", "prompt": "a"}'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a cat\na dog\n", "2 prompts for 3 pictures"),
        ("", "holds no prompt"),
        ('{"image": "1.png", "prompt": "a cat"}', r"no prompt for .*2\.png \(of 2 without\)"),
        ('{"image": "1.png"}', r"prompts\.txt:1: prompt: Field required"),
        ('{"image": "1.png", "prompt": "a"}\n{"image": ["2.png"], "prompt": "b"}', r":2: image: "),
        ('{"image": null, "prompt": "a"}', r":1: image: "),
        ('{"image": " ", "prompt": "a"}', r":1: image: it is empty"),
        ('{"image": "1.png", "prompt": null}', r":1: prompt: "),
        ('{"image": "1.png", "prompt": 7}', r":1: prompt: "),
        ('{"image": "1.png", "prompt": "a"}\nnull', r":2: a line is an object"),
        (f'{ONE}\n{{"image": "pictures/1.png", "prompt": "b"}}', r":2: .* has a prompt at .*:1"),
        ("{nonsense", r"prompts\.txt:1: not JSON"),
        ('{"image": "1.png\\u0000", "prompt": "a"}', r":1: image: it holds a NUL character"),
        ('["a", "b", "c"]', r"prompts\.txt is a JSON array: give a prompt a line, or an object"),
        ('# three\n[\n"a",\n"b", "c"]', r"prompts\.txt is a JSON array"),
        ('a cat\na dog\n{"prompt": "an owl"}', r":3: this line is JSON, and the first one is text"),
    ],
)
def test_prompt_files_that_do_not_fit_are_refused(folder, tmp_path, text, message):
    (tmp_path / "prompts.txt").write_text(text)
    with pytest.raises(InputError, match=message):
        score_files([folder], ["noise"], prompts=tmp_path / "prompts.txt")


def test_pictures_of_one_name_keep_their_own_prompts(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("b", "c"):
        (tmp_path / name).mkdir()
        Image.new("RGB", (8, 8)).save(tmp_path / name / "0.png")
    lines = [{"image": "b/0.png", "prompt": "a cat"}, {"image": "c/0.png", "prompt": "a red rose"}]
    file = tmp_path / "p.jsonl"
    file.write_text("\n".join(map(json.dumps, lines)))
    found = score_files([Path("c"), tmp_path / "b"], ["noise"], prompts=Path("p.jsonl"))
    assert [picture.prompt for picture in found.pictures] == ["a red rose", "a cat"]
    file.write_text('{"image": "0.png", "prompt": "a cat"}')
    with pytest.raises(InputError, match=r"p\.jsonl:1: 0\.png may be .*b/0\.png or .*c/0\.png"):
        score_files([Path("b"), Path("c")], ["noise"], prompts=file)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_one_reader_for_every_command(tmp_path, encoding, end):
    """What `sample`, `score`, a data set and T2I-CompBench's lists read of the same file."""
    texts = ["a café", "a\x0cform\u2028feed\x85", "# a comment", "", " a dog "]
    content = end.join(texts).encode(encoding)
    for category in T2I_CATEGORIES:
        (tmp_path / f"{category}_val.txt").write_bytes(content)
    file = tmp_path / "color_val.txt"
    expected = ["a café", "a\x0cform\u2028feed", "a dog"]
    assert [p.prompt for p in parse_request(prompt_file=file).pictures] == expected
    assert prompts_of_pictures(file, [Path()] * 3) == expected
    assert load_evaluation_prompts(str(file)).texts == tuple(expected)
    t2i = load_evaluation_prompts("t2i-compbench", path=tmp_path)
    assert t2i.texts == tuple(expected * len(T2I_CATEGORIES))


def test_prompts_have_one_source(folder, tmp_path):
    with pytest.raises(InputError, match="exclude each other"):
        score_files([folder], ["noise"], prompt="a cat", prompts=tmp_path / "p.txt")
    with pytest.raises(InputError, match="cannot read"):
        score_files([folder], ["noise"], prompts=tmp_path / "p.txt")


def test_reward_names_and_paths_are_checked(folder):
    assert parse_rewards("noise, clip") == ["noise", "clip"]
    with pytest.raises(InputError, match="did you mean 'pickscore'"):
        parse_rewards("noise,pikscore")
    with pytest.raises(InputError, match="noise twice"):
        parse_rewards("noise,noise")
    with pytest.raises(InputError, match="is NAME=FILE"):
        parse_reward_paths(["clip"], ["clip"])
    with pytest.raises(InputError, match="unknown reward 'clip'"):
        parse_reward_paths(["clip=x.pt"], ["noise"])
    with pytest.raises(InputError, match=r"no file x\.pt"):
        parse_reward_paths(["clip=x.pt"], ["clip"])
    with pytest.raises(InputError, match="--reward-path names clip twice"):
        parse_reward_paths([f"clip={folder}"] * 2, ["clip"])


@given(
    st.lists(st.sampled_from([*rewards.AVAILABLE, "", "Clip"]) | st.text(max_size=8)).map(",".join)
)
def test_any_text_is_names_or_refused(text):
    names = [name.strip() for name in text.split(",")]
    if set(names) <= set(rewards.AVAILABLE) and len(set(names)) == len(names):
        assert parse_rewards(text) == names
    else:
        with pytest.raises(InputError):
            parse_rewards(text)


def test_a_score_that_is_no_number_names_the_picture(folder, monkeypatch):
    monkeypatch.setattr(
        "asyncdiff_cli.engine.rewards.noise.noise_level", lambda pixels: float("nan")
    )
    with pytest.raises(AsyncDiffError, match=r"1\.png: noise is nan"):
        score_files([folder], ["noise"])


def test_csv_is_complete_or_not_there(tmp_path, monkeypatch):
    pictures = [
        ScoredPicture(tmp_path / "a.png", 'a "cat", sitting'),
        ScoredPicture(tmp_path / "b.png", None),
    ]
    scores = Scores(pictures, {"noise": [-0.1, -2 / 3]})
    write_csv(scores, tmp_path / "out" / "scores.csv")
    with (tmp_path / "out" / "scores.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["path", "prompt", "noise"]
    assert rows[1][1:] == ['a "cat", sitting', "-0.1"]
    assert float(rows[2][2]) == -2 / 3
    monkeypatch.setattr("os.replace", lambda *args: (_ for _ in ()).throw(OSError(28, "full")))
    with pytest.raises(AsyncDiffError, match="cannot write"):
        write_csv(scores, tmp_path / "out" / "other.csv")
    assert [f.name for f in (tmp_path / "out").iterdir()] == ["scores.csv"]
