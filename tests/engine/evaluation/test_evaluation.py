"""Every prompt with every policy, once, on the same noise; whatever stops it, and however often."""

import itertools
import json
import math
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin
from safetensors.torch import load_file, save_file

from asyncdiff_cli.engine import AsyncDiffError, InputError, Synchronous, load_backbone, sample
from asyncdiff_cli.engine.backbones.adapters import SD3Adapter
from asyncdiff_cli.engine.backbones.choice import ModelChoice
from asyncdiff_cli.engine.backbones.registry import REGISTRY
from asyncdiff_cli.engine.drawing.canvas import BatchSize, Canvas, joined
from asyncdiff_cli.engine.drawing.job import open_job
from asyncdiff_cli.engine.drawing.parameters import PARAMETERS_CHUNK, parsed_parameters
from asyncdiff_cli.engine.drawing.provenance import (
    CHUNK,
    Provenance,
    read_provenance,
    text_chunks,
)
from asyncdiff_cli.engine.drawing.request import parse_request
from asyncdiff_cli.engine.drawing.seeds import EVALUATION, noise_seed
from asyncdiff_cli.engine.evaluation import evaluation as evaluation_module
from asyncdiff_cli.engine.evaluation import start
from asyncdiff_cli.engine.evaluation.comparison import (
    Comparison,
    comparison_of_run,
    parse_comparison,
    table_policies,
)
from asyncdiff_cli.engine.evaluation.contender import Contender, EvaluationCell, key
from asyncdiff_cli.engine.evaluation.evaluation import Evaluation
from asyncdiff_cli.engine.evaluation.merge import merge
from asyncdiff_cli.engine.evaluation.start import open_evaluation
from asyncdiff_cli.engine.evaluation.store import Store
from asyncdiff_cli.engine.figures.gallery import figure_5
from asyncdiff_cli.engine.policies.modules import module_policy
from asyncdiff_cli.engine.policies.specs import ChosenPolicy, load_learned
from asyncdiff_cli.engine.prompts import load
from asyncdiff_cli.engine.prompts.coco import COCO_FILES
from asyncdiff_cli.engine.prompts.compbench import T2I_CATEGORIES
from asyncdiff_cli.engine.prompts.load import load_evaluation_prompts, load_prompts
from asyncdiff_cli.engine.prompts.prompt_set import PromptSet
from asyncdiff_cli.engine.rewards.sharpness import Sharpness
from asyncdiff_cli.engine.training.recipe_files import to_yaml
from benchmarks.calls import counted
from tests.conftest import make_case, tiny_sd3
from tests.helpers.evaluations import assert_alike, finish, rows
from tests.helpers.modules import randomised, tpm_for
from tests.helpers.prompts import LISTS, needs_lists, write_captions, write_lists
from tests.helpers.rewards import quality_with
from tests.helpers.training import small_recipe

TEXTS = ["a cat", "a dog on a red background", "an owl", "ein Bär", "a bee", "a cat and a dog"]

