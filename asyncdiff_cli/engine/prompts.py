"""The prompts that are trained and validated on: named sets, or a file of one's own."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import zlib
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from zipfile import BadZipFile, ZipFile

import numpy as np
import numpy.typing as npt

from asyncdiff_cli.engine.checks import check_choice, check_unicode, unknown
from asyncdiff_cli.engine.downloads import INSTEAD, Progress, download
from asyncdiff_cli.engine.errors import AsyncDiffError, InputError
from asyncdiff_cli.engine.files import expanded
from asyncdiff_cli.engine.mini_prompts import first_edition
from asyncdiff_cli.engine.reading import MEBIBYTE, read_bytes
from asyncdiff_cli.engine.requests import read_prompts
from asyncdiff_cli.engine.splits import SPLITS, is_held_out

SOURCES = ("mini", "coco2014", "t2i-compbench")
ALL = "all"
"""What is read of a file that is evaluated on."""
EVALUATED = {"mini": 256, "coco2014": 2048}
"""How many validation prompts an evaluation draws, unless asked otherwise; else all."""

MINI = first_edition
"""What composes mini's prompts: `second_edition` is for weights of that world."""
FILE_HELD_OUT = 10
"""One in so many prompts of a file is for validation."""

CAPTIONS = 1024 * MEBIBYTE
"""What a file of captions is below; COCO's have 66 and 32 MiB."""
COCO_URL = "http://images.cocodataset.org/annotations/annotations_trainval2014.zip"
COCO_FILES = {"train": "captions_train2014.json", "validation": "captions_val2014.json"}
COCO_SIZES = {"train": 414_113, "validation": 202_654}

T2I_URL = (
    "https://raw.githubusercontent.com/Karine-Huang/T2I-CompBench/"
    "1b7094991a57f3c22abdd4f6e8ba6c1a15517073/examples/dataset"
)
T2I_CATEGORIES = (
    "color",
    "shape",
    "texture",
    "spatial",
    "3d_spatial",
    "non_spatial",
    "numeracy",
    "complex",
)
T2I_SHA256 = {
    "color_train.txt": "db5d3287027d453f8c977f0c7315f8a01a770f02f61fa54ae19406762982393f",
    "shape_train.txt": "451bdfccd330d4cf979d45664817be7959e89250b93d5c591cc562b858175a87",
    "texture_train.txt": "4846315c5972f9e9cc82e4833099e8ec2c28b999ca77269512715f3f56bde54f",
    "spatial_train.txt": "af14cdf2320057d98f94077e6211c2ddfaabfbb9e3842873657baabb17e00de6",
    "3d_spatial_train.txt": "0bba7e9ad31b0ce7908f6cbf2426a4b7ef6e8b841c1b737d0ad2d5b8e688dd93",
    "non_spatial_train.txt": "dbac5a9ec83204dcd0c3538a12d3212e2ce66db6f7ba45b49a1d869b2d3f2430",
    "numeracy_train.txt": "f66bb8708cb0be23c0406e14d892b25661b2b71e3e72abddc79c38466ab629c6",
    "complex_train.txt": "d214ac45cb3c5307dd14a144c8c69aa5ffdcc7be74ff71b5dac989f8ca9f924b",
    "color_val.txt": "1634259756dbc77d13093d907d414480080ec9790a8c97ad09efaea7b2534f2d",
    "shape_val.txt": "37e1a276906c7ea9516cbd7ac8501be896006c0c17ca7344f260562834455bae",
    "texture_val.txt": "fbb5363515b4a28009e360afaaaf389d2dd2289e50dbb0c6ef4ea0c7fe4f3d4f",
    "spatial_val.txt": "8707a1d7e42ce3002d95363cf55f74bd043c843ae27108f5125aaaa7840ca988",
    "3d_spatial_val.txt": "c9953597315f36a5fcb41291bb19bdc6ab5f64a0fa760d691b4854a73f5d1fe9",
    "non_spatial_val.txt": "04c56cc9ac441dc9ea6c5157652058bd1635b5308526dd31bb29a1caab9a758d",
    "numeracy_val.txt": "dad8df141604b70ba7554bec724e3db0a80023680769b5c514854ea2d2527bbe",
    "complex_val.txt": "1b808018b8d9916db3d47d5aa2ef18377a3549a56901a474156f799824cdf3b4",
}


