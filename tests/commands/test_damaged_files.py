"""Files of another shape than ours, wherever one is read: one line that names the file."""

import json
import os
import re
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from asyncdiff_cli.engine.evaluation.store import Store
from tests.helpers.pictures import with_record
from tests.helpers.reporting import make_run
from tests.helpers.stores import SETTINGS, row

NAN = float("nan")
WHOLE = ["", "{", "null", "3", "[]", '"text"', "[" * 100_000, b"\xff\xfe{}", b"{}\x00"]
"""What no file of settings may be as a whole."""


def assert_refused(outcome, name):
    """One line which names the file, and no class of an exception."""
    assert outcome.code in (1, 2), outcome
    assert outcome.out == ""
    (line,) = outcome.err.splitlines()
    assert line.startswith("error: ")
    assert name in line
    assert len(line) < 1000
    assert not re.search(r"\w(Error|Exception)\b|--debug", line)


def write(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


def change(path, **changes):
    """Other values of keys of a JSON file; ... for none."""
    values = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({k: v for k, v in values.items() if v is not ...}))


@pytest.mark.parametrize("content", WHOLE)
def test_a_module_s_configuration(asyncdiff, module, content):
    write(module / "config.json", content)
    assert_refused(asyncdiff("sample", "a cat", "--tpm", module), "config.json")


@pytest.mark.parametrize(
    "changes",
    [
        *(
            {"width": value}
            for value in (None, [], {}, 0, -8, "16", 16.5, NAN, 10**8, 10**400, ...)
        ),
        *({"bound": value} for value in (None, [0.5], "half", NAN, 2, -1)),
        *({"latent_channels": value} for value in (None, [4], 0, ..., 8)),
        {"heads": 3},
        {"layers": 10**6},
        {"heads": ...},
    ],
)
def test_values_of_a_module_s_configuration(asyncdiff, module, changes):
    change(module / "config.json", **changes)
    assert_refused(asyncdiff("sample", "a cat", "--tpm", module), str(module))


@pytest.mark.parametrize("content", [b"", b"{", b"\x08" + b"\0" * 7 + b"[" * 8, b"\xff" * 64])
def test_a_module_s_weights(asyncdiff, module, content):
    (module / "model.safetensors").write_bytes(content)
    assert_refused(asyncdiff("sample", "a cat", "--tpm", module), str(module))


PARTS = (
    "model_index.json",
    "transformer/config.json",
    "vae/config.json",
    "scheduler/scheduler_config.json",
    "text_encoder/config.json",
    "tokenizer/tokenizer_config.json",
)
"""Those files of a pipeline that a test may change."""


@pytest.fixture
def pipeline(tmp_path, pipelines):
    path = tmp_path / "pipeline"
    path.mkdir()
    for entry in pipelines["sd3"].iterdir():
        (path / entry.name).symlink_to(entry)
    for name in PARTS:
        folder = (path / name).parent
        if folder.is_symlink():
            folder.unlink()
            shutil.copytree(pipelines["sd3"] / folder.name, folder)
        (path / name).unlink(missing_ok=True)
        shutil.copy(pipelines["sd3"] / name, path / name)
    return path