POLICIES = "baseline,fixed:0.5,detail-daemon"
MIXED = (
    "baseline,fixed:-0.5@2,schedule:0.5/0.1,detail-daemon,velocity-scale:0.8,time-shift,"
    "combined:0.3/1.1@0.5,learned:"
)


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    path = tmp_path_factory.mktemp("texts") / "prompts.txt"
    path.write_text("\n".join(TEXTS), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def modules(tmp_path_factory):
    """Directories of modules by family, whose answers differ from image to image."""
    paths = {}
    for name in ("sd3", "flux", "mini"):
        paths[name] = tmp_path_factory.mktemp("tpm")
        randomised(tpm_for(make_case(name))).save_pretrained(paths[name])
    return paths


@pytest.fixture
def opened(tmp_path, pipelines, texts):
    """Open an evaluation of a tiny pipeline, at three steps of 16×16 pixels."""

    def make(out="store", backbone="sd3", **changes):
        defaults = {
            **{"policies": POLICIES, "steps": (3,), "size": 16, "guidance": 3.0},
            **{"dataset": str(texts), "rewards": ("sharpness",), "batch_size": 6},
            **{"kept_images": 2},
        }
        choice = ModelChoice(backbone=str(pipelines.get(backbone, backbone)), device="cpu")
        return open_evaluation(Comparison(choice, **{**defaults, **changes}), tmp_path / out)

    return make


def drawn_seeds(monkeypatch):
    """The seeds of every batch that is drawn from now on."""
    batches = []
    honest = Canvas.draw

    def draw(self, text, seeds, *arguments):
        batches.append(list(seeds))
        return honest(self, text, seeds, *arguments)

    monkeypatch.setattr(Canvas, "draw", draw)
    return batches


def redrawn(path, out):
    """The bytes that `asyncdiff sample --from` writes."""
    job = open_job(parse_request(source=path), ModelChoice(), out)
    (written,) = job.run()
    assert job.differences([written]) is None
    return written.path.read_bytes()


def test_every_policy_draws_the_same_prompts_from_the_same_noise(opened):
    evaluation = opened()
    assert finish(evaluation) == [6, 6, 6]
    found = evaluation.store.read().to_pylist()
    assert [(r["prompt_id"], r["policy"]) for r in found] == [
        (n, policy) for n in range(6) for policy in ("baseline", "detail-daemon", "fixed:0.5")
    ]
    for row in found:
        n = row["prompt_id"]
        assert row["prompt"] == TEXTS[evaluation.order[n]]
        assert row["seed"] == noise_seed(42, EVALUATION, n)
        assert row["category"] is None
        assert len(row["deviations"]) == 2
        assert len(row["cond_sigmas"]) == 3
        assert 0 < row["seconds"] < 60
        assert (
            json.loads(row["policy_settings"])["name"]
            == {
                **{
                    "baseline": "synchronous",
                    "fixed:0.5": "fixed",
                    "detail-daemon": "detail-daemon",
                }
            }[row["policy"]]
        )
    assert len({row["seed"] for row in found}) == 6
    assert [row["deviations"] for row in found[:3:2]] == [[0.0] * 2, [0.5] * 2]
    assert [row["bound"] for row in found[:3]] == [1.0, math.inf, 1.0]
    assert len({row["sharpness"] for row in found}) == 18


def test_the_baselines_image_is_the_stock_samplers(opened, pipelines):
    evaluation = opened()
    finish(evaluation)
    record = read_provenance(evaluation.store.image("images/000001-baseline-gamma1-steps3.png"))
    backbone = load_backbone(str(pipelines["sd3"]), device="cpu")
    text = Canvas(backbone, 3.0).encode([drawn.prompt for drawn in record.batch])
    result = sample(
        backbone,
        policy=Synchronous(),
        **joined([text[drawn.prompt] for drawn in record.batch]),
        num_inference_steps=3,
        guidance_scale=3.0,
        height=16,
        width=16,
        generator=[torch.Generator().manual_seed(drawn.seed) for drawn in record.batch],
    )
    (row,) = (
        row
        for row in evaluation.store.read().to_pylist()
        if (row["prompt_id"], row["policy"]) == (1, "baseline")
    )
    with Image.open(evaluation.store.image(row["image"])) as image:
        assert image.tobytes() == result.images[record.index].tobytes()
    scores = Sharpness.load().score([result.images[record.index]], [row["prompt"]])
    assert row["sharpness"] == pytest.approx(scores.item(), abs=1e-6)


@pytest.mark.parametrize("backbone", ["sd3", "flux", "mini"])
def test_every_image_of_a_mixed_batch_is_redrawn_to_the_byte(tmp_path, opened, modules, backbone):
    policies = f"{MIXED}{modules[backbone]}"
    size = {} if backbone != "mini" else {"size": 64, "guidance": None}
    limit = {"limit": 1, "batch_size": 8} if backbone == "mini" else {"limit": 3, "batch_size": 16}
    evaluation = opened(backbone=backbone, policies=policies, **size, **limit)
    assert finish(evaluation) == {"mini": [8]}.get(backbone, [16, 8])
    found = [row for row in evaluation.store.read().to_pylist() if row["image"]]
    assert len(found) == 8 * min(2, len(evaluation.order))
    for row in found[:: 4 if backbone == "mini" else 3]:
        path = evaluation.store.image(row["image"])
        record = read_provenance(path)
        assert record == Provenance.model_validate_json(row["provenance"])
        assert (record.prompt, record.seed) == (row["prompt"], row["seed"])
        assert list(record.deviations) == pytest.approx(row["deviations"])
        assert list(record.cond_sigmas) == pytest.approx(row["cond_sigmas"])
        assert redrawn(path, tmp_path / "again") == path.read_bytes()


def test_scores_of_other_weights_do_not_join_a_store(tmp_path, opened):
    """As after an update of the package, or of the file that is named."""
    path = quality_with(tmp_path / "reward", 0)
    options = {"rewards": ("mini_quality",), "reward_paths": {"mini_quality": path}, "size": 32}
    finish(opened(**options), 1)
    moved = {**options, "reward_paths": {"mini_quality": path.rename(tmp_path / "moved")}}
    finish(opened(**moved), 1)
    quality_with(tmp_path / "moved", 1)
    with pytest.raises(InputError, match=r"other settings, rewards .*weights.*give another --out"):
        opened(**moved)


def test_the_policies_of_a_prompt_share_the_first_evaluation(opened):
    evaluation, every = opened(batch_size=7), opened("every", batch_size=7)
    every.canvas = replace(every.canvas, share_first=False)
    found = []
    for each in (evaluation, every):
        with counted(each.canvas.backbone.pipe.transformer) as calls:
            assert finish(each) == [6, 6, 6]
        found.append(calls)
    shared, whole = found
    assert whole == [2 * 6] * 9  # with guidance, an image is two rows
    assert shared == [2 * 2, 2 * 6, 2 * 6] * 3  # two prompts by three policies
    assert_alike(evaluation.store, every.store, tolerance=0.01)  # a level of 256 may turn


@pytest.mark.parametrize("share", [True, False])
def test_a_redraw_computes_in_the_batches_that_the_image_was_drawn_in(
    opened, tmp_path, monkeypatch, share
):
    evaluation = opened()
    evaluation.canvas = replace(evaluation.canvas, share_first=share)
    finish(evaluation, batches=1)
    path = evaluation.store.image("images/000001-fixed-0.5-gamma1-steps3.png")
    record = json.loads(read_provenance(path).model_dump_json())
    if not share:
        del record["share_first"]  # records were without it
    with Image.open(path) as image:
        before, text = image.tobytes(), PngImagePlugin.PngInfo()
        text.add_itxt(CHUNK, json.dumps(record))
        image.save(tmp_path / "old.png", pnginfo=text)
    job = open_job(parse_request(source=tmp_path / "old.png"), ModelChoice(), tmp_path / "again")
    vae, decoded = job.backbone.pipe.vae, []
    monkeypatch.setattr(
        vae, "decode", lambda z, **o: decoded.append(len(z)) or type(vae).decode(vae, z, **o)
    )
    with counted(job.backbone.pipe.transformer) as calls:
        (written,) = job.run()
    assert calls == [2 * (2 if share else 6), 2 * 6, 2 * 6]
    assert decoded == [4, 2]  # a few at a time, too
    with Image.open(written.path) as image:
        assert image.tobytes() == before


@pytest.fixture
def encoded(monkeypatch):
    """The texts that are encoded from now on, in the order of the calls."""
    calls = []
    honest = SD3Adapter.encode

    def encode(self, texts, *arguments):
        if texts is not None:
            assert self.pipe.transformer is None
            assert self.pipe.vae is None
            calls.extend(texts)
        return honest(self, texts, *arguments)

    monkeypatch.setattr(SD3Adapter, "encode", encode)
    return calls


def test_prompts_are_encoded_once_before_what_draws_is_loaded(opened, encoded):
    evaluation = opened(batch_size=7)
    assert sorted(encoded) == sorted(TEXTS)
    assert evaluation.canvas.backbone.pipe.text_encoder is None
    assert finish(evaluation) == [6, 6, 6]
    assert sorted(encoded) == sorted(TEXTS)


def test_what_is_drawn_is_not_encoded_again(opened, encoded):
    evaluation = opened(batch_size=6)
    finish(evaluation, batches=2)
    encoded.clear()
    opened(batch_size=6)  # after a kill, which leaves what was encoded
    assert encoded == []
    evaluation = opened(batch_size=6)
    finish(evaluation)
    evaluation.finish(0)
    left = [path.name for path in evaluation.store.path.glob(".text*")]
    assert left == []
    opened(batch_size=6)  # all is drawn
    assert encoded == []
    opened(batch_size=6, policies=f"{POLICIES},fixed:0.25")
    assert sorted(encoded) == sorted(TEXTS)


def test_prompts_are_encoded_a_few_at_a_time_and_drawn_alike(opened, encoded, monkeypatch):
    whole = opened("whole")
    finish(whole)
    monkeypatch.setattr(evaluation_module, "AHEAD", 2)
    monkeypatch.setattr(start, "AHEAD", 2 - 6)  # without the batch that comes on top
    encoded.clear()
    evaluation = opened("few", kept_images=0)
    counts = [len(encoded)]
    for _ in evaluation.run(evaluation.pending()):
        counts.append(len(encoded))
    assert counts == [2, 2, 4, 6]
    assert rows(evaluation.store, "image") == rows(whole.store, "image")


def test_text_of_another_encoder_is_not_used(opened, pipelines, tmp_path, encoded):
    model = Path(shutil.copytree(pipelines["sd3"], tmp_path / "model"))
    opened(backbone=str(model))
    encoded.clear()
    opened(backbone=str(model))
    assert encoded == []
    weights = next((model / "text_encoder").glob("*.safetensors"))
    tensors = {name: value * 1.1 for name, value in load_file(weights).items()}
    save_file(tensors, weights, metadata={"format": "pt"})
    opened(backbone=str(model))
    assert sorted(encoded) == sorted(TEXTS)


def test_an_sd3_without_t5_is_evaluated(opened, tmp_path):
    made = tiny_sd3()
    made.register_modules(text_encoder_3=None, tokenizer_3=None)
    made.save_pretrained(tmp_path / "small")
    assert finish(opened(backbone=str(tmp_path / "small"), batch_size=9)) == [9, 9]


def test_a_default_and_its_value_are_the_same_encoding(opened, encoded):
    finish(opened(batch_size=6, guidance=None), batches=1)
    encoded.clear()
    guidance = opened(batch_size=6, guidance=None).canvas.scale
    opened(batch_size=6, guidance=guidance)
    assert encoded == []


def test_a_disk_that_is_too_small_for_the_encoded_prompts_is_named(opened, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=10_000))
    with pytest.raises(AsyncDiffError, match=r"5 encoded prompts take 0 GB, and .* has 0 GB free"):
        opened()


