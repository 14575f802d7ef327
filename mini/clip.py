"""Stage ``clip``: the image-text model whose two text towers condition the transformer.

Trained once more with another seed and other data (stage ``judge``), it is the judge that the
samples are measured with. A third training (stage ``reward_clip``), with a seed, data and tokenizer
of its own and one text tower, is the reward that the package ships.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from torch import Tensor, nn
from torch.nn import functional
from transformers import (
    CLIPTextConfig,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)

from mini.data import Composer, Scene
from mini.settings import Settings
from mini.training import Run, pick_device
from mini.vae import to_tensor

START, END = "<|startoftext|>", "<|endoftext|>"


@dataclass(frozen=True)
class Stage:
    """What sets one training of the image-text model apart from the others."""

    seed: int
    steps: int
    towers: int = 2
    tokenizer: str = "tokenizer"  # its directory, inside the working directory
    tokenizer_seed: int | None = None  # None: the seed of ``clip``, whose tokenizer is shared


def stages(settings: Settings) -> dict[str, Stage]:
    """The trainings by name: what conditions mini, what judges it, and what rewards it."""
    clip = settings.clip
    return {
        "clip": Stage(clip.seed, clip.steps),
        "judge": Stage(clip.judge_seed, clip.judge_steps),
        "reward_clip": Stage(
            clip.reward_seed, clip.reward_steps, 1, "reward_tokenizer", clip.reward_seed
        ),
    }


def load_tokenizer(
    composer: Composer, settings: Settings, work: Path, stage: str = "clip"
) -> CLIPTokenizer:
    """The tokenizer that ``stage`` uses in this working directory, trained on first use.

    It is kept because the trainer numbers its tokens differently in every process.
    """
    own = stages(settings)[stage]
    path = work / own.tokenizer
    if not path.exists():
        partial = path.with_suffix(".partial")
        seed = settings.clip.seed if own.tokenizer_seed is None else own.tokenizer_seed
        train_tokenizer(composer, settings, seed).save_pretrained(partial)
        partial.rename(path)
    return CLIPTokenizer.from_pretrained(path)


def train_tokenizer(composer: Composer, settings: Settings, seed: int) -> CLIPTokenizer:
    """A byte-level BPE, in CLIP's own format, whose merges come from the captions."""
    rng = np.random.default_rng(seed)
    captions = [
        composer.caption(composer.compose(rng), rng) for _ in range(20 * len(composer.concepts))
    ]
    clip = CLIPTokenizer()
    learner = Tokenizer(models.BPE(unk_token=END, end_of_word_suffix="</w>"))
    learner.normalizer = clip.backend_tokenizer.normalizer
    learner.pre_tokenizer = clip.backend_tokenizer.pre_tokenizer
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=settings.clip.vocabulary,
        initial_alphabet=alphabet,
        end_of_word_suffix="</w>",
        special_tokens=[START, END],
        show_progress=False,
    )
    # A letter that ends a word is a token of its own, so that any word can be spelt out.
    learner.train_from_iterator(
        [*captions, " ".join("abcdefghijklmnopqrstuvwxyz0123456789")], trainer
    )
    model = json.loads(learner.to_str())["model"]
    merges = [tuple(merge) for merge in model["merges"]]
    return CLIPTokenizer(vocab=model["vocab"], merges=merges, model_max_length=settings.clip.tokens)


@dataclass
class ImageText:
    """Text towers and a vision tower into one space; the temperature is learned."""

    tokenizer: CLIPTokenizer
    texts: nn.ModuleList
    vision: CLIPVisionModelWithProjection
    temperature: nn.ParameterDict

    def tokens(self, captions: list[str]) -> Tensor:
        options = {"padding": "max_length", "truncation": True, "return_tensors": "pt"}
        return self.tokenizer(captions, **options).input_ids.to(self.vision.device)

    def embed_texts(self, captions: list[str]) -> Tensor:
        """[towers, N, projection], unit length, one slice per tower."""
        ids = self.tokens(captions)
        return functional.normalize(
            torch.stack([tower(ids).text_embeds for tower in self.texts]), dim=-1
        )

    def embed_images(self, pictures: Tensor) -> Tensor:
        """[N, projection], unit length, from pictures [N, 3, H, W] in [-1, 1]."""
        return functional.normalize(
            self.vision(pictures.to(self.vision.device)).image_embeds, dim=-1
        )


