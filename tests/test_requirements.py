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
OURS |= {path.stem for path in (ROOT / "integrations").rglob("*.py")}
"""The repository's modules: those of integrations are loaded as their hosts load them."""
COMFYUI = {"comfy", "nodes"}
"""Modules of ComfyUI, beside which the nodes for it are tested."""
FOR_DEVELOPERS = {"test", "reference", "mini"}
"""Extras that the package itself does not import."""


def normal(name: str) -> str:
    return re.sub(r"[-_.]", "", name).lower()


def declared() -> dict[str, set[str]]:
    """The distributions of each extra; those of "" are always there."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    groups = {"": project["dependencies"], **project["optional-dependencies"]}
    return {k: {normal(Requirement(line).name) for line in lines} for k, lines in groups.items()}


def undeclared(folder: str, allowed: set[str], nodes=ast.walk) -> set[str]:
    """The modules that a folder's files import of other distributions than the allowed ones."""
    known = OURS | COMFYUI | sys.stdlib_module_names
    distributions = packages_distributions()
    missing = set()
    for path in (ROOT / folder).rglob("*.py"):
        for node in nodes(ast.parse(path.read_text(encoding="utf-8"))):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            for name in {name.partition(".")[0] for name in names} - known:
                if not {normal(own) for own in distributions.get(name, [name])} & allowed:
                    missing.add(f"{name} in {path.name}")
    return missing


def test_what_the_package_imports_is_declared():
    groups = declared()
    extras = set().union(*(names for key, names in groups.items() if key not in FOR_DEVELOPERS))
    assert undeclared("asyncdiff_cli", extras) == set()
    # an extra's modules are imported where they are used
    assert undeclared("asyncdiff_cli", groups[""], ast.iter_child_nodes) == set()


@pytest.mark.parametrize("folder", ["mini", "benchmarks", "tests"])
def test_what_the_rest_imports_is_declared(folder):
    assert undeclared(folder, set().union(*declared().values())) == set()
