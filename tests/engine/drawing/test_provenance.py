import os

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from asyncdiff_cli.engine import AsyncDiffError, FixedDeviation, InputError, policy_from_dict
from asyncdiff_cli.engine.drawing.provenance import (
    CHUNK,
    Drawn,
    describe,
    read_provenance,
    save_png,
)
from asyncdiff_cli.engine.drawing.settings import BatchSettings
from tests.conftest import PROMPTS, make_case


@pytest.fixture(scope="module")
def drawn():
    case = make_case("sd3")
    policy = FixedDeviation([0.5, 0.25])
    result = case.draw(policy, 1.5, output_type="pil")
    drawn = [Drawn(prompt=prompt, seed=seed) for seed, prompt in enumerate(PROMPTS)]
    settings = BatchSettings(policy, 1.5, 4, 5.0, 16, 24, None, None)
    records = describe(case.backbone, result, drawn, settings)
    return result, records


def test_what_is_written_is_read_back(drawn, tmp_path):
    result, records = drawn
    for i, (image, record) in enumerate(zip(result.images, records, strict=True)):
        save_png(image, tmp_path / "new" / f"{i}.png", record)
        read = read_provenance(tmp_path / "new" / f"{i}.png")
        assert read == record
        assert not {"image", "control"} & record.model_dump().keys()  # as in records before
        assert (read.prompt, read.seed) == (PROMPTS[i], i)
        assert read.cond_sigmas == tuple(result.cond_sigmas[i].tolist())
        assert read.scheduler == "euler"
        assert policy_from_dict(read.policy) == FixedDeviation([0.5, 0.25])
    assert sorted(os.listdir(tmp_path / "new")) == ["0.png", "1.png"]


def test_the_same_record_is_the_same_bytes(drawn, tmp_path):
    result, records = drawn
    for name in ("one.png", "other.png"):
        save_png(result.images[0], tmp_path / name, records[0])
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "other.png").read_bytes()


@given(prompt=st.text(max_size=200))
def test_any_prompt_survives(drawn, tmp_path_factory, prompt):
    result, records = drawn
    batch = (records[0].batch[0].model_copy(update={"prompt": prompt}), records[0].batch[1])
    path = tmp_path_factory.getbasetemp() / "prompt.png"
    save_png(result.images[0], path, records[0].model_copy(update={"batch": batch}))
    assert read_provenance(path).prompt == prompt


def png_with(text: str | None, path):
    info = PngImagePlugin.PngInfo()
    if text is not None:
        info.add_itxt(CHUNK, text)
    Image.new("RGB", (4, 4)).save(path, pnginfo=info)
    return path


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (None, "carries no asyncdiff provenance"),
        ("{", "provenance is damaged"),
        ("{}", "provenance is damaged: backbone: Field required"),
    ],
)
def test_images_without_a_valid_record(tmp_path, text, line):
    with pytest.raises(InputError, match=line) as caught:
        read_provenance(png_with(text, tmp_path / "x.png"))
    assert "\n" not in str(caught.value)


def test_files_that_are_not_images(drawn, tmp_path):
    with pytest.raises(InputError, match="there is no file"):
        read_provenance(tmp_path / "missing.png")
    (tmp_path / "text.png").write_text("hello")
    with pytest.raises(InputError, match="not a readable image"):
        read_provenance(tmp_path / "text.png")
    result, records = drawn
    save_png(result.images[0], tmp_path / "cut.png", records[0])
    whole = (tmp_path / "cut.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="not a readable image"):
        read_provenance(tmp_path / "cut.png")


def test_nothing_is_left_of_a_failed_write(drawn, tmp_path, monkeypatch):
    result, records = drawn
    (tmp_path / "blocked").write_text("a file")
    with pytest.raises(AsyncDiffError, match="cannot write"):
        save_png(result.images[0], tmp_path / "blocked" / "x.png", records[0])

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(AsyncDiffError, match="No space left on device"):
        save_png(result.images[0], tmp_path / "x.png", records[0])
    assert os.listdir(tmp_path) == ["blocked"]
