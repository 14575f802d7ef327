"""Encoded prompts in files, where the text encoders are gone before images are drawn."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from asyncdiff_cli.engine.backbones.adapters import TextConditions
from asyncdiff_cli.engine.errors import AsyncDiffError
from asyncdiff_cli.engine.files import write_atomically


@dataclass(frozen=True)
class EncodedText:
    """The conditions of prompts, a file each in a directory that all processes see.

    For FLUX.1-dev a file has 4 MiB, so they stay on the disk, where the system's cache of files
    serves all processes of a machine.
    """

    root: Path
    """A directory for this alone."""
    model: str
    """A name of what encodes, with a folder of its own."""

    @property
    def directory(self) -> Path:
        """The folder of the files."""
        return self.root / self.model

    def file(self, prompt: str) -> Path:
        """The file of a prompt."""
        digest = hashlib.sha256(prompt.encode()).hexdigest()
        return self.directory / f"{digest[:32]}.safetensors"

    def missing(self, prompts: Iterable[str]) -> list[str]:
        """The prompts that are not encoded yet, each once."""
        return [prompt for prompt in dict.fromkeys(prompts) if not self.file(prompt).is_file()]

    def write(self, prompt: str, text: TextConditions) -> None:
        """Keep the conditions of one prompt, a batch of 1."""
        tensors = {n: v.cpu().contiguous() for n, v in vars(text).items() if v is not None}
        write_atomically(self.file(prompt), lambda path: path.write_bytes(save(tensors)))

    def check_room(self, prompt: str, count: int) -> None:
        """Check that the disk has room for so many more like a prompt that is written.

        Raises:
            AsyncDiffError: if there is not.
        """
        wanted = count * self.file(prompt).stat().st_size
        free = shutil.disk_usage(self.directory).free
        if wanted > free:
            raise AsyncDiffError(
                f"{count:,} encoded prompts take {wanted / 1e9:.0f} GB, and {self.root.parent}"
                f" has {free / 1e9:.0f} GB free: use fewer prompts or iterations, or another --out"
            )

    def read(self, prompt: str, device: torch.device) -> TextConditions:
        """What was written.

        Raises:
            AsyncDiffError: if it cannot be read.
        """
        file = self.file(prompt)
        try:
            return TextConditions(**load_file(file, device=str(device)))
        except (OSError, SafetensorError) as error:
            raise AsyncDiffError(f"{file} cannot be read, delete it ({error})") from None

    def remove(self) -> None:
        """Delete all of it, and what was encoded for another model and never used."""
        shutil.rmtree(self.root, ignore_errors=True)
