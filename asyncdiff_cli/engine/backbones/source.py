"""Where a pipeline is, and what it is made of, before any of its weights are read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from typing import Any

import diffusers
from huggingface_hub import HfApi, hf_hub_download

from asyncdiff_cli.engine.backbones import weights
from asyncdiff_cli.engine.backbones.adapters import Adapter, classes_of
from asyncdiff_cli.engine.backbones.configurations import check_configurations
from asyncdiff_cli.engine.backbones.control_nets import ControlNet
from asyncdiff_cli.engine.backbones.presence import (
    check_revision,
    find_checkpoint,
    find_pipeline,
)
from asyncdiff_cli.engine.backbones.registry import BackboneEntry, anonymous_entry
from asyncdiff_cli.engine.backbones.variants import needed_variant, variants
from asyncdiff_cli.engine.errors import InputError
from asyncdiff_cli.engine.hub import hub_errors
from asyncdiff_cli.engine.reading import read_json

LIBRARIES = ("diffusers", "transformers")
"""What components are of. Any other would be imported, and so run, because a file says so."""


@dataclass(frozen=True)
class Source:
    """A pipeline that is yet to be loaded."""

    entry: BackboneEntry
    """Its name and defaults."""
    location: str
    """A directory or repository, as `from_pretrained` takes it."""
    directory: Path | None
    """The directory, if it is one."""
    revision: str | None
    """The commit of the repository, if it is one."""
    index: Path
    """Its model_index.json."""
    pipeline_class: Any
    adapter_class: type[Adapter]
    components: dict[str, tuple[str, str]]
    """Library and class of each component that it has."""
    absent: tuple[str, ...]
    """The components that it does without."""
    checkpoint: Path | None
    """A file that its transformer is in, in place of its own."""
    control_net: ControlNet | None = None
    """What it is loaded with beside its own components."""


def find_source(
    name: str,
    model_path: str | Path | None = None,
    revision: str | None = None,
    quantize: str | None = None,
) -> Source:
    """Look a pipeline up; of a repository, download its index.

    Args: as `load_backbone`.

    Raises:
        InputError: for a name, directory, file or pipeline class that is not known, or a revision
            where there is no repository.
        AsyncDiffError: if the repository is gated or cannot be reached, or its index is damaged.
    """
    checkpoint = find_checkpoint(model_path, quantize)
    entry, location, directory = find_pipeline(name, None if checkpoint else model_path)
    check_revision(directory, revision)
    if directory is None:
        with pipeline_errors(location):
            index = Path(hf_hub_download(location, "model_index.json", revision=revision))
        commit = index.parent.name  # the cache names each snapshot's folder by its commit
    else:
        index, commit = directory / "model_index.json", None
    pipeline_class, adapter_class, components = read_index(index)
    family = adapter_class.family
    if entry is not None and entry.family != family:
        raise InputError(f"{location} holds a {pipeline_class.__name__}, which is not {entry.name}")
    return Source(
        entry=entry or anonymous_entry(name, family),
        location=location,
        directory=directory,
        revision=commit,
        index=index,
        pipeline_class=pipeline_class,
        adapter_class=adapter_class,
        components={n: (str(a), str(b)) for n, (a, b) in components.items() if a and b},
        absent=tuple(n for n, kind in components.items() if not all(kind)),
        checkpoint=checkpoint,
    )


def find_variant(source: Source) -> str | None:
    """The variant of its weights that has to be named, as `needed_variant`.

    Of a repository that is not known by name, it is looked up in what is downloaded, and on the
    hub if that is not all.

    Raises:
        InputError, AsyncDiffError: as `needed_variant`, and for a hub that cannot be reached.
    """
    if source.location == source.entry.repo:
        return None
    root = source.index.parent
    paths = [file.relative_to(root).as_posix() for file in root.glob("*/*")]
    files = _weight_folders(source, paths)
    if source.directory is None and not all(map(variants, files.values())):
        with pipeline_errors(source.location):
            files = _weight_folders(
                source, HfApi().list_repo_files(source.location, revision=source.revision)
            )
    try:
        return needed_variant(files)
    except InputError as error:
        raise InputError(f"{source.location} cannot be loaded: {error}") from None


def _weight_folders(source: Source, paths: Iterable[str]) -> dict[str, list[str]]:
    """The names of the files of each model that is read from there."""
    models = {n for n in source.components if not n.startswith(("tokenizer", "scheduler"))}
    if source.checkpoint is not None:
        models.discard("transformer")
    files: dict[str, list[str]] = {name: [] for name in models}
    for component, _, name in (path.partition("/") for path in paths):
        if component in files:
            files[component].append(name)
    return files


def fetch(source: Source) -> None:
    """Download what is read of a repository, if it is not on the disk.

    Raises:
        InputError, AsyncDiffError: as `find_source`.
    """
    if source.directory is not None:
        return
    with pipeline_errors(source.location):
        # what a file of its own replaces is not needed
        passed = {} if source.checkpoint is None else {"transformer": None}
        variant = find_variant(source)
        source.pipeline_class.download(
            source.location, revision=source.revision, variant=variant, **passed
        )


def configuration(source: Source) -> Path:
    """A directory with the configuration of all components, without weights if it is downloaded.

    Raises:
        AsyncDiffError: if it cannot be had.
    """
    if source.directory is not None:
        return source.directory
    with pipeline_errors(source.location):
        return weights.download_configuration(source.location, source.revision)


def read_index(index: Path) -> tuple[Any, type[Adapter], dict[str, list[str | None]]]:
    """The pipeline's class, its adapter's, and the library and class of each component.

    Raises:
        InputError: for an index of another shape, a class without an adapter, or one without a
            component that it does not draw without, or with one of another library; and as
            `check_configurations`.
    """
    values = read_json(index, weights.PipelineIndex)
    pipeline_class, adapter_class = classes_of(values.class_name)
    components = values.components()
    if lacking := _lacking(pipeline_class, components):
        raise InputError(
            f"{index} is damaged: it has no {lacking}, which a {pipeline_class.__name__} needs"
        )
    for name, (library, _) in components.items():
        if library not in (None, *LIBRARIES) and not hasattr(diffusers.pipelines, library):
            raise InputError(
                f"{index} names {library} as the library of {name}: {' and '.join(LIBRARIES)} are"
                " known"
            )
    check_configurations(index.parent, components)
    return pipeline_class, adapter_class, components


def _lacking(pipeline_class: Any, components: Mapping[str, list[str | None]]) -> str | None:
    """The first component that a pipeline needs, and is named without a class or not at all.

    It may be without text encoders, if their places are said to be empty, but an encoder needs its
    tokenizer.
    """
    parameters = signature(pipeline_class).parameters.values()
    present = {name for name, kind in components.items() if all(kind)}
    for name in (own.name for own in parameters if own.default is own.empty):
        of_text = name.startswith(("text_encoder", "tokenizer"))
        encoder = name.replace("tokenizer", "text_encoder")
        if name not in components or (name not in present and (not of_text or encoder in present)):
            return name
    return None


def pipeline_errors(repo: str) -> AbstractContextManager[None]:
    """The hub's errors about a pipeline, as the project's."""
    return hub_errors(
        repo,
        local="--model-path DIR",
        embedded="`--backbone mini` needs no download",
        lacking="is not a diffusers pipeline: it has no model_index.json",
    )
