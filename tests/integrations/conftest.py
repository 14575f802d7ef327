"""The nodes for ComfyUI, loaded as it loads them, in interfaces that stand in for it."""

import sys
from pathlib import Path

import pytest

from tests.integrations import comfy

FOLDER = Path(__file__).parents[2] / "integrations" / "comfyui"


@pytest.fixture(scope="module")
def pack():
    kept = {name: module for name, module in sys.modules.items() if name.startswith("comfy")}
    comfy.install()
    yield comfy.load(FOLDER)
    for name in [name for name in sys.modules if name.startswith(("comfy", str(FOLDER)))]:
        del sys.modules[name]
    sys.modules.update(kept)
