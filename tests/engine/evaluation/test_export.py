"""The folders that the scorers of benchmarks read, from stores that were made without drawing."""

import json

import pytest
from PIL import Image

from asyncdiff_cli.engine import AsyncDiffError, InputError
from asyncdiff_cli.engine.evaluation.export import plan_export, write_export
from asyncdiff_cli.engine.evaluation.layouts.table import LAYOUTS
from asyncdiff_cli.engine.prompts.compbench import T2I_CATEGORIES
from asyncdiff_cli.engine.prompts.load import SOURCES
from tests.helpers.scorers import (
    LINES,
    NOISES,
    TREES,
    colour,
    files_below,
    make_scored_store,
    write_benchmark,
)
from tests.helpers.stores import begun, row, rows_of

GOLDEN = {
    "geneval": [
        *(f"{place:05d}/metadata.jsonl" for place in range(3)),
        *(f"{place:05d}/samples/000{n}.png" for place in range(3) for n in range(2)),
    ],
    "geneval2": ["00000.png", "00001.png"],
    "dpg": ["10.png", "9.png", "COCOval2014000000000042.png"],
    "t2i-compbench": [
        f"{category}/samples/{category.replace('_', ' ')} val {prompt}_{number:06d}.png"
        for category in T2I_CATEGORIES
        for prompt, number in (("1", 0), ("1", 1), ("2.", 2), ("2.", 3))
    ],
    "hpsv2": [
        f"{style}/0000{n}.jpg"
        for style in ("anime", "concept-art", "paintings", "photo")
        for n in range(2)
    ],
}
"""The files of a tree."""


@pytest.fixture
def benchmark(tmp_path):
    """Export a store of a tiny benchmark: the directory, the store, and the file of prompts."""

    def make(name, out="out", **changes):
        prompts = write_benchmark(name, tmp_path / name)
        store = make_scored_store(tmp_path / "store", name, prompts, **changes)
        planned = plan_export(store, name, prompts=prompts)
        assert write_export(planned, tmp_path / out) == [tmp_path / out / tree for tree in TREES]
        return tmp_path / out, store, prompts

    return make


def image_of(store, prompt, number=0, policy="baseline"):
    """The file of an image, by its prompt and noise."""
    rows = store.read(["prompt", "image"]).to_pylist()
    names = {row["image"] for row in rows if (row["prompt"], row["policy"]) == (prompt, policy)}
    return store.image(next(name for name in names if name.split("-")[1] == str(number)))


@pytest.mark.parametrize("name", GOLDEN)
def test_a_tree_for_each_policy(benchmark, name):
    out, _, _ = benchmark(name)
    beside = {"geneval2": ["benchmark_data.jsonl", *(f"{tree}.json" for tree in TREES)]}
    trees = [f"{tree}/{file}" for tree in TREES for file in GOLDEN[name]]
    assert files_below(out) == sorted([*trees, *beside.get(name, [])])


def test_geneval_has_the_images_as_they_are_beside_the_benchmark_s_line(benchmark):
    out, store, _ = benchmark("geneval")
    for place, line in enumerate(LINES["geneval"]):
        folder = out / TREES[1] / f"{place:05d}"
        assert (folder / "metadata.jsonl").read_text() == json.dumps(line)
        for number in range(2):
            image = image_of(store, line["prompt"], number, "fixed:0.5")
            assert (folder / "samples" / f"000{number}.png").read_bytes() == image.read_bytes()


