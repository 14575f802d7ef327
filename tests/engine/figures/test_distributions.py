"""Whose deviations a histogram shows, told apart."""

import pytest

from asyncdiff_cli.engine import InputError
from asyncdiff_cli.engine.figures.distributions import distributions, told_apart
from tests.helpers.stores import begun, row


def test_directories_are_labelled_by_what_tells_them_apart(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for path in ("a/x/mini", "b/x/mini", "b/mini"):
        (tmp_path / path).mkdir(parents=True)
    paths = [tmp_path / "a/x/mini", tmp_path / "b/x/mini", tmp_path / "b/mini"]
    assert told_apart(paths) == ["a/x/mini", "b/x/mini", "b/mini"]
    assert told_apart([paths[0], tmp_path / "b"]) == ["mini", "b"]
    monkeypatch.chdir(paths[0])
    assert told_apart([tmp_path / "a/x/mini/."]) == ["mini"]
    with pytest.raises(InputError, match="is given twice"):
        told_apart([paths[0], tmp_path / "a/../a/x/mini"])


def test_no_module_is_dropped(tmp_path):
    policies = ("baseline", "learned:one", "learned:two", "lifted")
    stores = []
    for name in ("one", "two"):
        stores.append((name, begun(tmp_path / name)))
        stores[-1][1].write([row(0, policy) for policy in policies])
    assert list(distributions(stores[:1], None)) == ["learned:one", "learned:two", "lifted"]
    assert len(distributions(stores, None)) == 6
