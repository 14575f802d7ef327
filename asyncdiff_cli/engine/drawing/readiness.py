"""Whether this machine can draw: what is ready, and what is missing with what gets it.

The libraries are imported in a process of their own, so that one that is broken is told of too.
"""

from __future__ import annotations

import importlib.metadata
import json
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]
from huggingface_hub import constants, try_to_load_from_cache

import asyncdiff_cli
from asyncdiff_cli.engine.backbones.registry import REGISTRY, BackboneEntry
from asyncdiff_cli.engine.backbones.weights import presence
from asyncdiff_cli.engine.files import nearest
from asyncdiff_cli.engine.hub import is_reachable
from asyncdiff_cli.engine.rewards import AVAILABLE, ENTRIES, PUBLISHED
from asyncdiff_cli.engine.text import one_line

DEPENDENCIES = (
    *("torch", "torchvision", "diffusers", "transformers", "accelerate", "peft", "safetensors"),
    *("huggingface_hub", "pillow", "numpy", "open_clip_torch"),
)
"""Packages on which a picture or its score depends."""
PATIENCE_OF_IMPORTS = 300
"""Seconds that the libraries get to be imported."""
PROBE = f"""\
import sys
sys.path[:] = [*filter(None, sys.path), {str(Path(asyncdiff_cli.__file__).parents[1])!r}]
import json
import torch
import asyncdiff_cli.engine.drawing.job
from asyncdiff_cli.engine.rewards import PUBLISHED, reward_class

gpus = range(torch.cuda.device_count()) if torch.cuda.is_available() else ()
published = {{name: reward_class(name) for name in PUBLISHED}}
found = {{
    "cuda": torch.version.cuda,
    "gpus": [
        dict(zip(("name", "free", "total"), (torch.cuda.get_device_name(n), *memory)))
        for n in gpus
        for memory in [torch.cuda.mem_get_info(n)]
    ],
    "weights": {{name: (kind.repo, kind.file) for name, kind in published.items()}},
}}
print(json.dumps(found))
"""
"""What a process of its own imports, as a picture needs it, and then tells."""


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        kind: "library", "device", "disk", "backbone", "reward" or "hub".
        ready: whether it is as it must be to be used; None for what is neither.
        says: what was found.
        remedy: what to do about it, "" for nothing.
        needed: whether no picture can be drawn without it.
    """

    kind: str
    name: str
    ready: bool | None
    says: str
    remedy: str = ""
    needed: bool = False


def examine() -> list[Finding]:
    """Look at all that drawing and scoring depends on. Nothing is downloaded."""
    probed, reason = _probe()
    return [
        *_libraries(reason),
        *_devices(probed),
        *map(_backbone, REGISTRY.values()),
        *_rewards(probed["weights"] if probed else None),
        _hub(),
    ]


def _probe() -> tuple[dict[str, Any] | None, str]:
    """What the libraries tell in a process of their own; without it why they do not."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", PROBE],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=PATIENCE_OF_IMPORTS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return None, f"they are not there after {PATIENCE_OF_IMPORTS} seconds"
    if done.returncode == 0:
        return json.loads(done.stdout.splitlines()[-1]), ""
    said = [line for line in done.stderr.splitlines() if line.strip()]
    ended = f"the process that imports them ended with {done.returncode}"
    return None, one_line(said[-1]) if said else ended


def _libraries(reason: str) -> Iterator[Finding]:
    """The versions of the libraries, and why they do not fit together, if they do not."""
    yield Finding("library", "python", True, platform.python_version())
    for name in DEPENDENCIES:
        try:
            yield Finding("library", name, True, importlib.metadata.version(name))
        except importlib.metadata.PackageNotFoundError:
            remedy = f"pip install {name}"
            yield Finding("library", name, False, "not installed", remedy, needed=True)
    together = "they are imported together" if not reason else f"they do not load: {reason}"
    remedy = "pip install --upgrade --force-reinstall asyncdiff-cli" if reason else ""
    yield Finding("library", "all", not reason, together, remedy, needed=True)


def _devices(probed: dict[str, Any] | None) -> Iterator[Finding]:
    """Processors, and the memory and disk that are free."""
    memory = psutil.virtual_memory()
    says = f"{_size(memory.available)} of {_size(memory.total)} free"
    yield Finding("device", "cpu", True, f"{psutil.cpu_count()} cores, {says}")
    for number, gpu in enumerate(probed["gpus"] if probed else ()):
        says = f"{gpu['name']}, {_size(gpu['free'])} of {_size(gpu['total'])} free"
        yield Finding("device", f"cuda:{number}", True, says)
    if probed and not probed["gpus"]:
        built = f"torch is built for CUDA {probed['cuda']}" if probed["cuda"] else "torch has none"
        yield Finding("device", "cuda", None, f"no GPU is seen ({built})")
    for name, place in (("models", Path(constants.HF_HUB_CACHE)), ("here", Path())):
        free = shutil.disk_usage(nearest(place.absolute())).free
        yield Finding("disk", name, True, f"{_size(free)} free for {place.absolute()}")


def _backbone(entry: BackboneEntry) -> Finding:
    where = presence(entry)
    needed = entry.repo is None  # it is a part of this package
    if where.directory is not None:
        says = f"{_size(where.bytes or 0)} in {where.directory}"
        return Finding("backbone", entry.name, True, says, needed=needed)
    remedy = f'asyncdiff sample "a fox" --backbone {entry.name}'
    if entry.gated:
        remedy = f"accept its licence at {entry.licence_url}; hf auth login; {remedy}"
    if needed:
        remedy = "pip install --force-reinstall asyncdiff-cli"
    return Finding("backbone", entry.name, False, where.reason, remedy, needed)


def _rewards(weights: dict[str, tuple[str, str]] | None) -> Iterator[Finding]:
    """The rewards.

    Args:
        weights: repository and file of those of published ones, by name; None if the libraries do
            not tell them.
    """
    for name in ENTRIES:
        if name not in PUBLISHED:
            says = "a part of this package" if name in AVAILABLE else "its weights are not there"
            yield Finding("reward", name, name in AVAILABLE, says)
        elif weights is None:
            yield Finding("reward", name, None, "not looked at: the libraries do not load")
        elif isinstance(file := try_to_load_from_cache(*weights[name]), str):
            yield Finding("reward", name, True, f"downloaded to {file}")
        else:
            remedy = f"asyncdiff score PICTURE --rewards {name}"
            yield Finding("reward", name, False, "not downloaded", remedy)


def _hub() -> Finding:
    if is_reachable():
        return Finding("hub", constants.ENDPOINT, True, "it answers")
    why = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else "it does not answer"
    return Finding("hub", constants.ENDPOINT, False, why, "connect, to download models")


def _size(size: float) -> str:
    return f"{size / (1 << 30):.1f} GiB" if size >= 1 << 30 else f"{size / (1 << 20):.0f} MiB"