def test_geneval_2_names_the_picture_of_each_prompt(benchmark):
    out, store, _ = benchmark("geneval2", noises=2)
    lines = (out / "benchmark_data.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == LINES["geneval2"]
    for tree, policy in zip(TREES, ("baseline", "fixed:0.5"), strict=True):
        paths = json.loads((out / f"{tree}.json").read_text())
        assert list(paths) == [line["prompt"] for line in LINES["geneval2"]]
        for prompt, path in paths.items():
            image = image_of(store, prompt, 0, policy)
            assert (out / path).read_bytes() == image.read_bytes()


def test_some_prompts_of_geneval_2_come_with_their_lines_alone(benchmark):
    out, _, _ = benchmark("geneval2", limit=1)
    (line,) = (out / "benchmark_data.jsonl").read_text().splitlines()
    assert list(json.loads((out / f"{TREES[0]}.json").read_text())) == [json.loads(line)["prompt"]]


def test_dpg_has_four_noises_in_a_square(benchmark):
    out, store, _ = benchmark("dpg")
    prompt = "A long prompt, 9."
    prompt_id = next(row["prompt_id"] for row in rows_of(store) if row["prompt"] == prompt)
    with Image.open(out / TREES[1] / "9.png") as square:
        assert square.size == (8, 8)
        corners = [square.getpixel(place) for place in ((0, 0), (7, 0), (0, 7), (7, 7))]
    assert corners == [colour(prompt_id, number, 1) for number in range(4)]


def test_t2i_compbench_numbers_the_pictures_of_a_category(benchmark):
    out, store, _ = benchmark("t2i-compbench")
    samples = out / TREES[0] / "shape" / "samples"
    for number in range(2):
        image = image_of(store, "shape val 2.", number)
        assert (samples / f"shape val 2._00000{2 + number}.png").read_bytes() == image.read_bytes()


def test_hpsv2_has_jpegs(benchmark):
    out, _, _ = benchmark("hpsv2")
    with Image.open(out / TREES[0] / "photo" / "00001.jpg") as image:
        assert (image.format, image.size, image.mode) == ("JPEG", (4, 4), "RGB")
        assert not image.getexif()


def test_the_same_store_makes_the_same_bytes(benchmark, tmp_path):
    out, store, prompts = benchmark("dpg")
    write_export(plan_export(store, "dpg", prompts=prompts), tmp_path / "again")
    for name in files_below(out):
        assert (out / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


def test_only_prompts_that_all_policies_have_drawn(benchmark, tmp_path):
    _, store, prompts = benchmark("geneval", limit=2)
    first = store.read(["prompt", "image"]).to_pylist()[0]
    other = {**first, "prompt_id": 2, "seed": 0, "policy": "baseline"}
    store.write([row(2, prompt=other["prompt"], seed=0, image=other["image"])])
    planned = plan_export(store, "geneval", prompts=prompts)
    assert (planned.prompts, planned.partial, planned.notes) == (2, 1, [])


def test_a_store_of_other_prompts_says_how_to_make_one(benchmark, tmp_path):
    _, store, _ = benchmark("geneval")
    prompts = write_benchmark("dpg", tmp_path / "dpg")
    with pytest.raises(InputError, match=r"other prompts than those of dpg: `asyncdiff eval --da"):
        plan_export(store, "dpg", prompts=prompts)
    with pytest.raises(InputError, match="of other prompts"):
        plan_export(begun(tmp_path / "old"), "dpg", prompts=prompts)


@pytest.mark.parametrize("changes", [{"prompt": "another"}, {"prompt_id": 99}, {"seed": 5}])
def test_rows_that_the_seed_does_not_draw(benchmark, changes):
    _, store, prompts = benchmark("geneval2", limit=1)
    rows = [{**found, **changes} for found in rows_of(store)]
    next(iter(store.parts())).unlink()
    store.write(rows)
    with pytest.raises(AsyncDiffError, match=r"is not of its seed: evaluate again"):
        plan_export(store, "geneval2", prompts=prompts)


def test_too_few_images_of_a_prompt(tmp_path):
    prompts = write_benchmark("dpg", tmp_path / "dpg")
    store = make_scored_store(tmp_path / "store", "dpg", prompts, noises=3)
    with pytest.raises(
        InputError, match=r"dpg takes 4 images .* has 3: .*again with --num-images 4"
    ):
        plan_export(store, "dpg", prompts=prompts)


def test_images_that_were_not_kept(tmp_path):
    prompts = write_benchmark("geneval", tmp_path / "geneval")
    store = make_scored_store(tmp_path / "store", "geneval", prompts, limit=2)
    path = next(iter(store.parts()))
    rows = [{**r, "image": None if r["prompt_id"] else r["image"]} for r in rows_of(store)]
    path.unlink()
    store.write(rows)
    message = r"kept no image of 1 of 2 prompts: evaluate into another --out with --images 2"
    with pytest.raises(InputError, match=message):
        write_export(plan_export(store, "geneval", prompts=prompts), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_missing_image_leaves_nothing_behind(benchmark, tmp_path):
    _, store, prompts = benchmark("geneval")
    store.image("images/1-0-0.png").unlink()
    with pytest.raises(AsyncDiffError, match=r"1-0-0\.png is missing"):
        write_export(plan_export(store, "geneval", prompts=prompts), tmp_path / "again")
    assert not [path for path in tmp_path.iterdir() if "again" in path.name]


@pytest.mark.parametrize("name", ["geneval", "dpg"])
def test_a_damaged_image_is_not_handed_on(benchmark, tmp_path, name):
    _, store, prompts = benchmark(name)
    image = store.image("images/1-0-0.png")
    image.write_bytes(image.read_bytes()[:50])
    with pytest.raises(InputError, match=r"1-0-0\.png is not a readable image: it is damaged"):
        write_export(plan_export(store, name, prompts=prompts), tmp_path / "again")
    assert not (tmp_path / "again").exists()


def test_images_of_two_sizes_make_no_square(benchmark, tmp_path):
    _, store, prompts = benchmark("dpg")
    Image.new("RGB", (6, 4)).save(store.image("images/1-2-0.png"))
    with pytest.raises(InputError, match=r"1-2-0\.png has 6x4 pixels and .*1-0-0\.png 4x4,"):
        write_export(plan_export(store, "dpg", prompts=prompts), tmp_path / "again")
    assert not [path for path in tmp_path.iterdir() if "again" in path.name]


def test_what_is_there_is_left_alone(benchmark, tmp_path):
    out, store, prompts = benchmark("geneval")
    with pytest.raises(InputError, match="out is there already: give another --out"):
        write_export(plan_export(store, "geneval", prompts=prompts), out)
    (tmp_path / "empty").mkdir()
    assert write_export(plan_export(store, "geneval", prompts=prompts), tmp_path / "empty")


@pytest.mark.parametrize("prompt", ["red/blue", "snake_case", "x" * 250])
def test_a_prompt_that_t2i_compbench_cannot_have_in_a_name(tmp_path, prompt):
    prompts = write_benchmark("t2i-compbench", tmp_path / "lists")
    (prompts / "shape_val.txt").write_text(prompt)
    store = make_scored_store(tmp_path / "store", "t2i-compbench", prompts)
    with pytest.raises(InputError, match="T2I-CompBench reads the prompt from the name"):
        write_export(plan_export(store, "t2i-compbench", prompts=prompts), tmp_path / "out")


def test_every_layout_is_a_benchmark_that_can_be_evaluated():
    assert set(LAYOUTS) == set(NOISES) == set(GOLDEN)
    assert set(LAYOUTS) <= set(SOURCES)
