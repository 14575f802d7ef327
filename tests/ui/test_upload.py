"""Files that a browser sends: which are taken, and where they go."""

import base64
import json
import re

import pytest

from asyncdiff_cli.engine import AsyncDiffError, InputError
from asyncdiff_cli.engine.policies.spectrum_file import MeasuredSpectrum
from asyncdiff_cli.ui import upload
from asyncdiff_cli.ui.upload import MODULE_FILES, kept, received

SPECTRUM = MeasuredSpectrum(frequency=(0.0, 1.0), std=(2.0, 1.0), share=(0.25, 0.75))


def sent(files):
    """What the page's part holds of files."""
    encoded = {name: base64.b64encode(data).decode() for name, data in files.items()}
    return {
        "largest": upload.LARGEST,
        "files": [{"name": n, "size": len(files[n]), "data": encoded[n]} for n in files],
    }


@pytest.mark.parametrize(
    "files", [{"fox.json": b"{}"}, {"model.safetensors": bytes(range(256)), "config.json": b""}]
)
def test_what_is_sent_is_what_is_received(files):
    assert received(sent(files)) == files


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({}, "upload one schedule or spectrum"),
        (sent({"fox.py": b""}), "upload one schedule or spectrum"),
        (sent({"model.safetensors": b""}), "upload one schedule or spectrum"),
        (sent({"a.json": b"", "b.json": b""}), "upload one schedule or spectrum"),
        (sent({"config.json": b"", "model.bin": b""}), "upload one schedule or spectrum"),
        ({"files": [{"name": "a.json", "size": 1 << 30}]}, "have 1024 MiB, and at most 64 are"),
        ({"files": [{"name": "a.json", "size": 3}]}, "is not whole"),
        ({"files": [{"name": "a.json"}]}, "is damaged"),
        ({"files": [{"name": "a.json", "size": 1, "data": 1}]}, "is damaged"),
    ],
)
def test_what_cannot_be_taken_is_refused(value, message):
    with pytest.raises(InputError, match=re.escape(message)):
        received(value)


def test_a_size_is_not_believed(monkeypatch):
    monkeypatch.setattr(upload, "LARGEST", 3)
    value = sent({"fox.json": b"1234"})
    value["files"][0]["size"] = 1
    with pytest.raises(InputError, match="at most"):
        received(value)


@pytest.mark.parametrize("name", ["../fox.json", "a/fox.json", "c:\\fox.json", ".fox.json"])
def test_nothing_is_written_elsewhere(tmp_path, name):
    with pytest.raises(InputError, match="is not a file's name"), kept({name: b"{}"}, tmp_path):
        pass
    assert not any(tmp_path.iterdir())


def test_another_file_of_the_name_is_left_alone(tmp_path):
    for data, name in ((b"1", "fox.json"), (b"2", "fox-2.json"), (b"1", "fox.json")):
        with kept({"fox.json": data}, tmp_path) as place:
            assert (place, place.read_bytes()) == (tmp_path / name, data)
    assert len([*tmp_path.iterdir()]) == 2


def test_what_draws_is_kept_and_what_does_not_leaves_nothing(studio, module):
    out = studio.job.out
    spectrum = SPECTRUM.model_dump_json(exclude_none=True).encode()
    assert studio.keep({"s.json": spectrum}) == (out / "s.json", f"spectral:{out / 's.json'}")
    files = {name: (module / name).read_bytes() for name in MODULE_FILES}
    place, line = studio.keep(files)
    assert (place.parent, line) == (out, f"learned:{place}")
    assert {path.name: path.read_bytes() for path in place.iterdir()} == files
    before = sorted(out.rglob("*"))
    damaged = (
        {"bad.json": b'{"format": 1}'},
        {**files, "model.safetensors": b"no tensors"},
        {**files, "config.json": json.dumps({"width": 1}).encode()},
    )
    for wrong in damaged:
        with pytest.raises(AsyncDiffError, match="damaged"):
            studio.keep(wrong)
    assert sorted(out.rglob("*")) == before