@dataclass(frozen=True)
class PromptSet:
    """Prompts in a fixed order, and two fixed ways to take some of them."""

    name: str
    """What it was asked for as: one of SOURCES, or the path of a file."""
    split: str
    """ "train" or "validation"."""
    texts: tuple[str, ...]
    categories: tuple[str, ...] = ()
    """Of each text, for a set that has some."""

    def __post_init__(self) -> None:
        check_unicode(f"a prompt of {self.name}", "".join(self.texts))

    def __len__(self) -> int:
        return len(self.texts)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the texts and their order, in hexadecimal."""
        return hashlib.sha256(json.dumps(self.texts).encode()).hexdigest()

    def at(self, position: int, seed: int) -> str:
        """The prompt at `position` (from 0, without end) of a shuffled reading.

        Each pass over the set has an order of its own. It depends on nothing but the texts, the
        position and the seed, so a run that is resumed needs no more than its position.
        """
        epoch, index = divmod(position, len(self))
        return self.texts[_order(len(self), seed, epoch)[index]]

    def draw(self, count: int, seed: int) -> tuple[str, ...]:
        """`count` entries without replacement; a smaller draw begins a larger one of its seed.

        Raises:
            InputError: if there are not so many.
        """
        return tuple(self.texts[index] for index in self.order(count, seed))

    def order(self, count: int, seed: int) -> list[int]:
        """The places of the entries that `draw` takes.

        Raises:
            InputError: as `draw`.
        """
        if not 0 <= count <= len(self):
            kind = "" if self.split == ALL else f"{self.split} "
            raise InputError(
                f"{self.name} has {len(self):,} {kind}prompts: ask for at most so many, not"
                f" {count:,}"
            )
        return np.random.default_rng(seed).permutation(len(self))[:count].tolist()


@lru_cache(maxsize=4)
def _order(size: int, seed: int, epoch: int) -> npt.NDArray[np.int64]:
    return np.random.default_rng((seed, epoch)).permutation(size)


def check_source(source: str) -> None:
    """A set of prompts is one of `SOURCES`, or a file that is there.

    Raises:
        InputError: for another one.
    """
    if source not in SOURCES and not expanded(source).is_file():
        raise InputError(f"{unknown('prompt source', source, SOURCES)}, and there is no such file")


def load_prompts(
    source: str,
    split: str,
    data_dir: Path | None = None,
    path: Path | None = None,
    on_progress: Progress | None = None,
) -> PromptSet:
    """Read one split of a set of prompts.

    The splits of mini and of a file are disjoint; the others are as they were published.

    Args:
        source: one of SOURCES, or a file as `asyncdiff sample --prompt-file` takes, of which only
            the prompts are read.
        split: "train" or "validation".
        data_dir: where downloads are kept, default `$XDG_CACHE_HOME/asyncdiff`.
        path: a copy in place of the download. For coco2014 the file of captions, or the directory
            that holds those of both splits; for t2i-compbench the directory of its lists.
        on_progress: told about the download of coco2014, as in `download`.

    Raises:
        InputError: for an unknown source or split, a file that is not what it should be, or a
            split that is empty.
        AsyncDiffError: if a download fails, or is not what it should be.
    """
    check_choice("split", split, SPLITS)
    home = data_dir or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "asyncdiff"
    directory = expanded(home) / source
    path = expanded(path) if path else None
    if source == "coco2014":
        texts = _read_coco(path, split) if path else _fetch_coco(directory, split, on_progress)
    elif source == "t2i-compbench":
        if path is None:
            _fetch_t2i(directory, split)
        return _read_t2i(path or directory, split)
    elif path is not None:
        raise InputError(
            f"{source!r} is not downloaded, so it takes no local copy: leave out {path}"
        )
    elif source == "mini":
        texts, categories = MINI(split)
        return PromptSet(source, split, tuple(texts), tuple(categories))
    else:
        texts = _read_file(source, split)
    return PromptSet(source, split, tuple(texts))


def load_evaluation_prompts(
    source: str,
    data_dir: Path | None = None,
    path: Path | None = None,
    on_progress: Progress | None = None,
) -> PromptSet:
    """What is evaluated on: the validation split of a named set, or every prompt of a file.

    A file is one of prompts as `source`, or as `path` one in COCO's form of another name than
    COCO's own.

    Args, Raises: as `load_prompts`.
    """
    own = None if path is None else expanded(path)
    if source == "coco2014" and own and own.is_file() and own.name not in COCO_FILES.values():
        return PromptSet(source, ALL, tuple(_captions(own)))
    if source in SOURCES or not expanded(source).is_file():
        return load_prompts(source, "validation", data_dir, path, on_progress)
    prompts = dict.fromkeys(line.prompt for _, line in read_prompts(expanded(source)))
    if not prompts:
        raise InputError(f"{source} holds no prompt")
    return PromptSet(source, ALL, tuple(prompts))


def _read_coco(path: Path, split: str) -> list[str]:
    """The captions of a file, or of the split's file in a directory."""
    if path.name in COCO_FILES.values():
        path = path.parent  # the other split's prompts are never this one's
    found = path if path.is_file() else _find_coco(path, split)
    if found is None:
        raise InputError(
            f"{path} does not hold {COCO_FILES[split]}: give the directory of the official files"
        )
    texts = _captions(found)
    if found.name in COCO_FILES.values():
        return texts
    held_out = split == "validation"  # a file of no split of its own is divided
    return [text for text in texts if is_held_out(text, FILE_HELD_OUT) == held_out]


