"""What of a model is on the disk or on the hub, told without loading it."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, model_validator

from asyncdiff_cli.engine.backbones.registry import MINI_DIRECTORY, BackboneEntry
from asyncdiff_cli.engine.backbones.single_files import Shapes, safetensors_shapes
from asyncdiff_cli.engine.errors import AsyncDiffError
from asyncdiff_cli.engine.reading import Read, read_json, shown

COMPONENTS = (
    "transformer",
    "vae",
    "text_encoder",
    "text_encoder_2",
    "text_encoder_3",
    "tokenizer",
    "tokenizer_2",
    "tokenizer_3",
    "scheduler",
)
"""The folders of a pipeline's repository that loading it downloads."""

CONFIGURATION = (".json", ".txt", ".model", ".jinja")
"""Ends of the files in them that are not weights."""

WEIGHT_FILE = re.compile(
    r"(diffusion_pytorch_|pytorch_)?model(\.(?P<variant>[^-]+))?(?P<part>-\d{5}-of-\d{5})?"
    r"(\.(?P<late_variant>[^.]+))?\.(?P<format>safetensors|bin)"
)
"""What diffusers and transformers call files of weights, whole or in parts."""
INDEX = re.compile(r"\w*model\.safetensors\.index\.json")
"""What they call the list of the parts, unless it is another format's or a variant's."""
WEIGHT_FORMATS = {"safetensors": 0, "bin": 1}
"""The former is preferred."""
FLUX_LATENTS = 128
"""What a FLUX pipeline, whose configuration does not say, draws by default."""


class PipelineIndex(Read):
    """A model_index.json."""

    class_name: Annotated[str, Field(alias="_class_name")]

    def components(self) -> dict[str, list[str | None]]:
        """Library and class of each component, None for one that it does without."""
        return {name: value for name, value in (self.model_extra or {}).items() if _is_pair(value)}

    @model_validator(mode="after")
    def _check_components(self) -> PipelineIndex:
        for name, value in (self.model_extra or {}).items():
            if name in COMPONENTS and not _is_pair(value):
                raise ValueError(f"{name} is a library and a class, not {shown(value)}")
        return self


def _is_pair(value: Any) -> bool:
    pair = isinstance(value, list) and len(value) == 2
    return pair and all(part is None or isinstance(part, str) for part in value)


class Transformer(Read):
    """What is read of a transformer's config.json."""

    sample_size: Annotated[int, Field(ge=1, le=65536)] | None = None


class Autoencoder(Read):
    """What is read of a VAE's config.json."""

    block_out_channels: Annotated[tuple[int, ...], Field(max_length=16)] = ()
    temperal_downsample: Annotated[tuple[bool, ...], Field(max_length=16)] = ()

    @model_validator(mode="after")
    def _check_halvings(self) -> Autoencoder:
        if not self.block_out_channels and "temperal_downsample" not in self.model_fields_set:
            raise ValueError("block_out_channels: Field required")
        return self


@dataclass(frozen=True)
class Presence:
    """Where a backbone is, and how large it is there."""

    directory: Path | None
    """None if it, or a part of it, is not on the disk."""
    bytes: int | None
    """Size of the files that it is loaded from; None where that is not known."""
    pixels: int | None
    """Height and width that it draws by default; None if only its configuration knows."""
    reason: str = ""
    """Why the number of bytes is not known."""


def presence(entry: BackboneEntry, ask_hub: bool = False) -> Presence:
    """Look for a backbone on the disk, and, if asked to, for its size on the hub."""
    directory, pixels = snapshot(entry), entry.size
    if directory is not None:
        total = sum(file.stat().st_size for file in _files(directory))
        return Presence(directory, total, pixels or default_size(directory))
    if entry.repo is None:
        return Presence(None, None, pixels, "not a part of this installation")
    if not ask_hub:
        return Presence(None, None, pixels, "not downloaded")
    try:
        return Presence(None, download_size(entry.repo), pixels)
    except AsyncDiffError as error:
        return Presence(None, None, pixels, str(error))


def download_size(repo: str) -> int:
    """Bytes of the files that loading a pipeline downloads, by the hub's metadata.

    Raises:
        AsyncDiffError: if the hub does not tell.
    """
    return sum(download_sizes(repo).values())


def _why(error: Exception) -> str:
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    status = getattr(getattr(error, "response", None), "status_code", None)
    return "it does not answer" if status is None else f"HTTP {status}"


def download_sizes(repo: str) -> dict[str, int]:
    """The `download_size` of each component, by its folder's name: in the dtype that is stored."""
    from huggingface_hub import HfApi

    try:
        info = HfApi().model_info(repo, files_metadata=True, timeout=5)
    except Exception as error:  # its HTTP client, and what that raises, differs by version
        raise AsyncDiffError(f"the hub cannot be asked: {_why(error)}") from None
    folders: dict[str, dict[str, int]] = {}
    for file in info.siblings or ():
        folder, _, name = file.rfilename.partition("/")
        if folder in COMPONENTS and name:
            folders.setdefault(folder, {})[name] = file.size or 0
    return {folder: sum(sizes[name] for name in loaded(sizes)) for folder, sizes in folders.items()}


