"""The images of a store as the folders that the scorer of a benchmark reads, one for each setting.

What a picture is called depends on the store and the benchmark alone, so results that come back
are told apart without a list of what was written.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pyarrow as pa
from PIL import Image

from asyncdiff_cli.engine.errors import AsyncDiffError, InputError, of_system
from asyncdiff_cli.engine.evaluation.contender import seed_of_noise
from asyncdiff_cli.engine.evaluation.layouts.base import (
    DrawnPrompt,
    ExportedPicture,
    Layout,
    Row,
)
from asyncdiff_cli.engine.evaluation.layouts.table import find_layout
from asyncdiff_cli.engine.evaluation.setting import Setting
from asyncdiff_cli.engine.evaluation.store import Store
from asyncdiff_cli.engine.evaluation.summary import complete_rows, distinct_settings, unpaired
from asyncdiff_cli.engine.files import temporary
from asyncdiff_cli.engine.pictures import opened, read_picture
from asyncdiff_cli.engine.prompts.benchmarks import BenchmarkPrompt, benchmark_set
from asyncdiff_cli.engine.prompts.load import load_benchmark_prompts


@dataclass(frozen=True)
class Export:
    """What of a store is written for a benchmark.

    Attributes:
        trees: what each setting has drawn, by the name of its folder.
        partial: the prompts that are left out, for some setting has not drawn them yet.
        notes: what to know of the prompts that are written.
    """

    store: Store
    layout: Layout
    trees: Mapping[str, Sequence[DrawnPrompt]]
    partial: int
    notes: Sequence[str] = ()

    @cached_property
    def pictures(self) -> dict[str, list[ExportedPicture]]:
        """The pictures of each tree."""
        return {tree: self.layout.pictures(drawn) for tree, drawn in self.trees.items()}

    @property
    def prompts(self) -> int:
        """The prompts of each tree."""
        return len(next(iter(self.trees.values())))

    def texts(self) -> dict[str, str]:
        """The texts in the trees and beside them, by their paths."""
        return self.layout.shared(self.trees) | {
            f"{tree}/{path}": text
            for tree, drawn in self.trees.items()
            for path, text in self.layout.texts(drawn).items()
        }


def plan_export(
    store: Store, layout: str, data_dir: Path | None = None, prompts: Path | None = None
) -> Export:
    """Find what of a store a benchmark's scorer takes.

    Args:
        data_dir, prompts: of the benchmark's own prompts, as `load_prompts`.

    Raises:
        InputError: for a layout that is not known; and for a store of other prompts, or of fewer
            images a prompt than the scorer takes.
        AsyncDiffError: if the store is damaged, or the prompts cannot be had.
    """
    found = find_layout(layout)
    known = load_benchmark_prompts(layout, data_dir, prompts)
    places = _places(store, layout, known)
    table = store.read(["prompt", "image"])
    if not len(table):
        raise InputError(f"{store.path} has no rows")
    whole, count, lacking = complete_rows(table, len(distinct_settings(table)))
    if not count:
        raise InputError(f"{store.path} has no prompt yet that all policies have drawn: go on")
    trees: dict[str, dict[int, list[Row]]] = {}
    for row in table.filter(pa.array(whole)).to_pylist():
        place = _place(store, row, places, known)
        trees.setdefault(Setting.of(row).file, {}).setdefault(place, []).append(row)
    ordered = {
        tree: [
            DrawnPrompt(place, known[place], _taken(store, layout, found, drawn[place]))
            for place in sorted(drawn)
        ]
        for tree, drawn in trees.items()
    }
    return Export(store, found, ordered, lacking, unpaired(table, whole))


def _places(store: Store, layout: str, known: list[BenchmarkPrompt]) -> list[int]:
    """The place in a benchmark of each prompt of a store.

    Raises:
        InputError: if the store is of other prompts.
    """
    prompts, settings = benchmark_set(layout, known), store.settings
    seed = settings.get("seed")
    if settings.get("prompts_sha256") != prompts.fingerprint or not isinstance(seed, int):
        raise InputError(
            f"{store.path} is of other prompts than those of {layout}: `asyncdiff eval --dataset"
            f" {layout} --out DIR` makes a store of them (with --prompts PATH where they were read"
            " from a copy)"
        )
    return prompts.order(len(prompts), seed)


def _place(store: Store, row: Row, places: Sequence[int], known: Sequence[BenchmarkPrompt]) -> int:
    """The place in a benchmark of a row's prompt."""
    number = row["prompt_id"]
    if 0 <= number < len(places) and known[places[number]].prompt == row["prompt"]:
        return places[number]
    raise AsyncDiffError(f"prompt {number} in {store.path} is not of its seed: evaluate again")