def build(tokenizer: CLIPTokenizer, settings: Settings, towers: int = 2) -> ImageText:
    clip = settings.clip
    text = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=clip.text_width,
        intermediate_size=4 * clip.text_width,
        num_hidden_layers=clip.text_layers,
        num_attention_heads=clip.text_width // 32,
        max_position_embeddings=clip.tokens,
        projection_dim=clip.projection,
        hidden_act="gelu",
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    vision = CLIPVisionConfig(
        hidden_size=clip.vision_width,
        intermediate_size=4 * clip.vision_width,
        num_hidden_layers=clip.vision_layers,
        num_attention_heads=clip.vision_width // 32,
        image_size=settings.scenes.size,
        patch_size=clip.patch,
        projection_dim=clip.projection,
        hidden_act="gelu",
    )
    device = pick_device()
    texts = nn.ModuleList(CLIPTextModelWithProjection(text) for _ in range(towers))
    temperature = nn.ParameterDict({"log_scale": nn.Parameter(torch.tensor(np.log(14.0)).float())})
    return ImageText(
        tokenizer,
        texts.to(device),
        CLIPVisionModelWithProjection(vision).to(device),
        temperature.to(device),
    )


def degrade(pictures: Tensor, generator: torch.Generator) -> Tensor:
    """Half of the batch loses resolution or gains noise, so that texture is not what is read."""
    soft = functional.interpolate(
        functional.avg_pool2d(pictures, 2), scale_factor=2, mode="bilinear"
    )
    noisy = pictures + 0.1 * torch.randn(pictures.shape, generator=generator)
    pick = torch.rand(len(pictures), 1, 1, 1, generator=generator)
    return torch.where(pick < 0.25, soft, torch.where(pick < 0.5, noisy, pictures))


def contrast(model: ImageText, pictures: Tensor, captions: list[str]) -> dict[str, Tensor]:
    """The symmetric InfoNCE loss of CLIP, averaged over the text towers."""
    scale = model.temperature["log_scale"].clamp(max=np.log(100.0)).exp()
    logits = scale * model.embed_texts(captions) @ model.embed_images(pictures).T
    target = torch.arange(len(captions), device=logits.device)
    pairs = [functional.cross_entropy(one, target) for tower in logits for one in (tower, tower.T)]
    right = (logits[0].argmax(0) == target).float().mean()
    return {"loss": sum(pairs) / len(pairs), "top1": right}


def train(composer: Composer, settings: Settings, work: Path, stage: str = "clip") -> ImageText:
    """Train, or resume, or load, the model of ``stage``, a name in ``stages``."""
    clip, own = settings.clip, stages(settings)[stage]
    torch.manual_seed(own.seed)
    model = build(load_tokenizer(composer, settings, work, stage), settings, own.towers)
    modules = {"texts": model.texts, "vision": model.vision, "temperature": model.temperature}
    parameters = [p for module in modules.values() for p in module.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=clip.lr, weight_decay=0.1, betas=(0.9, 0.98))
    run = Run(work / stage, modules, [optimizer], own.steps, decay=0.5)
    if run.step < run.steps:
        scenes = pool(composer, own.seed, clip.batch * own.steps // 8)
        run.train(
            lambda step: contrast(model, *draw_batch(composer, scenes, clip.batch, own.seed, step))
        )
    for module in modules.values():
        module.eval().requires_grad_(False)
    return model


def pool(composer: Composer, seed: int, count: int) -> list[Scene]:
    """``count`` training scenes; pictures are drawn once, captions anew at every use."""
    rng = np.random.default_rng((seed, 0))
    return [composer.compose(rng) for _ in range(count)]


def draw_batch(
    composer: Composer, scenes: list[Scene], batch: int, seed: int, step: int
) -> tuple[Tensor, list[str]]:
    rng = np.random.default_rng((seed, step + 1))
    chosen = [scenes[i] for i in rng.choice(len(scenes), min(batch, len(scenes)), replace=False)]
    generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
    pictures = degrade(to_tensor([scene.picture for scene in chosen]), generator)
    return pictures, [composer.caption(scene, rng) for scene in chosen]
