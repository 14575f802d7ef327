"""The arguments of `sample`: how texts are given, and what is refused before it starts.

Every check raises InputError, one line.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from numbers import Integral
from typing import TYPE_CHECKING, Any

from typing_extensions import TypedDict

from asyncdiff_cli.engine.checks import check_unicode
from asyncdiff_cli.engine.errors import InputError
from asyncdiff_cli.engine.limits import MAX_TOKENS

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class Embeddings(TypedDict, total=False):
    """Encoded prompts in place of texts: [B, tokens, channels], pooled [B, channels].

    For Qwen-Image with masks [B, tokens], or none if no token is padding. For Z-Image as that, or
    as its pipeline takes them, a list of [tokens, channels].
    """

    prompt_embeds: Tensor | Sequence[Tensor] | None
    pooled_prompt_embeds: Tensor | None
    negative_prompt_embeds: Tensor | Sequence[Tensor] | None
    negative_pooled_prompt_embeds: Tensor | None
    prompt_embeds_mask: Tensor | None
    negative_prompt_embeds_mask: Tensor | None


class TextOptions(Embeddings, total=False):
    """What `sample` takes of the texts beside the prompts; what is None is as if left out."""

    negative_prompt: str | Sequence[str] | None
    """One, or one per image; default the backbone's."""
    true_cfg_scale: float | None
    """The classifier-free guidance of FLUX.1 and Qwen-Image with a negative prompt; default
    `guidance_scale`."""
    max_sequence_length: int | None
    """Tokens of the text, for SD3 and FLUX.1 of T5's; default the backbone's, or the pipeline's."""


def check_keywords(function: str, options: TextOptions) -> None:
    """Every option is known.

    Raises:
        TypeError: for one that is not, as Python itself does.
    """
    for name in options:
        if name not in TextOptions.__optional_keys__:
            raise TypeError(f"{function}() got an unexpected keyword argument {name!r}")


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


def check_is_policy(policy: object) -> None:
    """A policy can be asked, as an object of its class can."""
    if not callable(policy) or isinstance(policy, type):
        raise InputError(
            f"a policy is an object such as FixedDeviation(0.5), not {policy!r}; parse_policy makes"
            " one of a text"
        )


def check_generators(
    generator: torch.Generator | Iterable[torch.Generator] | None,
) -> torch.Generator | list[torch.Generator] | None:
    """One generator for the batch, or a list of one per image; None for none."""
    import torch

    if generator is None or isinstance(generator, torch.Generator):
        return generator
    generators = list(generator) if isinstance(generator, Iterable) else [generator]
    if not all(isinstance(item, torch.Generator) for item in generators):
        raise InputError(f"generator is a torch.Generator, or one per image, not {generator!r}")
    return generators


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
    if not isinstance(negatives, Sequence) or not all(isinstance(text, str) for text in negatives):
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