def _taken(store: Store, layout: str, found: Layout, rows: Sequence[Row]) -> Sequence[Row]:
    """The rows of a prompt that a layout takes, in the order of their noises."""
    prompt_id, seed = rows[0]["prompt_id"], store.settings["seed"]
    numbers = {seed_of_noise(seed, prompt_id, number): number for number in range(len(rows))}
    if any(row["seed"] not in numbers for row in rows):
        raise AsyncDiffError(
            f"a noise of prompt {prompt_id} in {store.path} is not of its seed: evaluate again"
        )
    if found.takes is not None and len(rows) < found.takes:
        raise InputError(
            f"{layout} takes {found.takes} images of each prompt, and {store.path} has {len(rows)}:"
            f" give the same `asyncdiff eval` again with --num-images {found.takes}"
        )
    return sorted(rows, key=lambda row: numbers[row["seed"]])[: found.takes]


def write_export(export: Export, out: Path) -> list[Path]:
    """Write a folder for each setting into a new directory, which is complete or not there.

    Returns:
        The folders.

    Raises:
        InputError: for a directory that is not empty, images that were not kept, or images of one
            picture that differ in size.
        AsyncDiffError: if an image is missing, or nothing can be written.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out} is there already: give another --out")
    _check_kept(export)
    _check_squares(export)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with temporary(out, directory=True) as directory:
            _write(export, directory / "trees")
            os.replace(directory / "trees", out)
    except OSError as error:
        raise of_system(f"cannot write {out}", error) from None
    return [out / tree for tree in export.trees]


def _check_kept(export: Export) -> None:
    rows = [row for drawn in export.trees.values() for prompt in drawn for row in prompt.rows]
    lacking = {row["prompt_id"] for row in rows if row["image"] is None}
    if lacking:
        raise InputError(
            f"{export.store.path} kept no image of {len(lacking):,} of {export.prompts:,} prompts:"
            f" evaluate into another --out with --images {max(r['prompt_id'] for r in rows) + 1}"
        )


def _check_squares(export: Export) -> None:
    """The images that are put into one picture are of one size."""
    for picture in (picture for own in export.pictures.values() for picture in own):
        if len(picture.rows) > 1:
            first, *others = (_image(export.store, row["image"]) for row in picture.rows)
            for image in others:
                if _size(image) != _size(first):
                    raise InputError(
                        f"{image} has {_size(image)} pixels and {first} {_size(first)}, and one"
                        " picture of equal ones is made of them: evaluate into another --out"
                    )


def _size(path: Path) -> str:
    with opened(path) as image:
        return f"{image.width}x{image.height}"


def _write(export: Export, directory: Path) -> None:
    for tree, pictures in export.pictures.items():
        for picture in pictures:
            path = directory / tree / picture.file
            path.parent.mkdir(parents=True, exist_ok=True)
            _write_picture([_image(export.store, row["image"]) for row in picture.rows], path)
    for name, text in export.texts().items():
        (directory / name).write_text(text, encoding="utf-8")


def _image(store: Store, name: str) -> Path:
    path = store.image(name)
    if not path.is_file():
        raise AsyncDiffError(f"{path} is missing: merge copies images, moving parts does not")
    return path


def _write_picture(images: Sequence[Path], path: Path) -> None:
    """Copy an image; or make a JPEG of it, or a square of several, where the scorer takes those."""
    if len(images) == 1 and path.suffix == images[0].suffix:
        with opened(images[0]) as image:
            image.verify()  # the checksums, without the pixels
        shutil.copyfile(images[0], path)
    elif len(images) == 1:
        read_picture(images[0]).save(path)
    else:
        square_of([read_picture(image) for image in images]).save(path)


def square_of(images: Sequence[Image.Image]) -> Image.Image:
    """Four images of equal size in two rows of two."""
    width, height = images[0].size
    square = Image.new("RGB", (2 * width, 2 * height))
    for number, image in enumerate(images):
        square.paste(image, (number % 2 * width, number // 2 * height))
    return square
