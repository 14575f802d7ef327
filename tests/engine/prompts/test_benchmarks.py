"""The prompts of benchmarks, as their repositories have them."""

import hashlib
import json

import pytest

from asyncdiff_cli.engine.errors import AsyncDiffError, InputError
from asyncdiff_cli.engine.prompts import benchmarks
from asyncdiff_cli.engine.prompts.load import (
    load_benchmark_prompts,
    load_evaluation_prompts,
    load_prompts,
)
from tests.helpers.scorers import LINES, write_benchmark


def test_a_file_of_objects(tmp_path):
    file = write_benchmark("geneval", tmp_path)
    prompts = load_evaluation_prompts("geneval", path=file)
    assert prompts.texts == tuple(line["prompt"] for line in LINES["geneval"])
    assert prompts.categories == ("single_object", "colors", "colors")
    known = load_benchmark_prompts("geneval", path=file)
    assert [prompt.values for prompt in known] == LINES["geneval"]


def test_a_directory_of_texts(tmp_path):
    known = load_benchmark_prompts("dpg", path=write_benchmark("dpg", tmp_path))
    assert [(prompt.name, prompt.prompt) for prompt in known] == [
        (stem, f"A long prompt, {stem}.") for stem in ("10", "9", "COCOval2014000000000042")
    ]


def test_a_list_for_each_style(tmp_path):
    path = write_benchmark("hpsv2", tmp_path)
    known = load_benchmark_prompts("hpsv2", path=path)
    assert [prompt.name for prompt in known][:3] == [
        "anime/00000",
        "anime/00001",
        "concept-art/00000",
    ]
    assert set(load_evaluation_prompts("hpsv2", path=path).categories) == {
        *("anime", "concept-art", "paintings", "photo")
    }


def test_it_is_downloaded_once_and_checked(tmp_path, monkeypatch):
    file = write_benchmark("geneval2", tmp_path / "there")
    text = file.read_bytes()
    files = benchmarks.BENCHMARKS["geneval2"]
    sha256 = hashlib.sha256(text).hexdigest()
    own = files._replace(url=file.as_uri(), sha256=sha256)
    monkeypatch.setitem(benchmarks.BENCHMARKS, "geneval2", own)
    for _ in range(2):
        prompts = load_evaluation_prompts("geneval2", data_dir=tmp_path / "cache")
        assert len(prompts) == 2
        file.unlink(missing_ok=True)
    (tmp_path / "cache" / "geneval2" / "prompts.jsonl").write_text("{}")
    with pytest.raises(AsyncDiffError, match="SHA-256"):
        load_evaluation_prompts("geneval2", data_dir=tmp_path / "cache")


@pytest.mark.parametrize("name", ["dpg", "hpsv2"])
def test_what_is_not_downloaded_says_what_to_give(name):
    with pytest.raises(InputError, match=f"{name} is not downloaded: give --prompts with the dir"):
        load_evaluation_prompts(name)


def test_nothing_is_trained_on_a_benchmark(tmp_path):
    file = write_benchmark("geneval", tmp_path)
    with pytest.raises(InputError, match="geneval is a benchmark: nothing is trained on it"):
        load_prompts("geneval", "train", path=file)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("geneval", '{"prompt": "a cat"}', "prompts.jsonl:1: tag: Field required"),
        ("geneval2", '{"prompt": "a cat"}', "prompts.jsonl:1: vqa_list: Field required"),
        ("geneval", json.dumps({**LINES["geneval"][0], "prompt": " "}), "prompts.jsonl:1: prompt"),
    ],
)
def test_a_file_of_something_else(tmp_path, name, text, message):
    file = tmp_path / "prompts.jsonl"
    file.write_text(text)
    with pytest.raises(InputError, match=message):
        load_evaluation_prompts(name, path=file)


def test_directories_of_something_else(tmp_path):
    with pytest.raises(InputError, match=r"holds no prompt: give the directory dpg_bench/prompts"):
        load_evaluation_prompts("dpg", path=tmp_path)
    with pytest.raises(InputError, match=r"cannot read .*anime.json"):
        load_evaluation_prompts("hpsv2", path=tmp_path)
    (tmp_path / "anime.json").write_text('{"a": 1}')
    with pytest.raises(InputError, match=r"anime.json is no list of prompts"):
        load_evaluation_prompts("hpsv2", path=tmp_path)
    (tmp_path / "1.txt").write_text(" \n")
    with pytest.raises(InputError, match=r"1.txt: prompt"):
        load_evaluation_prompts("dpg", path=tmp_path)