def test_a_damaged_encoding_is_named(opened):
    evaluation = opened()
    file = evaluation.canvas.text.file(TEXTS[0])
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(AsyncDiffError, match=rf"{file.name} cannot be read, delete it"):
        finish(evaluation)


def test_shards_together_are_the_whole(tmp_path, opened):
    whole = opened("whole", batch_size=3)
    finish(whole)
    for out in ("both", "both"), ("first", "second"):
        for n in (0, 1):
            shard = opened(out[n], batch_size=3, shard=(n, 2))
            assert {cell.prompt_id % 2 for cell in shard.pending()} == {n}
            assert sum(finish(shard)) == 9
    merged = merge([tmp_path / "second", tmp_path / "first"], tmp_path / "merged")
    for store in (Store(tmp_path / "both"), merged):
        assert_alike(store, whole.store)
        names = {path.name for path in (store.path / "images").iterdir()}
        assert names == {path.name for path in (whole.store.path / "images").iterdir()}


def test_more_shards_than_prompts(opened):
    shard = opened(limit=2, shard=(2, 3))
    assert (shard.pending(), finish(shard)) == ([], [])


def test_what_goes_on_draws_exactly_what_is_missing(opened, monkeypatch):
    shape = {"batch_size": 3, "limit": 5, "policies": "baseline,fixed:0.5"}
    whole = opened("whole", **shape)
    finish(whole)
    for stop in range(5):
        first = opened(f"stopped{stop}", **shape)
        before = sum(finish(first, stop))
        batches = drawn_seeds(monkeypatch)
        again = opened(f"stopped{stop}", **shape)
        missing = again.pending()
        assert len(missing) == 10 - before
        assert {key(again.seed, cell) for cell in missing}.isdisjoint(first.store.keys())
        assert sum(finish(again)) == len(missing)
        noises = sorted(key(again.seed, cell).seed for cell in missing)
        assert sorted(itertools.chain(*batches)) == noises
        assert opened(f"stopped{stop}", **shape).pending() == []
        assert_alike(again.store, whole.store)
        ours, theirs = (
            store.read()["sharpness"].to_pylist() for store in (again.store, whole.store)
        )
        assert ours == theirs


