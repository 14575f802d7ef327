"""Pictures that cannot be read, and records of those that can."""

import os
import zlib

import numpy as np
from PIL import Image, PngImagePlugin

GREY = np.add.outer(np.arange(0, 128, 8), np.arange(0, 128, 8)).astype(np.uint8)
COLOURS = np.stack([GREY, GREY[::-1], 255 - GREY], axis=-1)


def bad_pictures(folder):
    """Files that are called pictures, and what is said of each."""
    small = Image.new("RGB", (8, 8))
    Image.fromarray(COLOURS).save(folder / "whole.png")
    (folder / "torn.png").write_bytes((folder / "whole.png").read_bytes()[:60])
    header = bytearray((folder / "whole.png").read_bytes())
    header[16:24] = (20_000).to_bytes(4, "big") * 2
    header[29:33] = zlib.crc32(header[12:29]).to_bytes(4, "big")
    (folder / "huge.png").write_bytes(header)
    (folder / "text.png").write_text("no picture")
    (folder / "empty.png").touch()
    (folder / "folder.png").mkdir()
    os.mkfifo(folder / "pipe.png")
    small.save(
        folder / "moving.png", save_all=True, append_images=[Image.new("RGB", (8, 8), "red")]
    )
    Image.new("RGB", (2, 2)).save(folder / "2x2.png")
    (folder / "whole.png").unlink()
    return {
        "torn.png": "damaged",
        "huge.png": "more than",
        "text.png": "in no format that is known",
        "empty.png": "in no format that is known",
        "folder.png": "not a file",
        "pipe.png": "not a file",
        "moving.png": "holds 2 pictures",
    }


def with_record(path, text):
    with Image.open(path) as image:
        image.load()
        info = PngImagePlugin.PngInfo()
        info.add_itxt("asyncdiff", text)
        image.save(path, pnginfo=info)
