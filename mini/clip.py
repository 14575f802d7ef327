"""Stage ``reward_clip``: an image-text model of mini's world, for the reward ``mini_clip``.

CLIP's contrastive loss, in which every picture also has captions of its own that are nearly right:
one count, colour, thing, place or ground exchanged, or the order of two things.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer, CLIPVisionConfig

from asyncdiff_cli.engine.rewards.world.grammar import say
from mini.compose import Composer
from mini.contradictions import contradict
from mini.judge import degrade
from mini.scenes import Batch, Scenes
from mini.settings import SIZE, Settings
from mini.text import load_tokenizer, text_config, tokens
from mini.training import Budget, Run, adamw


def build(tokenizer: CLIPTokenizer, settings: Settings) -> CLIPModel:
    own = settings.clip
    vision = CLIPVisionConfig(
        hidden_size=own.vision_width,
        intermediate_size=4 * own.vision_width,
        num_hidden_layers=own.vision_layers,
        num_attention_heads=max(1, own.vision_width // 32),
        image_size=SIZE,
        patch_size=own.patch,
        projection_dim=settings.text.projection,
        hidden_act="gelu",
    )
    return CLIPModel(
        CLIPConfig(
            text_config=text_config(tokenizer, settings).to_dict(),
            vision_config=vision.to_dict(),
            projection_dim=settings.text.projection,
        )
    )


@dataclass(frozen=True)
class Draw:
    """Scenes and ids [B, 1 + negatives, tokens]; the first caption of each is right."""

    scenes: Batch
    ids: Tensor


def contrast(model: CLIPModel, pictures: Tensor, ids: Tensor) -> dict[str, Tensor]:
    """Symmetric InfoNCE; a picture chooses among all right captions and its own wrong ones."""
    count, several, length = ids.shape
    image = functional.normalize(model.get_image_features(pictures).pooler_output, dim=-1)
    texts = model.get_text_features(ids.view(-1, length)).pooler_output
    texts = functional.normalize(texts, dim=-1).view(count, several, -1)
    scale = model.logit_scale.clamp(max=4.6).exp()
    with torch.autocast(ids.device.type, enabled=False):  # in bf16, close logits would tie
        image, texts = image.float(), texts.float()
        across = scale * image @ texts[:, 0].T
        wrong = scale * torch.einsum("bd,bnd->bn", image, texts[:, 1:])
    target = torch.arange(count, device=ids.device)
    to_text = functional.cross_entropy(torch.cat((across, wrong), 1), target)
    to_image = functional.cross_entropy(across.T, target)
    own = across.diagonal()[:, None]
    return {
        "loss": (to_text + to_image) / 2,
        "top1": (across.argmax(1) == target).float().mean(),
        "hard": (own > wrong).float().mean(),
    }


def train(
    scenes: Scenes, composer: Composer, settings: Settings, work: Path, seconds: float | None
) -> tuple[CLIPModel, CLIPTokenizer]:
    """Train, resume, or load a trained model."""
    own, device = settings.clip, composer.device
    tokenizer = load_tokenizer(scenes, settings, work, own.seed)
    torch.manual_seed(own.seed)
    model = build(tokenizer, settings).to(device)
    run = Run(
        work / "reward_clip", {"model": model}, [adamw(model.parameters(), own.lr, 0.1)],
        Budget(own.steps, seconds), min(100, own.steps // 4), decay=0.5, workers=settings.workers,
    )  # fmt: skip

    def draw(step: int) -> Draw:
        rng = random.Random(f"{own.seed}/{step}")
        drawn = [scenes.draw(rng) for _ in range(own.batch)]
        captions = []
        for scene in drawn:
            facts = scenes.facts(scene, rng)
            wrong = [contradict(facts, rng) for _ in range(own.negatives)]
            captions += [say(request, rng) for request in (facts, *wrong)]
        ids = tokens(tokenizer, captions).view(own.batch, 1 + own.negatives, -1)
        return Draw(Batch.of(drawn), ids)

    def loss_at(batch: Draw) -> dict[str, Tensor]:
        torch.manual_seed(int(batch.scenes.noise[0]))
        return contrast(model, degrade(composer.render(batch.scenes)), batch.ids.to(device))

    run.train(loss_at, draw)
    return model.eval().requires_grad_(False), tokenizer