def test_a_deleted_part_is_drawn_again(opened):
    evaluation = opened()
    finish(evaluation)
    before = rows(evaluation.store)
    evaluation.store.parts()[1].unlink()
    assert finish(opened()) == [6]
    assert rows(evaluation.store) == before


def test_another_policy_more_prompts_and_another_gamma_are_added(opened, monkeypatch):
    small = {"limit": 2, "policies": "baseline,fixed:0.5"}
    finish(opened(**small))
    before = rows(opened(**small).store)
    batches = drawn_seeds(monkeypatch)

    finish(opened(**{**small, "policies": "baseline,time-shift"}))
    assert sum(map(len, batches)) == 2
    finish(opened(**{**small, "limit": 4}))
    assert sum(map(len, batches)) == 2 + 4
    finish(opened(**{**small, "gammas": (1.0, 2.0)}))
    assert sum(map(len, batches)) == 2 + 4 + 2
    finish(opened(**{**small, "policies": "baseline,fixed:0.5@4"}))
    assert sum(map(len, batches)) == 2 + 4 + 2 + 2
    finish(opened(**{**small, "steps": (2,)}))
    store = opened(**small).store
    assert len(store.keys()) == sum(map(len, batches)) + 4 == 4 + 10 + 4
    after = rows(store)
    assert all(row in after for row in before)
    assert {(r["prompt_id"], r["seed"], r["prompt"]) for r in after} >= {
        (r["prompt_id"], r["seed"], r["prompt"]) for r in before
    }
    assert len({(r["prompt_id"], r["seed"], r["prompt"]) for r in after}) == 4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": 1}, r"seed \(42, now 1\)"),
        ({"guidance": 2.0}, r"guidance_scale \(3.0, now 2.0\)"),
        ({"size": 20}, r"size \(16, now 20\)"),
        ({"rewards": ("noise",)}, "rewards"),
        ({"backbone": "flux"}, "backbone"),
        (
            {"dataset": "mini"},
            r"dataset \(.*prompts.txt, now mini\), split \(all, now validation\)",
        ),
    ],
)
def test_what_rows_share_does_not_change(opened, changes, message):
    opened().store.begin()
    with pytest.raises(InputError, match=f"store was evaluated with .*{message}"):
        opened(**changes)


def test_a_label_that_is_another_module_by_now_is_refused(opened, modules, tmp_path):
    policies = f"baseline,learned:{tmp_path / 'tpm'}"
    case = make_case("sd3")
    tpm = randomised(tpm_for(case))
    tpm.save_pretrained(tmp_path / "tpm")
    finish(opened(policies=policies, limit=2))
    tpm.save_pretrained(tmp_path / "moved")
    load_learned.cache_clear()
    finish(opened(policies=policies, limit=3))
    randomised(tpm).save_pretrained(tmp_path / "tpm")
    load_learned.cache_clear()
    with pytest.raises(InputError, match=r"learned:.*tpm was another policy .*give another --out"):
        opened(policies=policies, limit=4)
    assert finish(opened(policies="baseline", limit=4)) == [1]  # which asks nothing of the module


def out_of_memory_above(monkeypatch, most):
    """A device on which so many images fit; the numbers that were tried."""
    tried = []
    honest = Canvas.draw

    def draw(self, text, seeds, *arguments):
        tried.append(len(seeds))
        if len(seeds) > most:
            raise torch.OutOfMemoryError
        return honest(self, text, seeds, *arguments)

    monkeypatch.setattr(Canvas, "draw", draw)
    return tried


def test_a_batch_that_does_not_fit_is_halved_and_loses_no_row(opened, monkeypatch):
    whole = opened("whole", batch_size=16)
    finish(whole)
    tried = out_of_memory_above(monkeypatch, 4)
    evaluation = opened(batch_size=16)
    counts = finish(evaluation)
    assert (tried[:3], max(tried[3:])) == ([15, 8, 4], 4)
    assert evaluation.batch_size.value == 4
    assert evaluation.batch_size.warnings == [
        "out of memory with 15 images at once: going on with 8",
        "out of memory with 8 images at once: going on with 4",
    ]
    assert sum(counts) == 18
    assert_alike(evaluation.store, whole.store, tolerance=0.01)  # a level of 256 may turn


