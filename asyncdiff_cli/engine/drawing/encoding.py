"""Prompts are encoded first, so that the text encoders are gone before images are drawn."""

from __future__ import annotations

import gc
import hashlib
import json
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from asyncdiff_cli.engine.backbones.backbone import Backbone, load_outline
from asyncdiff_cli.engine.backbones.loading import is_part
from asyncdiff_cli.engine.backbones.lora import LoRA
from asyncdiff_cli.engine.backbones.outline import Outline
from asyncdiff_cli.engine.backbones.vocabulary import Vocabulary
from asyncdiff_cli.engine.drawing.canvas import Canvas
from asyncdiff_cli.engine.drawing.encoded_text import EncodedText
from asyncdiff_cli.engine.errors import AsyncDiffWarning
from asyncdiff_cli.engine.rewards.group import Group

END = 1 << 20
"""Bytes of a file's beginning, and of its end, that are hashed."""


def encode_first(
    outline: Outline,
    accelerator: Accelerator,
    guidance_scale: float | None,
    size: int | None,
    prompts: Iterable[str],
    directory: Path,
    ahead: int | None = None,
) -> Canvas:
    """Encode prompts with nothing but the text encoders, and load the rest after they are gone.

    The processes take the prompts in turns. Prompts that are in the directory already, encoded for
    the same model, are not encoded again, and without others the encoders are not loaded at all.

    Args:
        ahead: how many prompts of each process are encoded, the first ones; default all. Others
            are left to `encode_more`.

    Raises:
        InputError, AsyncDiffError: as `load_backbone`, or if the directory cannot be written.
    """
    text = EncodedText(directory, _digest(outline, guidance_scale))
    prompts = list(prompts)
    missing = text.missing(prompts)
    accelerator.wait_for_everyone()  # all have looked before one writes
    now = missing if ahead is None else missing[: ahead * accelerator.num_processes]
    mine = now[accelerator.process_index :: accelerator.num_processes]
    if mine:
        _encode(outline, guidance_scale, mine, text, len(missing))
    accelerator.wait_for_everyone()
    backbone = load_outline(outline, "image")
    if accelerator.is_main_process:
        _warn_of_words(backbone, prompts)
    # one process reads all of a local model for it
    own = [backbone.fingerprint if accelerator.is_main_process else None]
    (backbone.fingerprint,) = broadcast_object_list(own)
    return Canvas(backbone, guidance_scale, size, text)


def _warn_of_words(backbone: Backbone, prompts: Iterable[str]) -> None:
    vocabulary = Vocabulary.load(backbone.directory)
    if line := vocabulary and vocabulary.warning(backbone.name, prompts):
        warnings.warn(line, AsyncDiffWarning, stacklevel=3)


def _digest(outline: Outline, guidance_scale: float | None) -> str:
    """A name of what conditions depend on beside the prompt, the same for a default and its value.

    Raises:
        InputError: for a LoRA that is not there.
    """
    source, choice, entry = outline.source, outline.choice, outline.entry
    scale = entry.guidance(guidance_scale)
    own = (
        source.location,
        source.revision,
        outline.dtype,
        choice.quantize,
        *choice.lora,
        float(scale),
    )
    more = (entry.max_sequence_length, entry.negative_prompt)
    digest = hashlib.sha256(json.dumps([*map(str, (*own, *more))]).encode())
    files = [LoRA.parse(text).local() for text in choice.lora]
    if source.directory is not None:
        found = sorted(source.directory.rglob("*"))
        parts = ((file, file.relative_to(source.directory).parts[0]) for file in found)
        files += [file for file, part in parts if file.is_file() and is_part(part, "text")]
    for file in files:
        digest.update(_ends(file))
    return digest.hexdigest()[:16]


def _ends(file: Path) -> bytes:
    """The size and both ends of a file: other weights differ in them, and are not read whole."""
    size = file.stat().st_size
    with file.open("rb") as opened:
        first = opened.read(END)
        opened.seek(max(0, size - END))
        return b"%d" % size + first + opened.read(END)


def _encode(
    outline: Outline,
    guidance_scale: float | None,
    prompts: Sequence[str],
    text: EncodedText,
    count: int,
) -> None:
    """Encode this process's share of so many prompts."""
    encoder = Canvas(load_outline(outline, "text"), guidance_scale)
    for n, prompt in enumerate(prompts):
        text.write(prompt, encoder.encode([prompt])[prompt])
        if n == 0:
            text.check_room(prompt, count - 1)
    del encoder
    gc.collect()
    if outline.device.type == "cuda":
        torch.cuda.empty_cache()


def encode_more(
    outline: Outline, groups: Sequence[Group], canvas: Canvas, prompts: Iterable[str]
) -> None:
    """Encode those of the prompts that are not yet, while the image model makes room.

    Args:
        groups: what else makes room.

    Raises:
        InputError, AsyncDiffError: as `encode_first`.
    """
    missing = [] if canvas.text is None else canvas.text.missing(prompts)
    if canvas.text is not None and missing:
        with ExitStack() as aside:
            for group in groups:
                aside.enter_context(group.aside())
            aside.enter_context(_aside(canvas.backbone))
            _encode(outline, canvas.guidance_scale, missing, canvas.text, len(missing))


@contextmanager
def _aside(backbone: Backbone) -> Iterator[None]:
    """Move it out of a GPU's memory, where it is there as a whole; in fewer bits it leaves room."""
    device, setup = backbone.device, backbone.setup
    moves = device.type == "cuda" and setup.offload == "none" and setup.quantize is None
    if moves:
        backbone.pipe.to("cpu")
        torch.cuda.empty_cache()
    yield
    if moves:
        backbone.pipe.to(device)
