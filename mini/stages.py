"""The stages in their order, each made once, and what time each may take."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from asyncdiff_cli.engine.files import write_text
from asyncdiff_cli.engine.hashes import sha256_of_files
from asyncdiff_cli.engine.rewards.mini_clip import MiniClip
from asyncdiff_cli.engine.rewards.mini_quality import MiniQuality
from mini import (
    card,
    clip,
    export,
    judge,
    probabilities,
    quality,
    reference,
    rewards,
    transformer,
    vae,
)
from mini.art import Sprites
from mini.compose import Composer
from mini.evaluate import Evaluation
from mini.scenes import Scenes
from mini.settings import SIZE, Settings
from mini.training import is_complete, pick_device

TRAINED = ("judge", "vae", "transformer", "reward_clip", "reward_quality")
MODELS = {
    "mini_judge": ("judge",),
    "mini_clip": ("reward_clip",),
    "mini_quality": ("reward_quality",),
    "mini": ("vae", "transformer"),
}
"""What is exported, and the stages that train it."""


class Plan:
    """Runs stages in ``work`` and writes models into ``out``; the deadline is monotonic time.

    Args:
        mini: an exported pipeline, in place of what ``work`` has trained.
        models: of `MODELS`, what is exported, measured and described.
    """

    def __init__(
        self,
        settings: Settings,
        sprites: Path,
        work: Path,
        out: Path,
        deadline: float | None = None,
        threads: int = 1,
        mini: Path | None = None,
        models: Sequence[str] = tuple(MODELS),
    ) -> None:
        torch.set_num_threads(threads)
        self.settings, self.work, self.out, self.deadline = settings, work, out, deadline
        self.mini, self.models = mini, models
        art = Sprites.load(sprites)
        self.scenes = Scenes(art.drawings)
        device = pick_device()
        if device.type == "cuda":
            torch.backends.cudnn.benchmark = True
            torch.set_float32_matmul_precision("high")
        self.composer = Composer(art, SIZE, device)
        self.stage = ""

    def run(self, stage: str) -> None:
        begun = time.monotonic()
        self.stage = stage
        made = getattr(self, stage)  # what is trained is made by being asked for
        if stage not in TRAINED:
            made()
        if self.composer.device.type == "cuda":
            torch.cuda.empty_cache()
        print(f"{stage}: {time.monotonic() - begun:.0f} s", flush=True)

    def seconds(self, stage: str) -> float | None:
        """What ``stage`` may train: its share of what is left for it and for those after it.

        Time that one stage saves or loses is shared by the stages after it, and what is complete
        takes none. Zero loads checkpoints as they are.
        """
        if self.stage not in TRAINED:
            return 0.0
        if self.deadline is None:
            return None
        shares = self.settings.shares
        later = sum(
            shares[name]
            for name in TRAINED[TRAINED.index(stage) :]
            if name == stage or not is_complete(self.work / name)
        )
        rest = 1 - sum(shares.values())
        return max(0.0, (self.deadline - time.monotonic()) * shares[stage] / (later + rest))

    @cached_property
    def judge(self) -> judge.JudgeNet:
        return judge.train(
            self.scenes, self.composer, self.settings, self.work, self.seconds("judge")
        )

    @cached_property
    def vae(self) -> vae.AutoencoderKL:
        return vae.train(
            self.scenes, self.composer, self.judge, self.settings, self.work, self.seconds("vae")
        )

    @cached_property
    def transformer(self) -> transformer.Trained:
        return transformer.train(
            self.scenes, self.composer, self.judge, self.vae, self.settings, self.work,
            self.seconds("transformer"),
        )  # fmt: skip

    def exported(self) -> Path:
        """The pipeline that the quality reward is trained for."""
        if self.mini is not None:
            return self.mini
        self._export_mini(self.work / "mini")
        return self.work / "mini"

    @cached_property
    def reward_clip(self) -> tuple[clip.CLIPModel, clip.CLIPTokenizer]:
        return clip.train(
            self.scenes, self.composer, self.settings, self.work, self.seconds("reward_clip")
        )

    @cached_property
    def reward_quality(self) -> quality.QualityNet:
        return quality.train(
            self.scenes, self.composer, self.exported, self.settings, self.work,
            self.seconds("reward_quality"),
        )  # fmt: skip

    def export(self) -> None:
        for name in self.models:
            for stage in MODELS[name]:
                if not is_complete(self.work / stage):
                    print(f"export: {name} although {stage} is not complete", flush=True)
            getattr(self, f"_export_{name}")(self.out / name)
        megabytes = sum(p.stat().st_size for p in self.out.rglob("*.safetensors")) / 1e6
        print(f"export: {megabytes:.1f} MB", flush=True)

    def _export_mini_judge(self, target: Path) -> None:
        judged = probabilities.scaled(self.judge, self.scenes, self.composer, self.settings)
        export.judge(judged, self.settings, target)
        reference.write(self.scenes, self.composer, self.settings, target)

    def _export_mini_clip(self, target: Path) -> None:
        export.clip(*self.reward_clip, target)

    def _export_mini_quality(self, target: Path) -> None:
        export.quality(self.reward_quality, self.settings, target)

    def _export_mini(self, target: Path) -> None:
        export.pipeline(self.vae, self.transformer, self.scenes, self.settings, target)

    def evaluate(self) -> None:
        """Measure the directories that were exported, as the package reads them.

        It goes on with what an earlier run has measured of the same weights.
        """
        path = self.out / "metrics.json"
        measured = self._measured(path)

        def save() -> None:
            write_text(path, json.dumps(measured, indent=1) + "\n")

        if "mini" in self.models:
            self._evaluate_mini(measured, save)
        for name, reward, part in (
            ("clip", "mini_clip", self._measure_clip),
            ("quality", "mini_quality", self._measure_quality),
        ):
            if reward in self.models and name not in measured:
                measured[name] = part()
            save()

    def _evaluate_mini(self, measured: dict[str, Any], save: Callable[[], None]) -> None:
        evaluation = Evaluation(
            self.out,
            self.scenes,
            self.composer,
            self.settings,
            self.deadline or float("inf"),
            measured.setdefault("mini", {}),
            save,
        )
        if "prompts" not in measured:
            picture, measured["prompts"] = evaluation.sheet()
            picture.save(self.out / "sheet.webp", quality=90)
            evaluation.figure(self.out / "steps-deviation.png")
        evaluation.run()

    def _measured(self, path: Path) -> dict[str, Any]:
        """What `path` has of these exports, and nothing of others."""
        weights = sorted(self.out.rglob("*.safetensors"))
        exported = sha256_of_files([(p.relative_to(self.out).as_posix(), p) for p in weights])
        of = {"weights": exported, "settings": repr(self.settings)}
        found = json.loads(path.read_text()) if path.exists() else {}
        return found if found.get("of") == of else {"of": of, "trained": self.trained()}

    def _measure_clip(self) -> dict:
        reward = MiniClip.from_directory(self.out / "mini_clip")
        reward.model.to(self.composer.device)
        return rewards.measure_clip(reward, self.scenes, self.composer, self.settings)

    def _measure_quality(self) -> dict:
        reward = MiniQuality.from_directory(self.out / "mini_quality")
        reward.model.to(self.composer.device)
        mini = self.mini or self.out / "mini"
        own = self.scenes, self.composer, mini, self.settings, self.work
        return rewards.measure_quality(reward, *own)

    def trained(self) -> dict[str, dict]:
        """The last line of every stage's log: steps and losses."""
        logs = {stage: self.work / stage / "log.jsonl" for stage in TRAINED}
        return {
            stage: json.loads(log.read_text().splitlines()[-1])
            for stage, log in logs.items()
            if log.exists()
        }

    def card(self) -> None:
        metrics = json.loads((self.out / "metrics.json").read_text())
        card.write(metrics, self.settings, self.out, self.models)