def test_an_image_of_a_halved_batch_is_redrawn_to_the_byte(opened, monkeypatch, tmp_path):
    with monkeypatch.context() as patch:
        out_of_memory_above(patch, 4)
        evaluation = opened(batch_size=16)
        finish(evaluation)
    for path in sorted((evaluation.store.path / "images").iterdir())[::2]:
        assert len(read_provenance(path).batch) <= 4
        assert redrawn(path, tmp_path / "again") == path.read_bytes()


def test_one_image_that_does_not_fit_is_an_error(opened, monkeypatch):
    out_of_memory_above(monkeypatch, 0)
    with pytest.raises(AsyncDiffError, match="out of memory with one image at a time"):
        finish(opened())


class Counted(Evaluation):
    """An evaluation that draws nothing, on a device on which `fits` images fit."""

    def __init__(self, contenders, batch_size, fits=99):
        self.contenders, self.batch_size, self.fits = contenders, BatchSize(batch_size), fits
        self.batches = []
        self.store = SimpleNamespace(write=self.batches.append)

    def _rows(self, batch):
        if len(batch) > self.fits:
            self.batch_size.halve(len(batch))
            return None
        return batch


CONTENDERS = [
    Contender(ChosenPolicy(name, Synchronous(), 1.0), steps)
    for name in ("a", "b", "c")
    for steps in (2, 5)
]


@given(
    cells=st.sets(st.tuples(st.integers(0, 12), st.integers(0, 5))),
    batch_size=st.integers(1, 20),
    fits=st.integers(1, 20),
)
@hypothesis_settings(max_examples=200)
def test_every_cell_is_in_one_batch_that_is_not_too_large(cells, batch_size, fits):
    pending = [EvaluationCell(prompt_id, CONTENDERS[n]) for prompt_id, n in sorted(cells)]
    evaluation = Counted(CONTENDERS, batch_size, fits)
    counts = list(evaluation.run(pending))
    assert counts == [len(batch) for batch in evaluation.batches]
    every = list(itertools.chain(*evaluation.batches))
    assert len(every) == len(pending)
    assert set(every) == set(pending)
    for batch in evaluation.batches:
        assert len({cell.contender.steps for cell in batch}) == 1
        assert len(batch) <= min(batch_size, fits)


@given(prompts=st.integers(1, 12), policies=st.integers(1, 6), batch_size=st.integers(1, 20))
@hypothesis_settings(max_examples=100)
def test_prompts_stay_whole_where_they_fit(prompts, policies, batch_size):
    chosen = CONTENDERS[:policies]
    evaluation = Counted(chosen, batch_size)
    list(evaluation.run([EvaluationCell(n, c) for n in range(prompts) for c in chosen]))
    for steps in (2, 5):
        each = sum(c.steps == steps for c in chosen)
        batches = [b for b in evaluation.batches if b[0].contender.steps == steps]
        if each > batch_size:
            assert len(batches) == prompts * math.ceil(each / batch_size)
            continue
        for batch in batches:
            assert set(Counter(cell.prompt_id for cell in batch).values()) == {each}
        if each == max(Counter(c.steps for c in chosen).values()):
            assert len(batches) == math.ceil(prompts / (batch_size // each))


def test_each_number_of_steps_has_a_baseline_and_its_own_decisions(opened, monkeypatch):
    batches = drawn_seeds(monkeypatch)
    evaluation = opened(steps=(1, 3), limit=3, policies="baseline,fixed:0.5", gammas=(1.0, -1.0))
    finish(evaluation)
    assert [len(batch) for batch in batches] == [6, 6, 3, 3]
    found = evaluation.store.read().to_pylist()
    assert Counter((r["policy"], r["gamma"], r["num_inference_steps"]) for r in found) == {
        (policy, gamma, steps): 3
        for policy, gamma in (("baseline", 1.0), ("fixed:0.5", 1.0), ("fixed:0.5", -1.0))
        for steps in (1, 3)
    }
    for row in found:
        deviation = 0.0 if row["policy"] == "baseline" else 0.5
        assert row["deviations"] == [deviation] * (row["num_inference_steps"] - 1)
        assert row["seed"] == noise_seed(42, EVALUATION, row["prompt_id"])


@pytest.mark.parametrize("told", [True, False])
def test_the_images_that_are_kept_say_in_words_what_drew_them(opened, told):
    policies = "baseline,fixed:0.5,fixed:0.5@2"
    evaluation = opened(kept_images=1, limit=1, policies=policies, parameters=told)
    finish(evaluation)
    said = [
        text_chunks(path).get(PARAMETERS_CHUNK)
        for path in sorted(evaluation.store.path.glob("images/*"))
    ]
    if not told:
        assert said == [None] * 3
        return
    assert {text.splitlines()[0] for text in said} == {evaluation.text(0)}
    taken = [parsed_parameters(text) for text in said]
    assert [(words["Async policy"], words["Async gamma"]) for words in taken] == [
        ("synchronous", "1"),
        ("fixed", "1"),
        ("fixed", "2"),
    ]


def test_a_prompt_may_have_several_images_each_of_a_noise_of_its_own(opened):
    policies = "baseline", "fixed:0.5"
    few = opened(limit=2, policies=",".join(policies))
    finish(few)
    first = few.store.read().to_pylist()
    evaluation = opened(limit=2, policies=",".join(policies), num_images=3)
    assert finish(evaluation) == [6, 2]  # what is there is not drawn again
    found = evaluation.store.read().to_pylist()
    assert [row for row in found if row["seed"] in {old["seed"] for old in first}] == first
    seeds = {policy: {r["seed"] for r in found if r["policy"] == policy} for policy in policies}
    assert seeds["baseline"] == seeds["fixed:0.5"]
    assert seeds["baseline"] == {
        *(noise_seed(42, EVALUATION, n) for n in range(2)),
        *(noise_seed(42, EVALUATION, n, number) for n in range(2) for number in (1, 2)),
    }
    assert sorted(row["image"] for row in found if row["prompt_id"] == 0) == [
        f"images/000000{number}-{policy}-gamma1-steps3.png"
        for number in ("-1", "-2", "")
        for policy in ("baseline", "fixed-0.5")
    ]


@pytest.mark.parametrize("count", [0, 1, 99])
def test_the_images_of_the_first_prompts_are_kept(opened, count):
    evaluation = opened(kept_images=count, limit=2)
    finish(evaluation)
    found = evaluation.store.read().to_pylist()
    assert [row["image"] is not None for row in found] == [r["prompt_id"] < count for r in found]
    kept = sorted(path.name for path in evaluation.store.path.glob("images/*"))
    assert kept == [
        f"{n:06d}-{policy}-gamma1-steps3.png"
        for n in range(min(count, 2))
        for policy in ("baseline", "detail-daemon", "fixed-0.5")
    ]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("learned:runs/a", 1.0), ("learned:runs-a", 1.0)),
        (("learned:größe", 1.0), ("learned:gr_sse", 1.0)),
        (("schedule:a/b.json", 1.0), ("schedule:a-b.json", 1.0)),
        (("spectral:a_b.json", 1.0), ("spectral:a-b.json", 1.0)),
        ((f"calibrated:{'x' * 300}/a.json", 1.0), (f"calibrated:{'x' * 300}/b.json", 1.0)),
        (("fixed:-0.5", 1.0), ("fixed:0.5", 1.0)),
        (("schedule:1/-1", 1.0), ("schedule:-1/1", 1.0)),
        (("fixed:0.5", 1.0), ("fixed:0.5", 1.0000001)),
        ((f"learned:{'x' * 300}a", 1.0), (f"learned:{'x' * 300}b", 1.0)),
    ],
)
def test_no_two_policies_share_a_file(one, other):
    names = [
        Contender(ChosenPolicy(label, Synchronous(), gamma), 2).setting.file
        for label, gamma in (one, other)
    ]
    assert names[0] != names[1]
    assert all(name.isascii() and len(name) < 200 and "/" not in name for name in names)


