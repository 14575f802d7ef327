"""How the software and its paper are cited, in each place where it is said."""

import re
from pathlib import Path

import yaml

import asyncdiff_cli

ROOT = Path(__file__).parents[1]
CITATION = yaml.safe_load((ROOT / "CITATION.cff").read_text())
(PAPER,) = CITATION["references"]


def bibtex():
    """The README's entries, each as its fields by name."""
    text = (ROOT / "README.md").read_text()
    entries = re.findall(r"^@\w+\{\w+,\n(.*?)\n\}$", text, re.M | re.S)
    return [dict(re.findall(r"(\w+) += \{(.*)\}", entry)) for entry in entries]


def test_the_citation_is_of_this_version_and_licence():
    assert CITATION["version"] == asyncdiff_cli.__version__
    assert f'license = "{CITATION["license"]}"' in (ROOT / "pyproject.toml").read_text()


def test_the_readme_cites_the_same():
    paper, software = bibtex()
    assert paper["title"] == PAPER["title"]
    names = [f"{author['given-names']} {author['family-names']}" for author in PAPER["authors"]]
    assert paper["author"] == " and ".join(names)
    assert (paper["year"], paper["eprint"]) == (str(PAPER["year"]), PAPER["url"].rpartition("/")[2])
    assert PAPER["identifiers"][0]["value"] == f"arXiv:{paper['eprint']}"
    assert software["version"] == CITATION["version"]
    assert software["author"] == f"{{{CITATION['authors'][0]['name']}}}"
