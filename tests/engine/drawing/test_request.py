"""Options, their conflicts, seeds and prompt files."""

import contextlib
import io
import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncdiff_cli.engine.drawing.request import parse_request
from asyncdiff_cli.engine.errors import InputError
from asyncdiff_cli.engine.fields import MAX_SEED
from asyncdiff_cli.engine.prompts.lines import read_prompts

finite = st.floats(-1, 1)


@given(st.floats())
def test_a_deviation_is_taken_if_and_only_if_it_is_in_the_bound(value):
    for bound in (0.5, 1.0):
        if abs(value) <= bound:
            assert parse_request(prompts=["x"], deviation=value, bound=bound).deviation == value
        else:
            with pytest.raises(InputError, match=r"outside|finite") as caught:
                parse_request(prompts=["x"], deviation=value, bound=bound)
            assert "\n" not in str(caught.value)


@given(st.lists(finite, min_size=1))
def test_a_schedule_is_read_back(values):
    text = ",".join(map(repr, values))
    assert parse_request(prompts=["x"], schedule=text).schedule == tuple(values)


@given(st.text(max_size=20))
def test_any_text_for_a_size_or_a_list_is_a_size_or_an_error(text):
    for option in ("size", "schedule", "compare"):
        with contextlib.suppress(InputError):
            assert getattr(parse_request(prompts=["x"], **{option: text}), option) is not None


@pytest.mark.parametrize(
    ("policy", "gamma", "expected"),
    [
        ("fixed:0.50", None, ("fixed:0.5", None)),
        ("fixed:0.5", 2.0, ("fixed:0.5", 2)),
        ("detail-daemon:0.1@1.5", None, ("detail-daemon", 1.5)),
        ("synchronous@0", None, ("baseline", 0)),
    ],
)
def test_a_policy_by_name_brings_its_gamma(policy, gamma, expected):
    request = parse_request(prompts=["x"], policy=policy, gamma=gamma)
    assert (request.policy, request.gamma) == expected


def test_a_line_is_stronger_than_the_request(tmp_path):
    path = tmp_path / "p.jsonl"
    lines = [{"policy": "fixed:1@2"}, {"gamma": 0.5}, {"deviation": 1}, {}]
    path.write_text("\n".join(json.dumps({"prompt": "x", **line}) for line in lines))
    found = [p.options for p in parse_request(prompt_file=path, policy="baseline@3").pictures]
    assert [(o.policy, o.deviation, o.gamma) for o in found] == [
        ("fixed:1", None, 2),
        ("baseline", None, 0.5),
        (None, 1, 3),
        ("baseline", None, 3),
    ]


@given(
    counts=st.lists(st.integers(1, 4), min_size=1, max_size=4),
    seed=st.integers(0, 100),
)
def test_seeds_run_on_over_the_whole_request(tmp_path_factory, counts, seed):
    path = tmp_path_factory.getbasetemp() / "counts.jsonl"
    lines = [{"prompt": f"p{i}", "num_images": n} for i, n in enumerate(counts)]
    path.write_text("\n".join(map(json.dumps, lines)))
    found = parse_request(prompt_file=path, seed=seed).pictures
    assert [p.seed for p in found] == list(range(seed, seed + sum(counts)))
    assert [p.number for p in found] == list(range(sum(counts)))
    assert [p.prompt for p in found] == [f"p{i}" for i, n in enumerate(counts) for _ in range(n)]


def test_a_line_with_a_seed_counts_from_it(tmp_path):
    path = tmp_path / "p.jsonl"
    path.write_text('{"prompt": "a", "seed": 50}\n{"prompt": "b"}\n')
    found = parse_request(prompt_file=path, num_images=2).pictures
    assert [(p.prompt, p.seed) for p in found] == [("a", 50), ("a", 51), ("b", 2), ("b", 3)]


def test_seeds_do_not_overflow():
    with pytest.raises(InputError, match="seeds run beyond"):
        _ = parse_request(prompts=["x"], seed=MAX_SEED, num_images=2).pictures


def test_plain_text_is_one_prompt_a_line(tmp_path):
    path = tmp_path / "prompts.txt"
    path.write_bytes("\ufeffa cat\r\n\n  # no prompt\n  a Löwe  \n{ no json\n".encode())
    assert [line.prompt for _, line in read_prompts(path)] == ["a cat", "a Löwe", "{ no json"]


