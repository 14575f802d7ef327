"""The collector rests within a block, and is as before behind it."""

import gc
import sys
import types

from asyncdiff_cli.engine.collector import collector_at_rest


def test_it_is_off_within_the_block_and_as_before_behind_it():
    with collector_at_rest():
        with collector_at_rest():
            assert not gc.isenabled()
        assert not gc.isenabled()
    assert gc.isenabled()


def test_what_has_come_with_modules_is_not_walked_through_again(monkeypatch):
    frozen = []
    monkeypatch.setattr(gc, "freeze", lambda: frozen.append(True))
    with collector_at_rest():
        pass
    assert not frozen
    with collector_at_rest():
        monkeypatch.setitem(sys.modules, "a_new_one", types.ModuleType("a_new_one"))
    assert frozen