def test_a_score_that_is_no_number_keeps_the_image_and_names_it(opened, monkeypatch, tmp_path):
    finish(opened(limit=2))
    honest = Sharpness._score

    def score(self, images, prompts):
        scores = honest(self, images, prompts).clone()
        scores[3] = float("nan")
        return scores

    monkeypatch.setattr(Sharpness, "_score", score)
    evaluation = opened()
    with pytest.raises(AsyncDiffError, match="sharpness is nan for image 3, which is kept as "):
        finish(evaluation)
    (kept,) = (tmp_path / "store" / "refused").iterdir()
    with Image.open(kept) as image:
        assert image.size == (16, 16)
    assert len(evaluation.store.keys()) == 6
    monkeypatch.undo()
    assert sum(finish(opened())) == 12


def test_a_failure_before_the_first_row_leaves_the_store_to_other_settings(
    opened, monkeypatch, tmp_path
):
    monkeypatch.setattr(Sharpness, "_score", lambda *_: torch.tensor([math.nan]))
    with pytest.raises(AsyncDiffError, match="is kept as "):
        finish(opened(limit=1, size=32, policies="baseline"))
    assert [path.name for path in (tmp_path / "store").glob("[!.]*")] == ["refused"]
    monkeypatch.undo()
    assert finish(opened(limit=1, policies="baseline")) == [1]


