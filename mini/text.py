"""The tokenizer, and the text towers that condition the transformer and are trained with it."""

from __future__ import annotations

import json
import random
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModelWithProjection, CLIPTokenizer

from asyncdiff_cli.engine.rewards.world.grammar import say
from mini.scenes import Scenes
from mini.settings import Settings

START, END = "<|startoftext|>", "<|endoftext|>"
CAPTIONS = 30  # per thing, that the tokenizer is made from


def load_tokenizer(scenes: Scenes, settings: Settings, work: Path, seed: int) -> CLIPTokenizer:
    """The tokenizer of ``seed`` in this working directory, made from captions on first use."""
    path = work / f"tokenizer-{seed}"
    if not path.exists():
        partial = path.with_suffix(".partial")
        make_tokenizer(scenes, settings, seed).save_pretrained(partial)
        partial.rename(path)
    return CLIPTokenizer.from_pretrained(path)


def make_tokenizer(scenes: Scenes, settings: Settings, seed: int) -> CLIPTokenizer:
    """CLIP's byte-pair encoding with merges of its own, learned from captions."""
    rng = random.Random(f"{seed}/captions")
    captions = []
    for _ in range(CAPTIONS * len(scenes.things)):
        captions.append(say(scenes.facts(scenes.draw(rng), rng), rng))
    clip = CLIPTokenizer()
    learner = Tokenizer(models.BPE(unk_token=END, end_of_word_suffix="</w>"))
    learner.normalizer = clip.backend_tokenizer.normalizer
    learner.pre_tokenizer = clip.backend_tokenizer.pre_tokenizer
    trainer = trainers.BpeTrainer(
        vocab_size=settings.text.vocabulary,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
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
    return CLIPTokenizer(vocab=model["vocab"], merges=merges, model_max_length=settings.text.tokens)


def tokens(tokenizer: CLIPTokenizer, captions: list[str]) -> Tensor:
    """Ids [N, tokens], padded and cut as the pipeline does."""
    options = {"padding": "max_length", "truncation": True, "return_tensors": "pt"}
    return tokenizer(captions, **options).input_ids


def text_config(tokenizer: CLIPTokenizer, settings: Settings) -> CLIPTextConfig:
    own = settings.text
    return CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=own.width,
        intermediate_size=4 * own.width,
        num_hidden_layers=own.layers,
        num_attention_heads=max(1, own.width // 32),
        max_position_embeddings=own.tokens,
        projection_dim=own.projection,
        hidden_act="gelu",
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


class Towers(nn.Module):
    """The two text towers that `StableDiffusion3Pipeline` wants."""

    def __init__(self, tokenizer: CLIPTokenizer, settings: Settings) -> None:
        super().__init__()
        config = text_config(tokenizer, settings)
        self.towers = nn.ModuleList(CLIPTextModelWithProjection(config) for _ in range(2))

    def forward(self, ids: Tensor, padding: int) -> tuple[Tensor, Tensor]:
        """What ``StableDiffusion3Pipeline.encode_prompt`` returns: sequence and pooled embeddings.

        Args:
            padding: the number of zero tokens that stand where T5 would.
        """
        outputs = [tower(ids, output_hidden_states=True) for tower in self.towers]
        sequence = torch.cat([output.hidden_states[-2] for output in outputs], dim=-1)
        pooled = torch.cat([output.text_embeds for output in outputs], dim=-1)
        return nn.functional.pad(sequence, (0, 0, 0, padding)), pooled