def download_configuration(repo: str, revision: str | None = None) -> Path:
    """The directory of a repository's pipeline without its weights, downloaded: a few megabytes.

    Raises:
        What `huggingface_hub` raises where it cannot be downloaded.
    """
    from huggingface_hub import snapshot_download

    folders = [f"{name}/*{end}" for name in COMPONENTS for end in CONFIGURATION]
    patterns = ["model_index.json", *folders]
    return Path(snapshot_download(repo, revision=revision, allow_patterns=patterns))


def parameters(directory: Path) -> int:
    """Number of weights of a pipeline, by the headers of its safetensors files.

    Raises:
        AsyncDiffError: if a header cannot be read, or there is none.
    """
    return sum(component_parameters(directory).values())


def loaded_bytes(directory: Path, dtype: str) -> int:
    """Bytes of a pipeline's weights once they are loaded, by the headers of its files.

    Args:
        dtype: what it is loaded in, as torch names it. In float16 transformers keeps the layers
            `wo` of T5, which would overflow, in 4 bytes.

    Raises:
        InputError, AsyncDiffError: as `parameters`, and for an index of another shape.
    """
    classes = read_json(directory / "model_index.json", PipelineIndex).components()
    width, total = {"float32": 4}.get(dtype, 2), 0
    for file in _weight_files(directory):
        keeps_wo = dtype == "float16" and str(classes[file.parent.name][1]).startswith("T5")
        for name, shape in _shapes(file).items():
            total += math.prod(shape) * (4 if keeps_wo and "wo" in name.split(".") else width)
    return total


def component_parameters(directory: Path) -> dict[str, int]:
    """The `parameters` of each component that has weights, by its folder's name."""
    found: dict[str, int] = {}
    for file in _weight_files(directory):
        name = file.parent.name
        found[name] = found.get(name, 0) + sum(map(math.prod, _shapes(file).values()))
    return found


def _weight_files(directory: Path) -> list[Path]:
    found = [file for file in _files(directory) if file.suffix == ".safetensors"]
    if not found:
        raise AsyncDiffError(f"{directory} holds no safetensors files")
    return found


def default_size(directory: Path) -> int:
    """Height and width in pixels that a pipeline draws by default, by its configuration.

    Raises:
        InputError: for a configuration of another shape.
    """
    latents = read_json(directory / "transformer" / "config.json", Transformer).sample_size
    vae = read_json(directory / "vae" / "config.json", Autoencoder)
    # Qwen-Image's VAE is one of videos, which names its halvings
    blocks = vae.block_out_channels
    halvings = len(blocks) - 1 if blocks else len(vae.temperal_downsample)
    return (latents or FLUX_LATENTS) * 2**halvings


def _shapes(file: Path) -> Shapes:
    from safetensors import SafetensorError

    try:
        return safetensors_shapes(file)
    except (SafetensorError, OSError) as error:
        raise AsyncDiffError(f"{file} is incomplete or corrupted ({error})") from None


def snapshot(entry: BackboneEntry, revision: str | None = None) -> Path | None:
    """The directory of a backbone, with all that it needs; None if it is not on the disk."""
    if entry.repo is not None:
        return cached(entry.repo, revision)
    return MINI_DIRECTORY if _complete(MINI_DIRECTORY) else None


def cached(repo: str, revision: str | None = None) -> Path | None:
    """The directory of a repository's pipeline in the hub's cache, with all that it needs."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        index = try_to_load_from_cache(repo, "model_index.json", revision=revision)
    except HFValidationError:
        return None
    if not isinstance(index, str) or not _complete(Path(index).parent):
        return None
    return Path(index).parent


def _complete(directory: Path) -> bool:
    """Whether every component has its folder, and every model its weights."""
    components = read_json(directory / "model_index.json", PipelineIndex).components()
    wanted = [name for name, value in components.items() if name in COMPONENTS and any(value)]
    models = [name for name in wanted if not name.startswith(("tokenizer", "scheduler"))]
    return all((directory / name).is_dir() for name in wanted) and all(
        any(_is_plain(file.name) for file in (directory / name).iterdir()) for name in models
    )


def _files(directory: Path) -> list[Path]:
    """What a pipeline on the disk is loaded from."""
    folders = [directory / name for name in COMPONENTS if (directory / name).is_dir()]
    return [
        folder / name
        for folder in folders
        for name in loaded(file.name for file in folder.iterdir() if file.is_file())
    ]


def loaded(names: Iterable[str]) -> list[str]:
    """The files in a component's folder that it is loaded from.

    Its weights may be there several times: in another format, whole and in parts, and in variants
    such as `model.fp16.safetensors`. They are loaded as safetensors, and as a variant only where
    there is no other.
    """
    copies: dict[tuple[int, str, bool], list[str]] = {}
    others = []
    for name in names:
        if found := WEIGHT_FILE.fullmatch(name):
            variant = found["variant"] or found["late_variant"] or ""
            own = WEIGHT_FORMATS[found["format"]], variant, found["part"] is not None
            copies.setdefault(own, []).append(name)
        elif name.endswith(CONFIGURATION) and (".index." not in name or INDEX.fullmatch(name)):
            others.append(name)
    return [*(copies[min(copies)] if copies else ()), *others]


def _is_plain(name: str) -> bool:
    """Whether it is a file of weights in safetensors that is no variant."""
    found = WEIGHT_FILE.fullmatch(name)
    return found is not None and (found["variant"], found["late_variant"], found["format"]) == (
        None,
        None,
        "safetensors",
    )