MINI = ModelChoice(backbone="mini", device="cpu")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gammas": "1,x"}, "--gammas is numbers with commas between them, not '1,x'"),
        ({"gammas": "1,nan"}, "gamma is a finite number, not nan"),
        ({"gammas": "1e400"}, "gamma is a finite number, not inf"),
        ({"steps": "2.5"}, "--steps is numbers with commas between them, not '2.5'"),
        ({"steps": "2,0"}, "0"),
        ({"steps": "-1"}, "-1"),
        ({"rewards": "sharpnes"}, "unknown reward 'sharpnes'; did you mean 'sharpness'?"),
        ({"rewards": "noise,noise"}, "--rewards names noise twice"),
        ({"reward_path": ["clip"]}, "--reward-path is NAME=FILE, not 'clip'"),
        ({"reward_path": ["clip=nowhere.pt"]}, "there is no file nowhere.pt"),
        ({"rewards": "noise", "reward_path": ["clip=a"]}, "unknown reward 'clip'"),
        ({"shard": "1"}, "a shard is I/N, such as 0/4, not '1'"),
        ({"shard": "a/2"}, "a shard is I/N, such as 0/4, not 'a/2'"),
        ({"shard": "-1/2"}, "a shard is I/N, such as 0/4, not '-1/2'"),
        ({"shard": "2/2"}, "with I from 0 to N − 1 and N to 1,000,000, not 2/2"),
        ({"shard": "0/0"}, "not 0/0"),
        ({"limit": 0}, "--limit is a whole number from 1"),
        ({"batch_size": 0}, "--batch-size is a whole number from 1"),
        ({"kept_images": -1}, "--images is a whole number from 0"),
        ({"num_images": 0}, "--num-images is a whole number from 1"),
        ({"seed": -1}, "--seed: Input should be greater"),
        ({"seed": 2**63}, "--seed: Input should be less"),
        ({"guidance": math.nan}, "--guidance: Input should be a finite number"),
        ({"guidance": math.inf}, "--guidance: Input should be a finite number"),
        ({"guidance": -5.0}, "--guidance: Input should be greater"),
        ({"size": 0}, "--size"),
    ],
)
def test_bad_options_are_refused_in_one_line(options, message):
    with pytest.raises(InputError) as error:
        parse_comparison(MINI, **{"policies": "baseline", **options})
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("policies", "message"),
    [
        ("fixed:0.5", "there is nothing to compare with: add baseline to --policies"),
        ("baseline,lerned", "unknown policy 'lerned'; did you mean 'learned'?"),
        ("baseline,", "unknown policy ''"),
        ("baseline,fixed", "policy fixed needs a value, such as fixed:0.5"),
        ("baseline,fixed:2", "outside [-1, 1]"),
        ("baseline,learned:nowhere", "nowhere"),
        ("baseline,fixed:0.5,fixed:.50", "there twice with the same γ and number of steps"),
        ("baseline,synchronous", "there twice"),
        ("baseline,fixed:0.5,fixed:0.5@2", "there twice"),
    ],
)
def test_bad_policies_are_refused_in_one_line_and_write_nothing(tmp_path, policies, message):
    wanted = Comparison(MINI, policies, gammas=(1.0, 2.0))
    with pytest.raises(InputError) as error:
        open_evaluation(wanted, tmp_path / "store")
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "store").exists()


def test_what_is_typed_is_read():
    wanted = parse_comparison(
        MINI, "baseline,learned", "0.5,1,.5", "2,4", "sharpness", [], "1/3", limit=5
    )
    assert (wanted.gammas, wanted.steps, wanted.shard) == ((0.5, 1.0), (2, 4), (1, 3))
    assert (wanted.reward_names(), wanted.limit) == (["sharpness", "noise"], 5)
    assert parse_comparison(MINI, "baseline").gammas == (1.0,)


def settings_of(wanted):
    return [(c.label, c.gamma, c.steps) for c in wanted.contenders(REGISTRY["mini"])]


def test_the_baseline_comes_first_and_has_no_gamma():
    wanted = Comparison(MINI, "fixed:0.5,baseline,fixed:0.1@3", gammas=(0.5, 2.0), steps=(2, 4))
    assert settings_of(wanted) == [
        *(("baseline", 1.0, steps) for steps in (2, 4)),
        *(("fixed:0.5", gamma, steps) for steps in (2, 4) for gamma in (0.5, 2.0)),
        *(("fixed:0.1", 3.0, steps) for steps in (2, 4)),
    ]
    steps = REGISTRY["mini"].num_inference_steps
    assert settings_of(Comparison(MINI, "baseline,spectral")) == [
        ("baseline", 1.0, steps),
        ("spectral", 1.0, steps),
    ]


def test_a_backbone_is_compared_by_the_modules_that_it_ships():
    both = REGISTRY["mini"]
    assert table_policies(both) == "baseline,spectral,learned,lifted,joint"
    assert table_policies(REGISTRY["qwen-image"]) == "baseline,fixed:0.5"
    neither = replace(both, modules={})
    assert table_policies(neither) == "baseline,spectral"
    assert figure_5(neither) == "baseline,spectral@0.5,spectral,spectral@2"
    assert figure_5(both) == "baseline,learned@0.5,learned,learned@2,lifted"


@pytest.mark.parametrize(
    ("backbone", "dataset", "rewards"),
    [
        ("mini", "mini", ["mini_judge", "mini_clip", "mini_quality", "sharpness", "noise"]),
        ("sd35", "coco2014", ["image_reward", "hpsv2", "clip", "pickscore", "noise"]),
        ("flux", "coco2014", ["image_reward", "hpsv2", "clip", "pickscore", "noise"]),
    ],
)
def test_the_defaults_of_a_backbone(backbone, dataset, rewards):
    wanted = Comparison(ModelChoice(backbone=backbone), "baseline")
    assert (wanted.source, wanted.reward_names()) == (dataset, rewards)
    assert wanted.default_out == Path("evals") / f"{backbone}-{dataset}"


def test_a_backbone_without_a_set_of_its_own():
    wanted = Comparison(ModelChoice(backbone="some/pipeline"), "baseline")
    with pytest.raises(InputError, match="what to draw: give --dataset coco2014, "):
        wanted.source  # noqa: B018
    own = Comparison(ModelChoice(backbone="some/pipeline"), "baseline", dataset="my/prompts.txt")
    assert own.default_out == Path("evals") / "pipeline-prompts"