@pytest.mark.parametrize("content", WHOLE)
@pytest.mark.parametrize("name", ["model_index.json", "transformer/config.json", "vae/config.json"])
def test_a_pipeline_s_configuration(asyncdiff, pipeline, name, content):
    write(pipeline / name, content)
    assert_refused(asyncdiff("sample", "a cat", "--backbone", pipeline), str(pipeline))


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("model_index.json", {"_class_name": [1]}),
        ("model_index.json", {"_class_name": ...}),
        ("model_index.json", {"transformer": 0}),
        ("model_index.json", {"transformer": None}),
        ("model_index.json", {"scheduler": ["diffusers"]}),
        ("model_index.json", {"vae": ["diffusers", {}]}),
        ("model_index.json", {"vae": ["os", "system"]}),
        ("transformer/config.json", {"sample_size": [8]}),
        ("transformer/config.json", {"sample_size": 10**9}),
        ("transformer/config.json", {"num_layers": None}),
        ("transformer/config.json", {"num_layers": 3}),
        ("transformer/config.json", {"attention_head_dim": 0}),
        ("vae/config.json", {"block_out_channels": 5}),
        ("vae/config.json", {"block_out_channels": ...}),
        ("vae/config.json", {"block_out_channels": [8] * 1000}),
        ("vae/config.json", {"latent_channels": None}),
    ],
)
def test_values_of_a_pipeline_s_configuration(asyncdiff, pipeline, name, changes):
    change(pipeline / name, **changes)
    arguments = "sample", "a cat", "--backbone", pipeline, "--steps", 1, "--size", 16
    assert_refused(asyncdiff(*arguments), "")


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("model_index.json", {"scheduler": [None, None]}),
        ("model_index.json", {"vae": ["diffusers", ""]}),
        ("model_index.json", {"tokenizer": [None, None]}),
        ("model_index.json", {"text_encoder_2": ...}),
        ("model_index.json", {"text_encoder": ["antigravity", "Model"]}),
        ("transformer/config.json", {"num_layers": 10**9}),
        ("transformer/config.json", {"pos_embed_max_size": None}),
        ("transformer/config.json", {"pos_embed_max_size": 10**6}),
        ("vae/config.json", {"scaling_factor": None}),
        ("vae/config.json", {"scaling_factor": "1"}),
        ("vae/config.json", {"shift_factor": 10**30}),
        ("vae/config.json", {"norm_num_groups": -1}),
        ("vae/config.json", {"norm_num_groups": True}),
        ("scheduler/scheduler_config.json", {"base_image_seq_len": None}),
        ("scheduler/scheduler_config.json", {"max_shift": {"a": 1}}),
        ("scheduler/scheduler_config.json", {"shift": NAN}),
        ("text_encoder/config.json", {"num_hidden_layers": 10**9}),
        ("text_encoder/config.json", {"hidden_size": 10**9}),
        ("tokenizer/tokenizer_config.json", {"extra_ids": 10**9}),
    ],
)
def test_what_only_drawing_would_find_in_a_configuration(asyncdiff, pipeline, name, changes):
    change(pipeline / name, **changes)
    arguments = "sample", "a cat", "--backbone", pipeline, "--steps", 1, "--size", 16
    assert_refused(asyncdiff(*arguments), f"{pipeline / name} ")


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("scheduler/scheduler_config.json", {"base_shift": None}),
        ("scheduler/scheduler_config.json", {"base_image_seq_len": 4096}),
        ("tokenizer/tokenizer_config.json", {"model_max_length": [48]}),
        ("tokenizer/tokenizer_config.json", {"bos_token": 0}),
        ("tokenizer/tokenizer_config.json", {"pad_token": "none of its own"}),
        ("text_encoder/config.json", {"eos_token_id": None}),
        ("text_encoder/config.json", {"attention_dropout": "much"}),
    ],
)
def test_a_configuration_that_does_not_fit_the_others(asyncdiff, pipeline, name, changes):
    change(pipeline / name, **changes)
    arguments = "sample", "a cat", "--backbone", pipeline, "--steps", 1, "--size", 16
    assert_refused(asyncdiff(*arguments), "")


@pytest.mark.parametrize("content", [b"", b"not weights", b"PK\x03\x04", b"\x80\x02}q\x00."])
def test_a_reward_s_checkpoint(asyncdiff, tmp_path, content):
    (tmp_path / "clip.pt").write_bytes(content)
    Image.new("RGB", (32, 32)).save(tmp_path / "a.png")
    arguments = "score", "a.png", "--prompt", "a cat", "--rewards", "pickscore"
    outcome = asyncdiff(*arguments, "--reward-path", f"pickscore={tmp_path / 'clip.pt'}")
    assert_refused(outcome, "clip.pt")


def test_a_reward_s_checkpoint_of_other_weights(asyncdiff, tmp_path):
    save_file({"a": torch.zeros(2)}, tmp_path / "clip.safetensors")
    Image.new("RGB", (32, 32)).save(tmp_path / "a.png")
    arguments = "score", "a.png", "--prompt", "a cat", "--rewards", "pickscore"
    outcome = asyncdiff(*arguments, "--reward-path", f"pickscore={tmp_path / 'clip.safetensors'}")
    assert_refused(outcome, "pickscore")


@pytest.fixture
def store(tmp_path):
    store = Store.open(tmp_path / "store", SETTINGS)
    store.write([row(n, policy) for n in range(2) for policy in ("baseline", "fixed:0.5")])
    return store


