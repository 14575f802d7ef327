"""What an image was drawn with, in the words of Stable Diffusion web UI, which many tools read.

A PNG text chunk holds the prompt, the negative prompt, and one line of names and values. It is for
reading alone: an image is drawn again by its provenance.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from asyncdiff_cli.engine.drawing.provenance import (
    CHUNK,
    PanelProvenance,
    Provenance,
    read_provenance,
    text_chunks,
)

if TYPE_CHECKING:
    from asyncdiff_cli.engine.backbones.backbone import Backbone

PARAMETERS_CHUNK = "parameters"
"""The keyword of the PNG text chunk."""
NEGATIVE = "Negative prompt: "
SAMPLER_NAMES = {"euler": "Euler", "heun": "Heun", "dpmpp": "DPM++ 2M", "unipc": "UniPC"}
"""Solvers as the web UI calls them."""
_PAIR = re.compile(r'\s*(\w[\w \-/]*):\s*("(?:\\.|[^\\"])*"|[^,]*)(?:,|$)')
LEAST = 3
"""Names and values on a line that is one of them, and no prompt with a colon."""


def parameters_of(record: Provenance, backbone: Backbone) -> str:
    """Say in the web UI's words what a backbone drew an image with."""
    scale, (policy, gamma) = record.guidance_scale, record.image_policy
    values = {
        "Steps": record.num_inference_steps,
        "Sampler": SAMPLER_NAMES.get(record.scheduler, record.scheduler),
        "CFG scale": f"{scale if _does_cfg(record, backbone) else 1:g}",
        "Seed": record.seed,
        "Size": f"{record.width}x{record.height}",
        "Model": Path(record.backbone).name,
        "Async policy": policy["name"],
        "Async gamma": f"{gamma:g}",
        "Version": f"asyncdiff-cli {record.versions['asyncdiff-cli']}",
    }
    if backbone.pipe.transformer.config.get("guidance_embeds", False):
        values["Distilled CFG Scale"] = f"{scale:g}"
    if record.image is not None and record.image.strength is not None:
        values["Denoising strength"] = f"{record.image.strength:g}"
    return _in_words(record.prompt, record.negative_prompt, values)


def _in_words(prompt: str, negative: str | None, values: Mapping[str, object]) -> str:
    lines = [prompt] if negative is None else [prompt, NEGATIVE + negative]
    return "\n".join([*lines, ", ".join(f"{name}: {_quoted(v)}" for name, v in values.items())])


def shared_parameters(texts: Sequence[str]) -> str:
    """Say of several images, each with what is said of it, what all were drawn with.

    Returns:
        The prompt and the values that they share; "" where they share no prompt.
    """
    if not texts or not all(texts):
        return ""
    first, *others = map(parsed_parameters, texts)
    shared = {
        name: value
        for name, value in first.items()
        if all(other.get(name) == value for other in others)
    }
    if "prompt" not in shared:
        return ""
    return _in_words(shared.pop("prompt"), shared.pop("negative prompt", None), shared)


def parameters_chunk(text: str) -> dict[str, str]:
    """The chunk that says it; none for nothing."""
    return {PARAMETERS_CHUNK: text} if text else {}


def _does_cfg(record: Provenance, backbone: Backbone) -> bool:
    from asyncdiff_cli.engine.backbones.adapters import Guidance

    guidance = Guidance(record.guidance_scale, record.guidance_scale)
    return backbone.adapter.does_cfg(guidance, record.negative_prompt is not None)


def _quoted(value: object) -> str:
    """A value that no comma, colon or line break of its own ends."""
    text = str(value)
    return json.dumps(text, ensure_ascii=False) if re.search("[,:\n]", text) else text


def parsed_parameters(text: str) -> dict[str, str]:
    """Take the prompt, the negative prompt and the values apart, by the names that they have.

    What does not fit stays in the prompt.
    """
    *lines, last = text.strip().split("\n")
    pairs = _PAIR.findall(last)
    if len(pairs) < LEAST:
        lines, pairs = [*lines, last], []
    prompt, found, negative = "\n".join(lines).partition(NEGATIVE.strip())
    values = {"prompt": prompt.strip()}
    if found:
        values["negative prompt"] = negative.strip()
    return values | {name: _unquoted(value.strip()) for name, value in pairs}


def _unquoted(value: str) -> str:
    try:
        return str(json.loads(value)) if value.startswith('"') else value
    except ValueError:
        return value


def has_parameters(path: str | Path) -> bool:
    """Whether an image carries the chunk.

    Raises:
        InputError: as `read_provenance`.
    """
    return PARAMETERS_CHUNK in text_chunks(path)


def read_record(path: str | Path) -> Provenance | PanelProvenance | dict[str, str]:
    """Read what an image was drawn from: its provenance, or what another tool says of it.

    Raises:
        InputError: as `read_provenance`.
    """
    chunks = text_chunks(path)
    if PARAMETERS_CHUNK in chunks and CHUNK not in chunks:
        return parsed_parameters(chunks[PARAMETERS_CHUNK])
    return read_provenance(path)