def test_a_dash_is_stdin(monkeypatch):
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b'{"prompt": "a"}\n{}')))
    with pytest.raises(InputError, match="stdin:2: prompt: Field required"):
        read_prompts(Path("-"))


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere it is no pipe")
def test_a_shells_pipe_is_read_and_a_named_one_is_not_waited_for(tmp_path):
    end, into = os.pipe()
    os.write(into, b"a cat\n")
    os.close(into)
    assert [line.prompt for _, line in read_prompts(Path(f"/dev/fd/{end}"))] == ["a cat"]
    os.close(end)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="not a regular file"):
        read_prompts(tmp_path / "pipe")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "holds no prompt"),
        (b"# only this\n", "holds no prompt"),
        (b"\xff\xfe\x00", "is not UTF-16"),
        (b"caf\xe9", "is not UTF-8"),
        ("a cat".encode("utf-16-le"), "holds NUL"),
        (b"null", "p.jsonl:1: a line is an object"),
        (b'{"prompt": "a", "prompt": "b"}', "p.jsonl:1: not JSON: 'prompt' is there twice"),
        (b'{"prompt": null}', "p.jsonl:1: prompt: Input should be a valid string"),
        (b'{"prompt": "a", "seed": true}', "p.jsonl:1: seed: "),
        (b'{"prompt": "\\ud800"}', "p.jsonl:1: prompt: "),
        (b'{"prompt": "a\\u0000"}', "p.jsonl:1: prompt: "),
        (b"{" * 100_000, "p.jsonl:1: not JSON"),
        (b'{"prompt": "a", "seed": ' + b"9" * 5000 + b"}", "p.jsonl:1: not JSON"),
        (b'{"prompt": "a"}\nplain', "p.jsonl:2: not JSON"),
        (b'{"prompt": "a"}\n[1]', "p.jsonl:2: a line is an object"),
        (b'{"prompt": "a", "stepz": 3}', "p.jsonl:1: unknown key 'stepz'; did you mean 'steps'?"),
        (b'\n{"prompt": "a", "steps": 0}', "p.jsonl:2: steps: Input should be greater"),
        (b'{"prompt": "a", "deviation": 0.9, "bound": 0.5}', "p.jsonl:1: deviation 0.9 is outside"),
        (b'{"prompt": "a", "deviation": 0.1, "schedule": [0.2]}', "p.jsonl:1: give one of"),
        (b'{"prompt": "a", "policy": "fixed:0.1", "tpm": "a/x"}', "p.jsonl:1: give one of"),
        (b'{"prompt": "a", "policy": "fixed:1", "bound": 1}', "p.jsonl:1: a bound is for"),
        (b'{"prompt": "a", "policy": "fixd"}', "p.jsonl:1: unknown policy 'fixd'"),
        (b'{"prompt": "a", "policy": "fixed:1@2", "gamma": 2}', "p.jsonl:1: give gamma once"),
        (b'{"prompt": "a", "policy": 3}', "p.jsonl:1: policy: Input should be a valid string"),
        (b'{"prompt": " "}', "p.jsonl:1: prompt: a prompt is empty"),
        (b'{"prompt": "a", "image": ""}', "p.jsonl:1: image: it is empty"),
        (b'{"prompt": "a", "control_image": " "}', "p.jsonl:1: control_image: it is empty"),
        (b'{"prompt": "a", "gamma": NaN}', "p.jsonl:1: gamma: Input should be a finite"),
    ],
)
def test_a_bad_file_is_named_with_its_line(tmp_path, content, message):
    path = tmp_path / "p.jsonl"
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        _ = parse_request(prompt_file=path).pictures
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_line_outside_the_requests_bound_is_named(tmp_path):
    path = tmp_path / "p.jsonl"
    path.write_text('{"prompt": "a", "deviation": 0.9}')
    with pytest.raises(InputError, match=r"p.jsonl:1: deviation 0.9 is outside \[-0.5, 0.5\]"):
        _ = parse_request(prompt_file=path, bound=0.5).pictures
    with pytest.raises(InputError, match="cannot read"):
        _ = parse_request(prompt_file=tmp_path).pictures