@pytest.mark.parametrize("content", WHOLE)
def test_a_store_s_settings(asyncdiff, store, content):
    write(store.path / "settings.json", content)
    assert_refused(asyncdiff("report", store.path), "store")


@pytest.mark.parametrize(
    "changes",
    [
        *({"format": value} for value in ("1", None, [], NAN, ...)),
        *(
            {"rewards": value}
            for value in (None, ["noise"], {"noise": 1}, {"noise": {"a": {}}}, ...)
        ),
        {"rewards": {"seed": {}}},
        {"rewards": {"what": {}}},
        *({"backbone": value} for value in (None, ["mini"], {}, 0, ...)),
        *({"dataset": value} for value in ({}, [[1]])),
    ],
)
def test_values_of_a_store_s_settings(asyncdiff, store, changes):
    change(store.path / "settings.json", **changes)
    assert_refused(asyncdiff("report", store.path), "")


@pytest.mark.parametrize("column", ["provenance", "policy_settings"])
@pytest.mark.parametrize("content", ["", "{", "null", "3", "[]", "[" * 100_000])
def test_json_in_a_store_s_rows(asyncdiff, store, column, content):
    store.parts()[0].unlink()
    store.write([row(n, policy, **{column: content}) for n in range(2) for policy in ("baseline",)])
    assert_refused(asyncdiff("report", store.path), "store")


def test_settings_that_cannot_be_read_are_not_missing(asyncdiff, store):
    (store.path / "settings.json").unlink()
    os.mkfifo(store.path / "settings.json")
    outcome = asyncdiff("merge", store.path, "--out", "merged")
    path = store.path / "settings.json"
    assert outcome.err == f"error: cannot read {path}: it is not a regular file\n"


@pytest.mark.parametrize("shut", ["folder", "image"])
def test_what_may_not_be_read_is_named(asyncdiff, tmp_path, monkeypatch, shut):
    """As another user finds it, which those who run the tests may not be."""
    store = Store.open(tmp_path / "store", SETTINGS)
    store.write([row(image="images/a.png")])
    (store.path / "images").mkdir()
    (store.path / "images" / "a.png").touch()
    hidden = tmp_path / "loras" if shut == "folder" else store.path / "images" / "a.png"
    (tmp_path / "loras").mkdir()

    def refusing(call):
        def refuse(path, *arguments, **named):
            if Path(str(path)) == hidden:
                raise PermissionError(13, "Permission denied", str(path))
            return call(path, *arguments, **named)

        return refuse

    if shut == "folder":
        monkeypatch.setattr(os, "listdir", refusing(os.listdir))
        outcome = asyncdiff("sample", "a cat", "--lora", hidden, "--steps", 1)
    else:
        monkeypatch.setattr(Path, "open", refusing(Path.open))
        outcome = asyncdiff("merge", store.path, "--out", "merged")
    assert outcome.err == f"error: {hidden}: Permission denied\n"


def test_a_part_that_is_no_file(asyncdiff, store):
    os.mkfifo(store.path / "parts" / "000000-a.parquet")
    assert_refused(asyncdiff("report", store.path), "000000-a.parquet is not a file")


def test_an_image_of_a_size_that_none_has(asyncdiff, tmp_path):
    store = Store.open(tmp_path / "store", SETTINGS)
    store.write([row(image="images/a.png")])
    (store.path / "images").mkdir()
    with (store.path / "images" / "a.png").open("wb") as file:
        file.truncate(1 << 40)
    assert_refused(asyncdiff("merge", store.path, "--out", "merged"), "a.png has more than 1024")
    assert not Path("merged").exists()


@pytest.mark.parametrize("content", [text for text in WHOLE if isinstance(text, str)])
def test_a_picture_s_record(asyncdiff, picture, content):
    with_record(picture, content)
    for arguments in (("inspect", picture), ("sample", "--from", picture, "--out", "o")):
        assert_refused(asyncdiff(*arguments), picture.name)


def test_a_picture_s_record_of_a_batch_beyond_sense(asyncdiff, picture):
    record = asyncdiff("inspect", picture, "--json").json
    with_record(picture, json.dumps({**record, "batch": [{"prompt": "a", "seed": 1}] * 10_001}))
    for arguments in (("inspect", picture), ("sample", "--from", picture, "--dry-run")):
        assert_refused(asyncdiff(*arguments), "at most 10000 items")
    with_record(picture, json.dumps(record) + " " * (16 << 20))
    assert_refused(asyncdiff("inspect", picture), "more than 16 MiB")


