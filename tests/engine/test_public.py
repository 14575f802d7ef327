import doctest
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

from asyncdiff_cli import engine
from asyncdiff_cli.engine import AsyncDiffError, InputError
from tests.helpers import api


def test_the_package_itself_is_instant():
    code = "import asyncdiff_cli, sys; sys.exit('torch' in sys.modules or 'rich' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("name", engine.__all__)
def test_every_public_name_is_there_and_documented(name):
    assert name == "REGISTRY" or getattr(engine, name).__doc__


def test_every_public_name_has_its_module():
    assert sorted(engine._MODULES) == sorted(engine.__all__)


def test_the_page_of_the_api_is_that_of_its_signatures():
    """`python -m tests.helpers.api > docs/api.md` writes it."""
    names = [name for group in api.GROUPS.values() for name in group.split()]
    assert sorted(names) == sorted(engine.__all__)
    docs = Path(__file__).parents[2] / "docs"
    assert (docs / "api.md").read_text(encoding="utf-8") == api.page()


def test_bad_input_is_also_a_value_error():
    assert issubclass(InputError, ValueError)
    assert (AsyncDiffError.exit_code, InputError.exit_code) == (1, 2)


NO_EXAMPLE = {
    "ADAPTERS",
    "Adapter",
    "AsyncDiffError",
    "AsyncDiffWarning",
    "Backbone",
    "InputError",
    "Policy",
    "REGISTRY",
    "Reward",
    "SampleResult",
    "StepState",
    "TextConditions",
    "Trace",
}
"""Errors, tables, what others return, and what a new family, policy or reward derives from."""


@pytest.mark.parametrize("name", sorted(set(engine.__all__) - NO_EXAMPLE))
def test_its_example_is_true(name):
    """All public names are there, as after `from asyncdiff_cli.engine import *`."""
    public = {each: getattr(engine, each) for each in engine.__all__}
    text = inspect.getdoc(public[name])
    example = doctest.DocTestParser().get_doctest(text, public, name, None, 0)
    assert example.examples
    differences = []
    doctest.DocTestRunner(verbose=False).run(example, out=differences.append)
    assert not differences, "".join(differences)
