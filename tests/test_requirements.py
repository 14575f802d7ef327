"""What is imported is declared in pyproject.toml, as a dependency or in an extra."""

import ast
import re
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement

tomllib = pytest.importorskip("tomllib")  # of Python 3.11

ROOT = Path(__file__).parents[1]
OURS = {"asyncdiff_cli", "mini", "benchmarks", "tests", "integrations"}
COMFYUI = {"comfy", "nodes"}
"""Modules of ComfyUI, beside which the nodes for it are tested."""
FOR_DEVELOPERS = {"test", "reference", "mini"}
"""Extras that the package itself does not import."""


def normal(name: str) -> str:
    return re.sub(r"[-_.]", "", name).lower()


def declared() -> tuple[set[str], set[str]]:
    """Distributions that the package may import, and those that the rest of the repository may."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    groups = {"": project["dependencies"], **project["optional-dependencies"]}
    names = {k: {normal(Requirement(line).name) for line in lines} for k, lines in groups.items()}
    package = set().union(*(names[k] for k in names if k not in FOR_DEVELOPERS))
    return package, set().union(*names.values())


def third_party(folder: str) -> dict[str, str]:
    """The top-level modules that a folder's files import, each with a file that does."""
    known = OURS | COMFYUI | sys.stdlib_module_names
    found = {}
    for path in (ROOT / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            found |= {name.partition(".")[0]: path.name for name in names}
    return {n: p for n, p in found.items() if n not in known}


@pytest.mark.parametrize("folder", ["asyncdiff_cli", "mini", "benchmarks", "tests"])
def test_what_is_imported_is_declared(folder):
    allowed = declared()[folder != "asyncdiff_cli"]
    distributions = packages_distributions()
    missing = {
        f"{name} in {file}"
        for name, file in third_party(folder).items()
        if not {normal(own) for own in distributions.get(name, [name])} & allowed
    }
    assert not missing
