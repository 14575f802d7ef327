"""The files that come with the package."""

from importlib.resources import files
from pathlib import Path

ASSETS = Path(str(files("asyncdiff_cli"))) / "assets"