@pytest.mark.parametrize(
    "changes",
    [
        *({"guidance_scale": value} for value in (NAN, -1.0, 1e30)),
        *({"gamma": value} for value in (NAN, float("inf"))),
        *({"num_inference_steps": value} for value in (0, -1, 10**9)),
        *({"max_sequence_length": value} for value in (0, -1, 10**9)),
        *({"width": value} for value in (0, -8, 10**9)),
        {"policy": {}},
        {"policy": {"name": ["fixed"]}},
        {"policy": {"name": "fixed", "deviation": {"a": 1}}},
        {"policy": {"name": "fixed", "deviation": NAN}},
        {"policy": {"name": "schedule", "deviations": None}},
        {"policy": {"name": "detail-daemon", "amount": "much"}},
        {"policy": {"name": "each", "policies": 3, "gammas": [1], "images": [1]}},
        {"policy": {"name": "each", "policies": [3], "gammas": [1], "images": [1]}},
        {"policy": {"name": "each", "policies": [{}], "gammas": [1], "images": [10**12]}},
        {"policy": {"name": "each", "policies": [], "gammas": [], "images": [10**12]}},
        {"policy": {"name": "each", "policies": [{"name": "learned", "source": ["mini"]}]}},
        {"policy": {"name": "learned", "source": ["mini"]}},
        {"policy": {"name": "learned", "source": "mini", "fingerprint": 3}},
        {"batch": [{"prompt": "a cat", "seed": -1}]},
    ],
)
def test_a_record_that_cannot_be_drawn_is_shown(asyncdiff, picture, changes):
    record = {**asyncdiff("inspect", picture, "--json").json, **changes}
    with_record(picture, json.dumps(record))
    shown = asyncdiff("inspect", picture, "--json")
    assert shown.code == 0
    json.loads(shown.out, parse_constant=pytest.fail)
    drawn = asyncdiff("sample", "--from", picture, "--out", "again")
    assert_refused(drawn, f"{picture.name} is damaged" if "policy" in changes else picture.name)


@pytest.fixture
def training(tmp_path):
    return make_run(tmp_path / "run")


@pytest.mark.parametrize(
    "line",
    [
        *("3", "null", "[]", "{", "[" * 100_000, '{"iteration": 1}}', b'{"iteration": \xff}'),
        *('{"iteration": null}', '{"rewards": {}}', '{"iteration": 1, "rewards": {"clip": 1}}'),
        *('{"iteration": 1, "held_out": 3}', '{"iteration": 1, "held_out": {"clip": {}}}'),
        *('{"iteration": NaN}', '{"iteration": 1, "rewards": {"clip": {"raw": 1.0}}}'),
    ],
)
def test_a_line_of_a_run_s_metrics(asyncdiff, training, line):
    content = (training / "metrics.jsonl").read_bytes()
    line = line if isinstance(line, bytes) else line.encode()
    (training / "metrics.jsonl").write_bytes(line + b"\n" + content)
    assert_refused(asyncdiff("report", training), "metrics.jsonl, line 1")


@pytest.mark.parametrize("content", [*WHOLE, "rewards: [a]", "iterations: {}", "a: &a [*a, *a]"])
def test_a_run_s_recipe(asyncdiff, training, content):
    write(training / "recipe.yaml", content)
    assert_refused(asyncdiff("report", training), "recipe.yaml")
    assert_refused(asyncdiff("train", "--resume", training), "recipe.yaml")


@pytest.mark.parametrize("content", WHOLE)
def test_a_vocabulary(asyncdiff, pipeline, content):
    write(pipeline / "vocabulary.json", content)
    arguments = "sample", "a cat", "--backbone", pipeline, "--steps", 1, "--size", 16
    assert_refused(asyncdiff(*arguments), "vocabulary.json")


@pytest.mark.parametrize("content", WHOLE)
def test_a_file_of_captions(asyncdiff, tmp_path, content):
    write(tmp_path / "captions.json", content)
    arguments = "eval", "--dataset", "coco2014", "--prompts", "captions.json"
    assert_refused(asyncdiff(*arguments), "captions.json")
