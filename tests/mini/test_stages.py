"""Every stage for a few steps, and what comes out of them."""

import json
import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusion3Pipeline
from PIL import Image

from asyncdiff_cli.engine import REGISTRY, load_backbone, sample
from asyncdiff_cli.engine.backbones.vocabulary import Vocabulary
from asyncdiff_cli.engine.files import umask
from asyncdiff_cli.engine.rewards.mini_clip import MiniClip
from asyncdiff_cli.engine.rewards.mini_judge import MiniJudge
from asyncdiff_cli.engine.rewards.mini_quality import MiniQuality
from asyncdiff_cli.engine.rewards.world.grammar import say
from asyncdiff_cli.engine.rewards.world.judge import look
from asyncdiff_cli.engine.training.recipe_files import load_recipe
from mini import pack, stages
from mini.__main__ import MODELS, main
from mini.art import Sprites
from mini.evaluate import Evaluation
from mini.ladders import Ladders
from mini.scenes import Batch
from mini.settings import Settings
from mini.text import tokens


@pytest.fixture(scope="module")
def work(sprites: Sprites, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What ``python -m mini all --smoke`` leaves."""
    directory = tmp_path_factory.mktemp("work")
    _saved(sprites, directory)
    arguments = ["mini", "all", "--smoke", "--work", str(directory), "--threads", "1"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", arguments)
        main()
    return directory


def plan(work: Path, out: Path, deadline: float | None = None) -> stages.Plan:
    return stages.Plan(Settings.smoke(), work / "sprites.webp", work, out, deadline)


def test_all_stages(work: Path) -> None:
    out, settings = work / "out", Settings.smoke()
    plain = StableDiffusion3Pipeline.from_pretrained(out / "mini")
    assert {plain.transformer.dtype, plain.text_encoder.dtype, plain.text_encoder_3.dtype} == {
        torch.float32
    }
    assert plain.transformer.config.num_layers == 2
    weights = {path.stat().st_mode & 0o777 for path in out.rglob("*.safetensors")}
    assert weights == {0o666 & ~umask()}
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["trained"]["transformer"]["step"] == 2
    assert set(metrics["mini"]["categories"]) == {
        *("single", "pair", "count", "colour", "place", "relation", "ground")
    }
    assert set(metrics["mini"]["by_steps"]) == {"1", "2"}
    assert metrics["mini"]["deviations"]["2"]["+0"]["scores_change"]["mean"] == 0
    assert tuple(stages.MODELS) == MODELS
    for name in MODELS:
        text = (out / name / "README.md").read_text()
        assert "## Measured" in text
        assert "| --- |" in text
    assert Image.open(out / "sheet.webp").size == (1280, 1280)
    known = Vocabulary.load(out / "mini")
    assert known.unknown(["two sheep left of a huge fire engine under a starry sky"]) == []
    backbone = load_backbone("mini", model_path=out / "mini")
    generator = torch.Generator().manual_seed(0)
    result = sample(backbone, "a cat", generator=generator, num_inference_steps=1)
    assert result.images[0].size == (128, 128)
    assert backbone.pipe.vae.config.latent_channels == settings.vae.latent_channels


@pytest.mark.slow
def test_an_evaluation_goes_on_with_what_is_missing(
    work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    shutil.copytree(work / "out", out)
    path, drawn = out / "metrics.json", []
    whole = json.loads(path.read_text())
    del (cut := json.loads(path.read_text()))["mini"]["deviations"]["2"]["+0.5"], cut["quality"]
    path.write_text(json.dumps(cut))
    draw = Evaluation.draw

    def counted(self: Evaluation, *arguments: Any, **options: Any) -> torch.Tensor:
        drawn.append(arguments[1:])
        return draw(self, *arguments, **options)

    monkeypatch.setattr(Evaluation, "draw", counted)
    plan(work, out).run("evaluate")
    assert drawn == [(2,), (2, 0.5)]
    assert json.loads(path.read_text()) == whole
    (out / "mini" / "vae" / "other.safetensors").write_bytes(b"")  # other weights: all of it again
    plan(work, out).run("evaluate")
    assert len(drawn) > 6


def test_the_package_for_another_machine_holds_code_and_sprites(work: Path, tmp_path: Path) -> None:
    size = pack.gather(work / "sprites.webp", tmp_path / "pack")
    assert size < 8 * 2**20
    assert not (tmp_path / "pack" / "asyncdiff_cli" / "assets").exists()
    assert {path.name for path in (tmp_path / "pack").iterdir()} == {
        *("mini", "asyncdiff_cli", "recipes", "work", "run.sh")
    }


def test_complete_stages_travel_and_take_no_time(work: Path, tmp_path: Path) -> None:
    target = tmp_path / "pack"
    pack.gather(work / "sprites.webp", target, stages=("judge", "vae"))
    there = target / "work"
    assert {path.name for path in (there / "judge").iterdir()} == {"checkpoint.pt", "log.jsonl"}
    assert (there / "tokenizer-31" / "tokenizer.json").exists()
    own = plan(there, tmp_path / "out", deadline=time.monotonic() + 100)
    own.stage, shares = "transformer", own.settings.shares
    rest = 1 - shares["judge"] - shares["vae"]
    assert own.seconds("transformer") == pytest.approx(100 * shares["transformer"] / rest, rel=0.05)
    own.stage = "judge"
    assert own.judge.training is False
    with pytest.raises(ValueError, match="reward_clip is not complete in"):
        pack.gather(there / "sprites.webp", tmp_path / "again", stages=("reward_clip",))


@pytest.mark.slow
def test_a_rehearsal_of_the_call_on_a_gpu(sprites: Sprites, tmp_path: Path) -> None:
    """The networks and batches of the real one, a step in a hundred, bound by time."""
    pack.gather(_saved(sprites, tmp_path), tmp_path / "pack")
    own = tmp_path / "pack"
    command = ["sh", "run.sh", "pieces", "--minutes", "6", "--scale", "0.01"]
    subprocess.run(command, cwd=own, check=True, env={**os.environ, "PYTHON": sys.executable})
    pieces = sorted((own / "pieces").glob("piece-*"))
    assert sum(path.stat().st_size for path in pieces) < 60e6
    assert json.loads((own / "work" / "out" / "metrics.json").read_text())["trained"]


def _saved(sprites: Sprites, directory: Path) -> Path:
    sprites.save(directory / "sprites.webp")
    return directory / "sprites.webp"


def test_what_is_trained_is_what_the_pipeline_feeds(work: Path) -> None:
    trained = plan(work, work / "out")
    trained.stage = "export"
    pipe = StableDiffusion3Pipeline.from_pretrained(
        work / "out" / "mini", torch_dtype=torch.float32
    )
    caption, model = "an ice cream left of a sheep on orange stripes", trained.transformer
    for padding in (8, 256):
        expected = model.text(tokens(model.tokenizer, [caption]), padding)
        given = pipe.encode_prompt(caption, None, None, max_sequence_length=padding)
        torch.testing.assert_close(given[0], expected[0], atol=2e-2, rtol=0)
        torch.testing.assert_close(given[2], expected[1], atol=2e-2, rtol=0)


def test_the_rewards_are_exported_as_the_package_reads_them(work: Path) -> None:
    picture = Image.new("RGB", (128, 128))
    clip = MiniClip.from_directory(work / "out" / "mini_clip")
    assert -1 <= clip.score(picture, "a cat").item() <= 1
    quality = MiniQuality.from_directory(work / "out" / "mini_quality")
    assert torch.isfinite(quality.score(picture, "a cat")).all()
    judge = MiniJudge.from_directory(work / "out" / "mini_judge")
    found, features = look(judge.model, torch.zeros(2, 3, 128, 128))
    assert len(found) == 2
    assert features.shape == (2, 32)


def test_a_ladder_goes_from_the_scene_down_to_the_fewest_steps(work: Path, tmp_path: Path) -> None:
    own = plan(work, tmp_path)
    pipe = StableDiffusion3Pipeline.from_pretrained(work / "out" / "mini")
    ladders = Ladders(own.scenes, own.composer, work / "out" / "mini", own.settings, tmp_path)
    drawn = ladders.draw(3)
    assert drawn.shape == (3, 3, 3, 128, 128)
    rng = random.Random(f"{own.settings.quality.seed}/ladders/0")
    scenes = [own.scenes.draw(rng) for _ in range(3)]
    captions = [say(own.scenes.facts(scene, rng), rng) for scene in scenes]
    seeds = [rng.getrandbits(32) for _ in scenes]
    latents = pipe.vae.encode(own.composer.render(Batch.of(scenes))).latent_dist.mode()
    expected = [pipe.image_processor.postprocess(pipe.vae.decode(latents).sample.detach(), "pt")]
    for steps in (2, 1):
        generator = [torch.Generator().manual_seed(seed) for seed in seeds]
        options = {"guidance_scale": 3.0, "max_sequence_length": 8, "output_type": "pt"}
        expected.append(
            pipe(captions, num_inference_steps=steps, generator=generator, **options).images
        )
    off = drawn.float() / 255 - torch.stack(expected, dim=1)
    assert off[:, 0].abs().max() < 1 / 255
    assert off.abs().max() < 0.05  # what is drawn is drawn in bf16
    (part,) = tmp_path.rglob("*.safetensors")
    before = part.stat().st_mtime_ns
    assert torch.equal(ladders.draw(3), drawn)
    assert part.stat().st_mtime_ns == before


def test_one_model_can_be_made_for_a_pipeline_that_is_given(
    work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(work / "sprites.webp", tmp_path)
    shutil.copy(work / "sprites.json", tmp_path)
    for stage in ("export", "evaluate", "card"):
        arguments = ["mini", stage, "--smoke", "--work", str(tmp_path), "--threads", "1"]
        arguments += ["--mini", str(work / "out" / "mini"), "--models", "mini_quality"]
        monkeypatch.setattr(sys, "argv", arguments)
        main()
    out = tmp_path / "out"
    assert {path.name for path in out.iterdir()} == {"mini_quality", "metrics.json"}
    assert "| steps |" in (out / "mini_quality" / "README.md").read_text()
    assert set(json.loads((out / "mini_quality" / "metrics.json").read_text())) >= {"steps", "jpeg"}
    assert not (tmp_path / "transformer").exists()


def test_an_export_again_gives_the_same_weights(work: Path, tmp_path: Path) -> None:
    own = plan(work, tmp_path)
    own.run("export")
    for path in tmp_path.rglob("*.safetensors"):
        assert path.read_bytes() == (work / "out" / path.relative_to(tmp_path)).read_bytes()


def test_the_minutes_are_shared_by_what_is_left(
    work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sprites, out = work / "sprites.webp", tmp_path / "out"
    own = stages.Plan(Settings.smoke(), sprites, tmp_path, out, deadline=1000.0)
    shares, now = own.settings.shares, [900.0]
    monkeypatch.setattr(stages.time, "monotonic", lambda: now[0])
    own.stage = "judge"
    assert own.seconds("judge") == pytest.approx(100 * shares["judge"])
    now[0] = 990.0  # much was lost: the last one still leaves its share for the rest
    rest = 1 - sum(shares.values())
    last = shares["reward_quality"]
    assert own.seconds("reward_quality") == pytest.approx(10 * last / (last + rest))
    now[0] = 1001.0
    assert own.seconds("vae") == 0.0
    own.stage = "export"
    assert own.seconds("judge") == 0.0


def test_the_registry_draws_as_the_modules_were_trained() -> None:
    entry = REGISTRY["mini"]
    for recipe in map(load_recipe, ("mini", "mini-lifted")):
        assert entry.num_inference_steps == recipe.num_inference_steps
        assert recipe.guidance_scale in (None, entry.guidance_scale)
    assert entry.max_sequence_length == Settings().transformer.padding
