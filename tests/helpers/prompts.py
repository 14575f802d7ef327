"""Captions and lists of prompts as they are published."""

import json
from pathlib import Path

import pytest

from asyncdiff_cli.engine.prompts.compbench import T2I_CATEGORIES

LISTS = Path(__file__).parents[3] / "shared" / "t2i-compbench"
needs_lists = pytest.mark.skipif(not LISTS.is_dir(), reason="the lists are not here")


def write_captions(path, *captions):
    """In COCO's form, the ids falling."""
    items = [{"image_id": 9, "id": 90 - i, "caption": text} for i, text in enumerate(captions)]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"info": {}, "annotations": items}), encoding="utf-8")
    return path


def write_lists(directory, skip=()):
    """Two prompts per list and a blank line, with the line ends of the official ones."""
    directory.mkdir(parents=True, exist_ok=True)
    for category in T2I_CATEGORIES:
        for suffix in ("train", "val"):
            name = f"{category}_{suffix}.txt"
            if name not in skip:
                text = f"{category} {suffix} 1\r\n\r\n {category} {suffix} 2. \r\n"
                (directory / name).write_bytes(text.encode())
    return directory
