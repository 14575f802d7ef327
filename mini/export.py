"""Stage ``export``: the trained parts as a diffusers pipeline directory in fp16."""

import json
import shutil
from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    FlowMatchEulerDiscreteScheduler,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
)
from tokenizers import Tokenizer, models
from transformers import T5Config, T5EncoderModel, TokenizersBackend

from mini.clip import ImageText
from mini.data import Composer
from mini.settings import COLOURS, Settings
from mini.transformer import Cache

NOTICES = Path(__file__).parent / "notices"


def export(
    composer: Composer,
    vae: AutoencoderKL,
    clip: ImageText,
    transformer: SD3Transformer2DModel,
    cache: Cache,
    settings: Settings,
    target: Path,
) -> None:
    """Write ``target``; what stood there before is replaced once the new one is complete."""
    vae.register_to_config(scaling_factor=cache.scale, shift_factor=cache.shift)
    no_t5, no_tokenizer = absent_t5(2 * settings.clip.text_width)
    pipe = StableDiffusion3Pipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=settings.sampling.shift),
        vae=vae.to(memory_format=torch.contiguous_format),
        text_encoder=clip.texts[0],
        tokenizer=clip.tokenizer,
        text_encoder_2=clip.texts[1],
        tokenizer_2=clip.tokenizer,
        text_encoder_3=no_t5,
        tokenizer_3=no_tokenizer,
    )
    partial = target.with_name(target.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    pipe.to("cpu", torch.float16).save_pretrained(partial)
    write_vocabulary(composer, partial / "vocabulary.json")
    for notice in NOTICES.iterdir():
        shutil.copy(notice, partial / notice.name)
    shutil.rmtree(target, ignore_errors=True)
    partial.rename(target)


def absent_t5(width: int) -> tuple[T5EncoderModel, TokenizersBackend]:
    """A T5 that reads nothing and answers zeros, as the pipeline itself does without one.

    ``from_pretrained`` refuses a null where the pipeline class names T5 (it must be passed by
    hand), and mini is to load without that.
    """
    tokenizer = Tokenizer(models.BPE(vocab={"<pad>": 0}, merges=[]))  # drops what it does not know
    config = T5Config(
        vocab_size=1, d_model=width, d_kv=1, d_ff=1, num_layers=1, num_heads=1, pad_token_id=0
    )
    encoder = T5EncoderModel(config)
    torch.nn.init.zeros_(encoder.encoder.final_layer_norm.weight)
    return encoder, TokenizersBackend(tokenizer_object=tokenizer, pad_token="<pad>")


def write_vocabulary(composer: Composer, path: Path) -> None:
    """The words of the captions: objects with their other names, colours, and the rest."""
    vocabulary = {
        "objects": {concept.name: list(concept.tags) for concept in composer.concepts},
        "colours": list(COLOURS),
        "words": ["a", "an", "and", "on", "background"],
    }
    path.write_text(json.dumps(vocabulary, indent=1, ensure_ascii=False) + "\n")
