"""What `sample` and its kin refuse before they start. Every check raises InputError, one line."""

from __future__ import annotations

import difflib
import math
import sys
from collections.abc import Container, Iterable, Mapping, Sequence
from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

from asyncdiff_cli.engine.errors import InputError
from asyncdiff_cli.engine.files import expanded
from asyncdiff_cli.engine.limits import MAX_COUNT, MAX_STEPS, MAX_TOKENS
from asyncdiff_cli.engine.registry import PICKLES, REGISTRY, SINGLE_FILES

if TYPE_CHECKING:
    import torch
    from torch import Tensor


def unknown(kind: str, name: str, known: Iterable[str]) -> str:
    """The message for a name that is not known, with the nearest one if there is one."""
    known = list(known)
    near = difflib.get_close_matches(name.lower(), known, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return f"unknown {kind} {name!r}{hint} (known: {', '.join(known)})"


def unknown_pipeline(class_name: str, known: Iterable[str]) -> str:
    """The message for a pipeline class without an adapter."""
    return (
        f"{unknown('pipeline class', class_name, known)}; to add one, put an Adapter for it into"
        ' asyncdiff_cli.engine.adapters.ADAPTERS, as the README\'s "Add a backbone" shows'
    )


def check_choice(kind: str, name: str, known: Iterable[str]) -> None:
    """`name` is one of the known ones."""
    if name not in known:
        raise InputError(unknown(kind, str(name), known))


def may_be_repository(name: str) -> bool:
    """Whether a name can be that of a hub repository, OWNER/NAME, and is not written as a path."""
    return name.count("/") == 1 and not name.startswith((".", "/", "~"))


MAY_BE_EMPTY = {"--negative"}
"""Options of which the empty text says something: what is drawn without a prompt."""


def check_arguments(arguments: Sequence[str], options: Container[str]) -> None:
    """No argument is empty or holds a NUL character.

    Args:
        options: those that take a value.
    """
    for before, argument in zip(["", *arguments], arguments, strict=False):
        name, equals, value = argument.partition("=")
        if not (equals and name in options):
            name, value = before if before in options else "", argument
        what = name or "an argument"
        if not value.strip() and name not in MAY_BE_EMPTY:
            raise InputError(f"{what} is empty: give it a value, or leave it out")
        if "\0" in value:
            raise InputError(f"{what} holds a NUL character")


def check_unicode(what: str, text: str) -> None:
    """Text holds only what a tokenizer takes: no half of a surrogate pair, and no NUL."""
    if "\0" in text:
        raise InputError(f"{what} holds a NUL character")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        is_byte = "\udc80" <= text[error.start] <= "\udcff"  # as Python has one that it cannot read
        held = "a byte that is no UTF-8" if is_byte else "half a surrogate pair"
        raise InputError(f"{what} is not Unicode text: it holds {held}") from None


def check_backbone(name: str) -> None:
    """A backbone is known by name, or is a directory of one, or may be a repository.

    Raises:
        InputError: for what is none of these.
    """
    path = expanded(name)
    if name in REGISTRY:
        return
    if path.is_dir():
        if not (path / "model_index.json").is_file():
            raise InputError(f"{path} is not a diffusers pipeline: it has no model_index.json")
    elif path.is_file():
        raise InputError(
            f"{name} is a file and no backbone: give it as --model-path, beside the --backbone that"
            " all else comes from"
        )
    elif "/" not in name:
        raise InputError(unknown("backbone", name, REGISTRY) + ", or a directory or repository")
    elif not may_be_repository(name):
        raise InputError(f"there is no directory {name}")


def check_model_path(path: Path) -> None:
    """What takes the place of a model's own weights is there, and of a kind that is read.

    Raises:
        InputError: for what is missing, a directory without a pipeline, or a file of another kind.
    """
    files = f"single files end in {', '.join(SINGLE_FILES)}"
    wanted = f"give a pipeline's directory, or a transformer's file ({files})"
    if path.is_dir():
        if not (path / "model_index.json").is_file():
            raise InputError(
                f"{path} is not a diffusers pipeline: it has no model_index.json; {wanted}"
            )
    elif not path.exists():
        if path.suffix in (*SINGLE_FILES, *PICKLES):
            raise InputError(f"there is no file {path}: {wanted}")
        raise InputError(
            f"{path} is not a diffusers pipeline: there is no such directory; {wanted}"
        )
    elif path.suffix.lower() in PICKLES:
        raise InputError(
            f"{path} is a pickle, which can hold code and is not read: convert it; {files}"
        )
    elif path.suffix not in SINGLE_FILES or not path.is_file():
        raise InputError(f"{path} is not a model: {wanted}")


def check_gamma(gamma: float) -> None:
    """γ is a finite number."""
    check_number("gamma", gamma)


def check_number(what: str, value: float) -> None:
    """`value` is a finite number."""
    if not isinstance(value, Real) or not math.isfinite(value):
        raise InputError(f"{what} is a finite number, not {value!r}")


def check_range(what: str, value: float, low: float, high: float) -> None:
    """`value` is a number in [low, high]; NaN is in none."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise InputError(f"{what} is a number, not {value!r}")
    if not low <= value <= high:
        raise InputError(f"{what} {value:g} is outside [{low:g}, {high:g}]")


def check_deviation(deviation: float, bound: float = 1.0) -> None:
    """D is at most one interval, or what the bound says."""
    check_range("deviation", deviation, -bound, bound)


def check_scale(scale: float) -> None:
    """ω is in the range of Eq. 20."""
    check_range("scale", scale, 0.5, 1.5)


def check_amount(amount: float) -> None:
    """Detail Daemon's t* = (1 − amount)·t is a time."""
    check_range("amount", amount, -1, 1)


def check_window(window: float) -> None:
    """A window reaches at most one interval to either side."""
    check_range("window", window, 0, 1)


def check_weight(weight: float) -> None:
    """A weight is a finite number of at least 0."""
    check_range("weight", weight, 0, sys.float_info.max)


def check_steps(num_inference_steps: int) -> None:
    """There is at least one whole step, and a number of them that ends."""
    whole = isinstance(num_inference_steps, int) and not isinstance(num_inference_steps, bool)
    if not whole or not 1 <= num_inference_steps <= MAX_STEPS:
        raise InputError(
            f"the number of steps is a whole number from 1 to {MAX_STEPS}, not"
            f" {num_inference_steps!r}"
        )


def check_count(option: str, value: int | None) -> None:
    """There is at least one, and a number of them that ends; None is one that was not given."""
    if value is not None and not 1 <= value <= MAX_COUNT:
        raise InputError(f"{option} is a whole number from 1 to {MAX_COUNT:,}, not {value}")


def check_length(max_sequence_length: int | None) -> None:
    """A number of tokens that there can be room for; None is the model's own."""
    if max_sequence_length is None:
        return
    whole = isinstance(max_sequence_length, Integral) and not isinstance(max_sequence_length, bool)
    if not whole or not 1 <= max_sequence_length <= MAX_TOKENS:
        raise InputError(
            f"max_sequence_length is a whole number from 1 to {MAX_TOKENS}, not"
            f" {max_sequence_length!r}"
        )


def check_policy(policy: object) -> None:
    """A policy can be asked, as an object of its class can."""
    if not callable(policy) or isinstance(policy, type):
        raise InputError(
            f"a policy is an object such as FixedDeviation(0.5), not {policy!r}; parse_policy makes"
            " one of a text"
        )


def check_generators(
    generator: torch.Generator | Iterable[torch.Generator],
) -> torch.Generator | list[torch.Generator]:
    """One generator for the batch, or a list of one per image."""
    import torch

    if isinstance(generator, torch.Generator):
        return generator
    found = list(generator) if isinstance(generator, Iterable) else [generator]
    if not all(isinstance(one, torch.Generator) for one in found):
        raise InputError(f"generator is a torch.Generator, or one per image, not {generator!r}")
    return found


def check_size(height: int, width: int, multiple: int, largest: int | None = None) -> None:
    """Height and width in pixels fit the VAE and the patches, and the places that a model knows."""
    for name, pixels in (("height", height), ("width", width)):
        if not isinstance(pixels, Integral):
            raise InputError(f"the {name} is a whole number of pixels, not {pixels!r}")
        if pixels < multiple or pixels % multiple:
            nearest = max(multiple, round(pixels / multiple) * multiple)
            raise InputError(
                f"the {name} is {pixels}, and this backbone needs a multiple of {multiple},"
                f" for example {nearest}"
            )
        if largest is not None and pixels > largest:
            raise InputError(f"the {name} is {pixels}, and this backbone draws at most {largest}")


def check_text(
    prompts: list[str] | None,
    negative_prompt: str | Sequence[str] | None,
    given: Mapping[str, Tensor | None],
    pooled: bool = True,
    masked: bool = False,
) -> int:
    """Each branch has one source of text, of fitting shapes. Returns the number of images.

    Args:
        given: the fields of the conditions that are given in place of text.
        pooled, masked: whether the model takes pooled embeddings, and a mask of the tokens.
    """
    positive, negative = given["prompt_embeds"], given["negative_prompt_embeds"]
    if (prompts is None) == (positive is None):
        raise InputError("pass either prompts or prompt_embeds")
    if prompts is not None and not all(isinstance(prompt, str) for prompt in prompts):
        raise InputError("prompts are strings")
    check_unicode("a prompt", "".join(prompts or ()))
    negatives = [negative_prompt] if isinstance(negative_prompt, str) else negative_prompt or ()
    if not isinstance(negatives, Sequence) or not all(isinstance(one, str) for one in negatives):
        raise InputError("negative prompts are strings")
    check_unicode("a negative prompt", "".join(negatives))
    if negative_prompt is not None and negative is not None:
        raise InputError("pass either negative_prompt or negative_prompt_embeds")
    for branch in ("", "negative_"):
        _check_branch(branch, given, pooled, masked)
    if positive is not None and negative is not None:
        sides = (0, 2) if masked else (0, 1, 2)  # lengths may differ where they are masked
        if any(positive.shape[side] != negative.shape[side] for side in sides):
            raise InputError(
                f"prompt_embeds {list(positive.shape)} and negative_prompt_embeds"
                f" {list(negative.shape)} differ in shape"
            )
    batch = len(positive) if positive is not None else len(prompts or ())
    if batch == 0:
        raise InputError("there is no prompt")
    return batch


def _check_branch(
    branch: str, given: Mapping[str, Tensor | None], pooled: bool, masked: bool
) -> None:
    embeds = given[f"{branch}prompt_embeds"]
    pooled_embeds, mask = (
        given[f"{branch}{name}"] for name in ("pooled_prompt_embeds", "prompt_embeds_mask")
    )
    if embeds is not None and embeds.ndim != 3:
        raise InputError(
            f"{branch}prompt_embeds are [images, tokens, channels], not {list(embeds.shape)}"
        )
    if pooled and (embeds is None) != (pooled_embeds is None):
        raise InputError("prompt embeddings come in pairs: the sequence and the pooled one")
    if not pooled and pooled_embeds is not None:
        raise InputError(f"this backbone takes no {branch}pooled_prompt_embeds")
    if mask is None:
        return
    if not masked:
        raise InputError("this backbone takes prompts of one length, and no mask of their tokens")
    if embeds is None or mask.shape != embeds.shape[:2]:
        shape = None if embeds is None else list(embeds.shape)
        raise InputError(
            f"{branch}prompt_embeds_mask {list(mask.shape)} does not fit the embeddings {shape}"
        )


def check_batch(
    batch: int,
    shape: tuple[int, ...],
    generator: torch.Generator | Sequence[torch.Generator] | None,
    negative_prompts: Sequence[str] | None,
    latents: Tensor | None,
) -> None:
    """What is given per image is given for each image."""
    if isinstance(generator, Sequence) and len(generator) != batch:
        raise InputError(f"{len(generator)} generators for {batch} images")
    if negative_prompts is not None and len(negative_prompts) != batch:
        raise InputError(f"{len(negative_prompts)} negative prompts for {batch} images")
    if latents is not None and latents.shape != shape:
        raise InputError(f"latents of shape {list(latents.shape)}; this run needs {list(shape)}")


def check_encoders(pipe: Any, pooled: bool = True) -> None:
    """The pipeline can encode text; `pooled` is whether its model takes pooled embeddings too."""
    if pipe.text_encoder is None or getattr(pipe, "text_encoder_2", pipe) is None:
        embeds = "prompt_embeds and pooled_prompt_embeds" if pooled else "prompt_embeds"
        raise InputError(
            f"this pipeline has no text encoders: pass {embeds},"
            " and the negative ones for classifier-free guidance"
        )
