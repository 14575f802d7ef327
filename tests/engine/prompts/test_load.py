import hashlib
import json
import zipfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncdiff_cli.engine.errors import AsyncDiffError, InputError
from asyncdiff_cli.engine.prompts import coco, compbench
from asyncdiff_cli.engine.prompts.coco import COCO_FILES, COCO_SIZES
from asyncdiff_cli.engine.prompts.compbench import T2I_SHA256
from asyncdiff_cli.engine.prompts.load import SOURCES, load_evaluation_prompts, load_prompts
from asyncdiff_cli.engine.prompts.prompt_set import PromptSet
from tests.helpers.prompts import LISTS, needs_lists, write_captions, write_lists

SPLITS = ("train", "validation")


def prompt_set(size):
    return PromptSet("some", "train", tuple(f"prompt {i}" for i in range(size)))


@given(size=st.integers(1, 50), seed=st.integers(0, 2**63 - 1), epoch=st.integers(0, 1000))
def test_every_epoch_reads_every_prompt_once(size, seed, epoch):
    some = prompt_set(size)
    read = [some.at(epoch * size + i, seed) for i in range(size)]
    assert sorted(read) == sorted(some.texts)
    assert read == [prompt_set(size).at(epoch * size + i, seed) for i in range(size)]


def test_epochs_and_seeds_have_orders_of_their_own():
    some = prompt_set(100)
    orders = {
        tuple(some.at(epoch * 100 + i, seed) for i in range(100))
        for epoch in range(6)
        for seed in (0, 1)
    }
    assert len(orders) == 12


def test_a_resumed_reading_goes_on_where_it_was():
    some = prompt_set(7)
    read = [some.at(position, 3) for position in range(40)]
    assert [some.at(position, 3) for position in reversed(range(40))] == read[::-1]
    assert read[:8] == [f"prompt {i}" for i in (5, 6, 2, 1, 4, 3, 0, 2)]


@given(size=st.integers(1, 60), seed=st.integers(0, 2**63 - 1), data=st.data())
def test_a_draw_is_distinct_and_stable(size, seed, data):
    count = data.draw(st.integers(0, size))
    some = prompt_set(size)
    drawn = some.draw(count, seed)
    assert len(set(drawn)) == len(drawn) == count
    assert set(drawn) <= set(some.texts)
    assert drawn == prompt_set(size).draw(count, seed) == some.draw(size, seed)[:count]


@pytest.mark.parametrize("count", [4, -1])
def test_a_draw_of_more_than_there_are(count):
    with pytest.raises(InputError, match=f"some has 3 train prompts: .* not {count}"):
        prompt_set(3).draw(count, 0)


def test_the_fingerprint_is_of_the_texts_and_their_order():
    def of(*texts, name="a"):
        return PromptSet(name, "train", texts).fingerprint

    assert of("a", "b") == of("a", "b", name="other")
    assert len({of("a", "b"), of("b", "a"), of("ab"), of('a", "b'), of("a\nb"), of("\ue000")}) == 6
    assert len(of("a")) == 64


def test_captions_of_a_local_file(tmp_path):
    file = write_captions(tmp_path / COCO_FILES["train"], "A dog. ", "Ein Bär\n", "A cat.")
    found = load_prompts("coco2014", "train", path=file)
    assert found == PromptSet("coco2014", "train", ("A cat.", "Ein Bär", "A dog."))


def test_a_file_of_no_split_is_divided(tmp_path):
    captions = [f"A dog number {n}." for n in range(200)]
    file = write_captions(tmp_path / "mine.json", *captions)
    train, validation = ({*load_prompts("coco2014", s, path=file).texts} for s in SPLITS)
    assert not train & validation
    assert train | validation == {*captions}
    assert 10 <= len(validation) <= 30


@pytest.mark.parametrize("folder", [".", "annotations"])
def test_captions_of_a_local_directory(tmp_path, folder):
    files = {
        split: write_captions(tmp_path / folder / COCO_FILES[split], split) for split in SPLITS
    }
    for split in SPLITS:
        # the file of one split is never read for the other
        for path in (tmp_path, *files.values()):
            assert load_prompts("coco2014", split, path=path).texts == (split,)
    files["train"].unlink()
    with pytest.raises(InputError, match=r"does not hold captions_train2014\.json: give the dir"):
        load_prompts("coco2014", "train", path=files["validation"])


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "{}",
        '{"annotations": []}',
        '{"annotations": 3}',
        '{"annotations": ["A cat."]}',
        '{"annotations": [{"id": 1}]}',
        '{"annotations": [{"id": 1, "caption": null}]}',
        '{"annotations": [{"id": "x", "caption": "A cat."}]}',
        "\udcff",
    ],
)
def test_what_is_not_a_file_of_captions(tmp_path, content):
    file = tmp_path / "tiny.json"
    file.write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(InputError, match=r"tiny\.json is not a file of COCO captions: expected"):
        load_prompts("coco2014", "train", path=file)


