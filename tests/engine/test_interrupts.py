"""SIGTERM and SIGHUP end a command as ctrl-C does, whatever a library makes of it."""

import os
import signal
import subprocess
import sys
import threading

import pytest

from asyncdiff_cli.engine import AsyncDiffError, launching
from asyncdiff_cli.engine.interrupts import SIGNALS, as_interrupts, exit_code, ignore_interrupts
from asyncdiff_cli.engine.training.interrupts import InterruptedRunError

each = pytest.mark.parametrize("number", SIGNALS)


@pytest.fixture(autouse=True)
def _heard():
    """None is ignored, as SIGINT is where the tests run in the background, and SIGHUP by nohup."""
    unheeded = dict.fromkeys(SIGNALS, signal.SIG_DFL)
    before = {
        number: signal.signal(number, handler)
        for number, handler in {**unheeded, signal.SIGINT: signal.default_int_handler}.items()
    }
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def raised(number, meanwhile):
    """What leaves the block in which a signal comes."""
    before = [signal.getsignal(n) for n in SIGNALS]
    with pytest.raises((Exception, KeyboardInterrupt)) as caught:
        _raise(number, meanwhile)
    assert [signal.getsignal(n) for n in SIGNALS] == before
    return caught.value


def _raise(number, meanwhile):
    with as_interrupts():
        try:
            signal.raise_signal(number)
        except KeyboardInterrupt:
            meanwhile()


def failing(error):
    def fail():
        raise error

    return fail


@each
@pytest.mark.parametrize(
    "meanwhile",
    [lambda: None, failing(ImportError("torch")), failing(AsyncDiffError("cannot be loaded"))],
)
def test_a_signal_is_an_interrupt_also_if_it_was_swallowed(number, meanwhile):
    assert exit_code(raised(number, meanwhile)) == 128 + number


@each
def test_a_training_that_was_stopped_says_so_with_the_signals_code(number):
    error = InterruptedRunError("stopped after iteration 3", 128 + number)
    assert raised(number, failing(error)) is error


def test_what_a_launcher_repeats_does_not_interrupt_what_is_left_to_do():
    raised(signal.SIGINT, lambda: signal.raise_signal(signal.SIGTERM))

    def twice():
        ignore_interrupts()
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)

    assert exit_code(raised(signal.SIGTERM, twice)) == 143


def test_what_is_ignored_stays_ignored():
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with as_interrupts():
        signal.raise_signal(signal.SIGINT)


@each
def test_a_signal_to_a_launcher_alone_ends_its_processes(number):
    children = [
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]) for _ in range(2)
    ]
    threading.Timer(0.2, os.kill, (os.getpid(), number)).start()
    codes = []
    with pytest.raises(KeyboardInterrupt), as_interrupts():
        codes.append(launching._wait(children))
    assert codes == [128 + number]
    assert [child.returncode for child in children] == [-signal.SIGTERM] * 2
