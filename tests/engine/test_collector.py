"""The collector rests within a block, and is as before behind it."""

import gc

from asyncdiff_cli.engine.collector import collector_at_rest


def test_it_is_off_within_the_block_and_as_before_behind_it():
    with collector_at_rest():
        with collector_at_rest():
            assert not gc.isenabled()
        assert not gc.isenabled()
    assert gc.isenabled()