def _find_coco(directory: Path, split: str) -> Path | None:
    name = COCO_FILES[split]
    found = (directory / name, directory / "annotations" / name)
    return next((path for path in found if path.is_file()), None)


def _fetch_coco(directory: Path, split: str, on_progress: Progress | None) -> list[str]:
    """The official captions; those of both splits are kept of their archive."""
    path = _find_coco(directory, split)
    if path is None:
        archive = directory / Path(COCO_URL).name
        _extract_coco(download(COCO_URL, archive, on_progress=on_progress))
        path = directory / COCO_FILES[split]
    texts = _captions(path)
    if len(texts) != COCO_SIZES[split]:
        raise AsyncDiffError(
            f"{path} is truncated: it has {len(texts):,} captions, expected {COCO_SIZES[split]:,};"
            f" delete it to download it again, or {INSTEAD}"
        )
    return texts


def _extract_coco(archive: Path) -> None:
    """Put the files of captions beside the archive, and delete it."""
    try:
        with ZipFile(archive) as members:
            for name in COCO_FILES.values():
                part = archive.with_name(f"{name}.part")
                with members.open(f"annotations/{name}") as source, part.open("wb") as target:
                    shutil.copyfileobj(source, target)
                os.replace(part, archive.with_name(name))
    except (BadZipFile, zlib.error, KeyError, EOFError) as error:
        archive.unlink()
        raise AsyncDiffError(
            f"the archive from {COCO_URL} is damaged ({error}): try again, or {INSTEAD}"
        ) from None
    except OSError as error:
        raise AsyncDiffError(f"cannot unpack {archive}: {error.strerror or error}") from None
    archive.unlink()


def _captions(path: Path) -> list[str]:
    """The captions of a file in COCO's form, in the order of their ids."""
    try:
        items = json.loads(read_bytes(path, CAPTIONS))["annotations"]
        captions = sorted((int(item["id"]), item["caption"].strip()) for item in items)
    except InputError:
        raise
    except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError):
        captions = []
    if not captions:
        raise InputError(
            f'{path} is not a file of COCO captions: expected {{"annotations": [{{"image_id": 1,'
            ' "id": 1, "caption": "A cat."}, …]}, as in captions_train2014.json'
        )
    return [caption for _, caption in captions]


def _t2i_files(split: str) -> list[str]:
    suffix = "train" if split == "train" else "val"
    return [f"{category}_{suffix}.txt" for category in T2I_CATEGORIES]


def _fetch_t2i(directory: Path, split: str) -> None:
    for name in _t2i_files(split):
        download(f"{T2I_URL}/{name}", directory / name, T2I_SHA256[name])


def _read_t2i(directory: Path, split: str) -> PromptSet:
    """The lines of the eight lists, category by category."""
    names = _t2i_files(split)
    if missing := [name for name in names if not (directory / name).is_file()]:
        raise InputError(
            f"{directory} lacks {', '.join(missing)}: give the directory examples/dataset of"
            " T2I-CompBench"
        )
    texts: list[str] = []
    categories: list[str] = []
    for name, category in zip(names, T2I_CATEGORIES, strict=True):
        texts += [line.prompt for _, line in read_prompts(directory / name)]
        categories += [category] * (len(texts) - len(categories))
    return PromptSet("t2i-compbench", split, tuple(texts), tuple(categories))


def _read_file(source: str, split: str) -> list[str]:
    """The split's prompts of a file, each once; no prompt's split depends on the others."""
    check_source(source)
    prompts = dict.fromkeys(line.prompt for _, line in read_prompts(expanded(source)))
    texts = [text for text in prompts if SPLITS[is_held_out(text, FILE_HELD_OUT)] == split]
    if not texts:
        raise InputError(
            f"{source} has no {split} prompts: a hash of its text puts one prompt in"
            f" {FILE_HELD_OUT} into validation, and none of its {len(prompts)} is for {split};"
            " add more"
        )
    return texts