def test_more_prompts_than_a_file_has(tmp_path):
    file = write_captions(tmp_path / "mine.json", "A cat.")
    with pytest.raises(InputError, match=r"coco2014 has 1 prompts: ask for at most so many, not 2"):
        load_evaluation_prompts("coco2014", path=file).draw(2, 0)


@pytest.fixture
def official(tmp_path, monkeypatch):
    """An archive in the official one's place, of two training captions and a validation one."""
    source = tmp_path / "server"
    write_captions(source / COCO_FILES["train"], "A dog.", "A cat.")
    write_captions(source / COCO_FILES["validation"], "A bear.")
    archive = source / "annotations_trainval2014.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as members:
        members.writestr("annotations/instances_train2014.json", "{}")
        for name in COCO_FILES.values():
            members.write(source / name, f"annotations/{name}")
    monkeypatch.setattr(coco, "COCO_URL", archive.as_uri())
    monkeypatch.setattr(coco, "COCO_SIZES", {"train": 2, "validation": 1})
    return archive


def test_the_official_captions_are_downloaded_once(official, tmp_path):
    data = tmp_path / "data"
    assert load_prompts("coco2014", "train", data).texts == ("A cat.", "A dog.")
    assert sorted(path.name for path in (data / "coco2014").iterdir()) == [*COCO_FILES.values()]
    official.unlink()
    assert load_prompts("coco2014", "validation", data).texts == ("A bear.",)
    assert load_prompts("coco2014", "train", data).texts == ("A cat.", "A dog.")


def test_truncated_captions_are_refused(official, tmp_path, monkeypatch):
    monkeypatch.setattr(coco, "COCO_SIZES", COCO_SIZES)
    with pytest.raises(AsyncDiffError, match=r"is truncated: it has 2 captions, expected 414,113"):
        load_prompts("coco2014", "train", tmp_path / "data")
    with pytest.raises(AsyncDiffError, match=r"has 1 captions, expected 202,654; delete it"):
        load_prompts("coco2014", "validation", tmp_path / "data")


@pytest.mark.parametrize("damage", ["cut", "flipped", "other"])
def test_a_damaged_archive_is_refused_and_dropped(official, tmp_path, damage):
    content = bytearray(official.read_bytes())
    if damage == "cut":
        content = content[:-40]
    elif damage == "flipped":
        at = content.index(b"annotations/captions_train2014.json") + 40
        content[at] ^= 255
    else:
        content = content.replace(b"captions_val2014", b"captions_val2015")
    official.write_bytes(content)
    with pytest.raises(AsyncDiffError, match=r"is damaged .*: try again, or pass --prompts PATH"):
        load_prompts("coco2014", "train", tmp_path / "data")
    assert not list((tmp_path / "data").rglob("*.zip"))


def test_captions_that_cannot_be_reached(tmp_path, monkeypatch):
    monkeypatch.setattr(coco, "COCO_URL", (tmp_path / "none.zip").as_uri())
    with pytest.raises(AsyncDiffError, match=r"none\.zip.*; pass --prompts PATH"):
        load_prompts("coco2014", "train", tmp_path / "data")


def test_lists_of_a_local_directory(tmp_path):
    directory = write_lists(tmp_path)
    found = load_prompts("t2i-compbench", "validation", path=directory)
    assert (found.name, len(found)) == ("t2i-compbench", 16)
    assert found.texts[:3] == ("color val 1", "color val 2.", "shape val 1")
    assert found.texts[-1] == "complex val 2."
    assert load_prompts("t2i-compbench", "train", path=directory).texts[0] == "color train 1"


def test_lists_that_are_missing_are_named(tmp_path):
    write_lists(tmp_path, skip=("shape_train.txt", "complex_train.txt"))
    with pytest.raises(InputError, match=r"lacks shape_train\.txt, complex_train\.txt: give the"):
        load_prompts("t2i-compbench", "train", path=tmp_path)
    assert len(load_prompts("t2i-compbench", "validation", path=tmp_path)) == 16


