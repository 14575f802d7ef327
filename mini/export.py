"""Stage ``export``: the trained parts in fp16, as the package reads them."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path

import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, StableDiffusion3Pipeline
from safetensors.torch import save_file
from tokenizers import Tokenizer, models
from torch import nn
from transformers import (
    CLIPImageProcessor,
    CLIPModel,
    CLIPTokenizer,
    T5Config,
    T5EncoderModel,
    TokenizersBackend,
)

from asyncdiff_cli.engine.files import umask
from asyncdiff_cli.engine.rewards.mini_judge import Config
from asyncdiff_cli.engine.rewards.mini_quality import QualityNet
from asyncdiff_cli.engine.rewards.world.grammar import words
from asyncdiff_cli.engine.rewards.world.judge import JudgeNet
from asyncdiff_cli.engine.rewards.world.vocabulary import COLOURS, THINGS
from mini.scenes import Scenes
from mini.settings import SIZE, Settings
from mini.transformer import Trained

NOTICES = Path(__file__).parent / "notices"


class Replacing:
    """A directory that replaces ``target`` once all of it has been written."""

    def __init__(self, target: Path) -> None:
        self.target, self.partial = target, target.with_name(target.name + ".partial")

    def __enter__(self) -> Path:
        shutil.rmtree(self.partial, ignore_errors=True)
        self.partial.mkdir(parents=True)
        for notice in NOTICES.iterdir():
            shutil.copy(notice, self.partial / notice.name)
        return self.partial

    def __exit__(self, kind: type | None, *_: object) -> None:
        if kind is None:
            for path in filter(Path.is_file, self.partial.rglob("*")):
                path.chmod(0o666 & ~umask())  # safetensors writes for the owner alone
            shutil.rmtree(self.target, ignore_errors=True)
            self.partial.rename(self.target)


def pipeline(
    vae: AutoencoderKL, trained: Trained, scenes: Scenes, settings: Settings, target: Path
) -> None:
    """Write the diffusers pipeline and its vocabulary; what is given stays as it is."""
    vae, trained = copy.deepcopy((vae, trained))
    vae.register_to_config(scaling_factor=trained.scale, shift_factor=trained.shift)
    no_t5, no_tokenizer = absent_t5(2 * settings.text.width)
    first, second = trained.text.towers
    pipe = StableDiffusion3Pipeline(
        transformer=trained.transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=settings.sampling.shift),
        vae=vae.to(memory_format=torch.contiguous_format),
        text_encoder=first,
        tokenizer=trained.tokenizer,
        text_encoder_2=second,
        tokenizer_2=trained.tokenizer,
        text_encoder_3=no_t5,
        tokenizer_3=no_tokenizer,
    )
    with Replacing(target) as partial:
        pipe.to("cpu", torch.float16).save_pretrained(partial)
        for config in partial.glob("text_encoder*/config.json"):
            _load_in_fp32(config)
        write_vocabulary(scenes, partial / "vocabulary.json")


def _load_in_fp32(config: Path) -> None:
    """Name fp32 as the dtype: transformers loads in that, and diffusers all else in fp32."""
    config.write_text(json.dumps({**json.loads(config.read_text()), "dtype": "float32"}, indent=2))


def absent_t5(width: int) -> tuple[T5EncoderModel, TokenizersBackend]:
    """A T5 that reads nothing and answers zeros, as the pipeline itself does without one.

    ``from_pretrained`` refuses a null where the pipeline class names T5 (it must be passed by
    hand), and mini is to load without that.
    """
    tokenizer = Tokenizer(models.BPE(vocab={"<pad>": 0}, merges=[]))  # drops what it does not know
    config = T5Config(
        vocab_size=1, d_model=width, d_kv=1, d_ff=1, num_layers=1, num_heads=1, pad_token_id=0,
        eos_token_id=None,
    )  # fmt: skip
    encoder = T5EncoderModel(config)
    for parameter in encoder.parameters():
        torch.nn.init.zeros_(parameter)
    return encoder, TokenizersBackend(tokenizer_object=tokenizer, pad_token="<pad>")


def write_vocabulary(scenes: Scenes, path: Path) -> None:
    """The words of the captions: things with their other names, colours, and the rest."""
    vocabulary = {
        "objects": {
            thing.name: sorted({*thing.others, thing.plural} - {thing.name}) for thing in THINGS
        },
        "colours": list(COLOURS),
        "words": words(),
        "colourable": [thing for thing, drawings in scenes.colourable.items() if drawings],
    }
    path.write_text(json.dumps(vocabulary, indent=1, ensure_ascii=False) + "\n")


def judge(model: JudgeNet, settings: Settings, target: Path) -> None:
    """Write the judge in fp16, and what its outputs mean."""
    config = Config.of(settings.judge.widths).model_dump()
    _weights(model, config, target, torch.float16)


def clip(model: CLIPModel, tokenizer: CLIPTokenizer, target: Path) -> None:
    """Write `CLIPModel` in fp16, its tokenizer and its image processor."""
    side = {"height": SIZE, "width": SIZE}
    processor = CLIPImageProcessor(
        size=side, do_center_crop=False, image_mean=[0.5] * 3, image_std=[0.5] * 3
    )
    with Replacing(target) as partial:
        model.cpu().half().save_pretrained(partial)
        tokenizer.save_pretrained(partial)
        processor.save_pretrained(partial)


def quality(model: QualityNet, settings: Settings, target: Path) -> None:
    """Write the weights in fp32, and what rebuilds the net."""
    own = settings.quality
    _weights(model, {"widths": list(own.widths), "hidden": own.hidden}, target, torch.float32)


def _weights(model: nn.Module, config: dict, target: Path, dtype: torch.dtype) -> None:
    with Replacing(target) as partial:
        (partial / "config.json").write_text(json.dumps(config, indent=1) + "\n")
        state = model.state_dict()
        weights = {name: tensor.to("cpu", dtype).contiguous() for name, tensor in state.items()}
        save_file(weights, partial / "model.safetensors")
