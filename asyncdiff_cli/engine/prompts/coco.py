"""The captions of COCO 2014 (Lin et al., 2014)."""

from __future__ import annotations

import json
import os
import shutil
import zlib
from pathlib import Path
from zipfile import BadZipFile, ZipFile

from asyncdiff_cli.engine.downloads import INSTEAD, OnProgress, download
from asyncdiff_cli.engine.errors import AsyncDiffError, InputError
from asyncdiff_cli.engine.prompts.split import FILE_HELD_OUT, is_held_out
from asyncdiff_cli.engine.reading import MEBIBYTE, read_bytes

CAPTIONS = 1024 * MEBIBYTE
"""What a file of captions is below; COCO's have 66 and 32 MiB."""
COCO_URL = "http://images.cocodataset.org/annotations/annotations_trainval2014.zip"
COCO_FILES = {"train": "captions_train2014.json", "validation": "captions_val2014.json"}
COCO_SIZES = {"train": 414_113, "validation": 202_654}


def read_coco(path: Path, split: str) -> list[str]:
    """The captions of a file, or of the split's file in a directory."""
    if path.name in COCO_FILES.values():
        path = path.parent  # the other split's prompts are never this one's
    found = path if path.is_file() else _find_coco(path, split)
    if found is None:
        raise InputError(
            f"{path} does not hold {COCO_FILES[split]}: give the directory of the official files"
        )
    texts = captions_of(found)
    if found.name in COCO_FILES.values():
        return texts
    held_out = split == "validation"  # a file of no split of its own is divided
    return [text for text in texts if is_held_out(text, FILE_HELD_OUT) == held_out]


def _find_coco(directory: Path, split: str) -> Path | None:
    name = COCO_FILES[split]
    found = (directory / name, directory / "annotations" / name)
    return next((path for path in found if path.is_file()), None)


def fetch_coco(directory: Path, split: str, on_progress: OnProgress | None) -> list[str]:
    """The official captions; those of both splits are kept of their archive."""
    path = _find_coco(directory, split)
    if path is None:
        archive = directory / Path(COCO_URL).name
        _extract_coco(download(COCO_URL, archive, on_progress=on_progress))
        path = directory / COCO_FILES[split]
    texts = captions_of(path)
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


def captions_of(path: Path) -> list[str]:
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
