"""A transformer in a file of its own: what is in it, told by the file's head."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from asyncdiff_cli.engine.backbones.registry import GGUF
from asyncdiff_cli.engine.errors import InputError
from asyncdiff_cli.engine.reading import check_readable
from asyncdiff_cli.engine.text import first_few, one_line

Shapes = Mapping[str, tuple[int, ...]]
LORA = re.compile(r"(?:^|[._])(?:lora|lokr|loha|hada)(?:[._]|$)")
"""What the name of a low-rank adapter's weight holds, whoever trained it."""


def check_is_model(path: Path) -> None:
    """The file can be read and holds weights that are not those of an adapter.

    Raises:
        InputError: for a file that is damaged, empty or a LoRA.
    """
    names = shapes(path)
    if not names:
        raise InputError(f"{path} holds no weights: a transformer's were expected")
    if any(LORA.search(name) for name in names):
        raise InputError(f"{path} is a LoRA and no transformer: give it as --lora {path}")


def check_fits(path: Path, own: Shapes, class_name: str) -> None:
    """The weights of a file in diffusers' layout are those of a model; of another layout, the
    conversion tells.

    Args:
        own: the model's.

    Raises:
        InputError: with the first few weights that are missing, not its own, or of another shape.
    """
    found = shapes(path)
    if not found.keys() & own.keys():
        return
    wrong = [
        *(f"{name} is missing" for name in own if name not in found),
        *(f"{name} is not one of its own" for name in found if name not in own),
        *(
            f"{name} is {list(found[name])}, not {list(own[name])}"
            for name in own
            if path.suffix != GGUF and found.get(name, own[name]) != own[name]
        ),
    ]
    if wrong:
        raise InputError(
            f"{path} does not hold the weights of this {class_name}: {first_few(wrong)}"
        )


def shapes(path: Path, kind: str = "transformer") -> dict[str, tuple[int, ...]]:
    """The names and shapes of the weights; in GGUF as they are packed.

    Args:
        kind: what is expected, for the message.

    Raises:
        InputError: if it cannot be read.
    """
    check_readable(path)
    try:
        return _gguf(path) if path.suffix == GGUF else safetensors_shapes(path)
    except Exception as error:  # readers of broken files raise whatever they run into
        why = getattr(error, "strerror", None) or one_line(error, 200) or "it ends early"
        raise InputError(
            f"{path} is not a readable {path.suffix} file of a {kind}, it is another kind of file"
            f" or incomplete ({why})"
        ) from None


def safetensors_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """The `shapes` of a safetensors file, with the errors of the library."""
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as file:
        return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118


def _gguf(path: Path) -> dict[str, tuple[int, ...]]:
    from gguf import GGUFReader

    return {tensor.name: tuple(map(int, tensor.shape)) for tensor in GGUFReader(path).tensors}