def test_lists_that_hold_nothing(tmp_path):
    for path in write_lists(tmp_path).iterdir():
        path.write_text("\n")
    with pytest.raises(InputError, match="holds no prompt"):
        load_prompts("t2i-compbench", "train", path=tmp_path)
    (tmp_path / "color_train.txt").write_bytes(b"\xff")
    with pytest.raises(InputError, match=r"color_train\.txt is not UTF-8 text"):
        load_prompts("t2i-compbench", "train", path=tmp_path)


def test_other_lists_than_the_official_ones_are_not_downloaded(tmp_path, monkeypatch):
    source = write_lists(tmp_path / "server")
    found = hashlib.sha256((source / "color_train.txt").read_bytes()).hexdigest()
    monkeypatch.setattr(compbench, "T2I_URL", source.as_uri())
    expected = T2I_SHA256["color_train.txt"]
    with pytest.raises(AsyncDiffError, match=rf"^color_train\.txt .*{found}, expected {expected}"):
        load_prompts("t2i-compbench", "train", tmp_path / "data")
    assert not [path for path in (tmp_path / "data").rglob("*") if path.is_file()]


@needs_lists
def test_the_official_lists_are_downloaded(tmp_path, monkeypatch):
    monkeypatch.setattr(compbench, "T2I_URL", LISTS.as_uri())
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for split, size in (("train", 5600), ("validation", 2400)):
        found = load_prompts("t2i-compbench", split)
        assert len(found) == size
        assert found == load_prompts("t2i-compbench", split, path=LISTS)
    assert found.texts[0] == "a green bench and a blue bowl"
    kept = {path.name for path in (tmp_path / "asyncdiff" / "t2i-compbench").iterdir()}
    assert kept == set(T2I_SHA256)


def test_a_file_is_split_by_its_texts(tmp_path):
    lines = [f"a picture of {i}" for i in range(300)]
    plain, objects, longer = (tmp_path / name for name in ("a.txt", "b.jsonl", "c.txt"))
    plain.write_text("\n".join(["# mine", "", *lines, *lines]))
    objects.write_text("\n".join(json.dumps({"prompt": text, "seed": 3}) for text in lines))
    longer.write_text("\n".join(["one more", *lines[::-1]]))
    both = {split: load_prompts(str(plain), split) for split in SPLITS}
    train, validation = (both[split].texts for split in SPLITS)
    assert both["train"].name == str(plain)
    assert sorted(train + validation) == sorted(lines)
    assert 15 < len(validation) < 45
    assert list(train) == [text for text in lines if text in train]
    for split in SPLITS:
        assert load_prompts(str(objects), split).texts == both[split].texts
        assert set(load_prompts(str(longer), split).texts) - {"one more"} == set(both[split].texts)


def test_a_file_without_prompts_for_a_split(tmp_path):
    file = tmp_path / "prompts.txt"
    file.write_text("a cat\n")
    with pytest.raises(InputError, match=r"prompts\.txt has no validation prompts: .*its 1 is for"):
        load_prompts(str(file), "validation")
    assert load_prompts(str(file), "train").texts == ("a cat",)


def test_a_file_that_is_not_valid_names_the_line(tmp_path):
    file = tmp_path / "prompts.jsonl"
    file.write_text('{"prompt": "a cat"}\n{"promt": "a dog"}\n')
    with pytest.raises(InputError, match=r"prompts\.jsonl:2"):
        load_prompts(str(file), "train")


@pytest.mark.parametrize(
    ("source", "split", "message"),
    [
        ("coco", "train", "unknown prompt source 'coco'; did you mean 'coco2014'?"),
        ("none.txt", "train", "unknown prompt source 'none.txt' .*and there is no such file"),
        ("-", "train", "unknown prompt source '-'"),
        ("mini", "val", "unknown split 'val' .known: train, validation"),
    ],
)
def test_what_is_not_known(source, split, message):
    with pytest.raises(InputError, match=message.replace("?", r"\?")):
        load_prompts(source, split)


def test_a_local_copy_of_what_is_not_downloaded(tmp_path):
    with pytest.raises(InputError, match="'mini' takes no local copy, as coco2014, t2i"):
        load_prompts("mini", "train", path=tmp_path)


def test_the_sources():
    named = ("mini", "coco2014", "t2i-compbench", "geneval", "geneval2", "dpg", "hpsv2")
    assert named == SOURCES