def test_how_many_prompts_are_drawn(tmp_path, monkeypatch):
    def drawn(**options):
        prompts, order = Comparison(MINI, "baseline", **options).load_prompts()
        assert len(set(order)) == len(order)
        return [prompts.texts[i] for i in order]

    assert drawn() == list(load_prompts("mini", "validation").draw(256, 42))
    assert drawn(limit=3, seed=7) == drawn(limit=9, seed=7)[:3] != drawn(limit=3)
    assert drawn(texts=("b", "a", "b"))[0] == "b"
    with pytest.raises(InputError, match=r"mini has 1,022 validation prompts: .* not 1,025"):
        drawn(limit=1025)
    write_lists(tmp_path)
    lists = {"dataset": "t2i-compbench", "prompts": tmp_path}
    assert sorted(drawn(**lists)) == sorted(
        f"{category} val {n}" for category in T2I_CATEGORIES for n in ("1", "2.")
    )
    captions = write_captions(tmp_path / COCO_FILES["validation"], *map(str, range(30)))
    monkeypatch.setitem(load.EVALUATED, "coco2014", 20)
    assert len(drawn(dataset="coco2014", prompts=captions)) == 20
    monkeypatch.setitem(load.EVALUATED, "coco2014", 2048)
    assert len(drawn(dataset="coco2014", prompts=captions)) == 30


def test_prompts_of_the_command_line_are_drawn_as_they_come(opened):
    evaluation = opened(texts=("a cat", "a bee", "a cat"), policies="baseline")
    assert finish(evaluation) == [3]
    found = evaluation.store.read().to_pylist()
    assert [row["prompt"] for row in found] == ["a cat", "a bee", "a cat"]
    assert found[0]["sharpness"] != found[2]["sharpness"]


def test_a_module_is_called_by_what_it_decides():
    assert module_policy(0.5, ("deviation",)) == "learned"
    assert module_policy(1.0, ("deviation",)) == "lifted"
    assert (
        module_policy(1.0, ("deviation", "scale"))
        == module_policy(0.5, ("scale", "grid"))
        == "joint"
    )


@pytest.mark.parametrize(("bound", "name"), [(0.5, "learned"), (1.0, "lifted")])
def test_a_runs_module_is_evaluated_as_it_was_trained(tmp_path, pipelines, bound, name):
    run = tmp_path / "run"
    with pytest.raises(InputError, match="holds neither an evaluation nor a run with a module"):
        comparison_of_run(run, 2, ModelChoice(device="cpu"))
    recipe = small_recipe(pipelines["sd3"], bound=bound, guidance_scale=2.0, size=16)
    tpm_for(make_case("sd3"), bound).save_pretrained(run / "tpm")
    (run / "recipe.yaml").write_text(to_yaml(recipe))
    evaluation = open_evaluation(
        comparison_of_run(run, 2, ModelChoice(device="cpu")), run / "evaluation"
    )
    finish(evaluation)
    found = evaluation.store.read().to_pylist()
    assert [(r["policy"], r["bound"], r["num_inference_steps"]) for r in found] == [
        ("baseline", 1.0, 3),
        (f"{name}:{run / 'tpm'}", bound, 3),
    ] * 2
    kept = evaluation.store.settings
    assert (kept["guidance_scale"], kept["size"], kept["dataset"]) == (2.0, 16, "mini")
    assert set(kept["rewards"]) == {"noise", "sharpness"}


def test_a_set_is_evaluated_on_its_validation_split():
    assert load_evaluation_prompts("mini") == load_prompts("mini", "validation")
    with pytest.raises(InputError, match="unknown prompt source 'minni'; did you mean 'mini'"):
        load_evaluation_prompts("minni")


def test_a_file_is_evaluated_on_as_a_whole(tmp_path):
    file = tmp_path / "prompts.txt"
    file.write_text("# mine\nb\n\na\nb\n ein Bär \n", encoding="utf-8")
    assert load_evaluation_prompts(str(file)) == PromptSet(str(file), "all", ("b", "a", "ein Bär"))
    lines = tmp_path / "prompts.jsonl"
    lines.write_text('{"prompt": "b", "seed": 3}\n{"prompt": "b", "seed": 4}\n{"prompt": "a"}')
    assert load_evaluation_prompts(str(lines)).texts == ("b", "a")
    file.write_text("# nothing\n")
    with pytest.raises(InputError, match=r"prompts\.txt holds no prompt"):
        load_evaluation_prompts(str(file))


def test_captions_are_evaluated_on_from_a_local_file(tmp_path):
    file = write_captions(tmp_path / COCO_FILES["validation"], "A dog. ", "Ein Bär\n", "A cat.")
    for path in (file, tmp_path):
        found = load_evaluation_prompts("coco2014", path=path)
        assert found == PromptSet("coco2014", "validation", ("A cat.", "Ein Bär", "A dog."))


def test_lists_come_with_their_categories(tmp_path):
    found = load_evaluation_prompts("t2i-compbench", path=write_lists(tmp_path))
    assert len(found.categories) == len(found) == 16
    assert [text.split(" val ")[0] for text in found.texts] == list(found.categories)


@needs_lists
def test_the_official_lists_have_300_prompts_a_category():
    found = load_evaluation_prompts("t2i-compbench", path=LISTS)
    assert Counter(found.categories) == dict.fromkeys(T2I_CATEGORIES, 300)


def test_a_rows_category_is_its_prompts(opened, tmp_path):
    lists = write_lists(tmp_path / "lists")
    evaluation = opened(dataset="t2i-compbench", prompts=lists, policies="baseline")
    finish(evaluation)
    found = evaluation.store.read().to_pylist()
    assert len(found) == 16
    assert all(row["prompt"].startswith(f"{row['category']} val ") for row in found)
