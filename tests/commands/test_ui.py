"""`asyncdiff ui`: what is refused before it starts, and what it says when it has."""

import json
import socket
from importlib.util import find_spec

import pytest

from asyncdiff_cli.engine.launching import free_port
from asyncdiff_cli.ui import server


def test_without_gradio_a_line_says_how_to_get_it(asyncdiff, monkeypatch):
    monkeypatch.setattr(server, "find_spec", lambda name: None)
    outcome = asyncdiff("ui")
    assert outcome.code == 2
    assert outcome.err == "error: ui needs gradio: pip install 'asyncdiff-cli[ui]'\n"


@pytest.fixture
def installed(monkeypatch):
    """What is refused is refused before gradio would be imported."""
    monkeypatch.setattr(server, "find_spec", lambda name: name)


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--policy", "fixd:0.5"], "did you mean 'fixed'?"),
        (["--policy", "fixed:0.5@2", "--gamma", "1"], "give gamma once"),
        (["--steps", "0"], "--steps: "),
        (["--backbone", "minni"], "unknown backbone 'minni'"),
        (["--port", "0"], "--port"),
        (["--host", "host.invalid"], "cannot listen on host.invalid, port 7860: "),
        (["--out", "file/below"], "cannot write to file/below: Not a directory"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(asyncdiff, tmp_path, arguments, message):
    (tmp_path / "file").touch()
    outcome = asyncdiff("ui", *arguments)
    assert outcome.code == 2
    assert outcome.err.count("\n") == 1
    assert message in outcome.err


@pytest.mark.usefixtures("installed")
def test_a_port_that_is_taken_is_refused(asyncdiff):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        outcome = asyncdiff("ui", "--port", port)
    assert outcome.code == 2
    assert f"cannot listen on 127.0.0.1, port {port}: " in outcome.err
    assert "give another --host or --port" in outcome.err


@pytest.mark.parametrize(
    ("host", "open_to_others"),
    [("127.0.0.1", False), ("localhost", False), ("127.0.0.9", False), ("0.0.0.0", True)],
)
def test_an_address_that_others_reach_is_warned_of(host, open_to_others):
    said = server.exposure(host, 7860)
    assert (said is not None) == open_to_others
    assert said is None or "without a password" in said


@pytest.mark.skipif(find_spec("gradio") is None, reason="gradio is not installed")
def test_it_serves_until_it_is_interrupted(asyncdiff, monkeypatch, tmp_path):
    def interrupted():
        raise KeyboardInterrupt

    monkeypatch.setattr(server, "wait", interrupted)
    monkeypatch.setattr(server, "exposure", lambda *_: "open to others")
    port = free_port()
    outcome = asyncdiff("ui", "a dog", "--port", port, "--out", "kept", "--json")
    assert outcome.code == 130, outcome.err
    assert "warning: open to others" in outcome.err
    assert json.loads(outcome.out) == {
        "url": f"http://127.0.0.1:{port}/", "backbone": "mini", "out": "kept"
    }  # fmt: skip
    assert list(tmp_path.iterdir()) == []
    with socket.socket() as again:
        assert again.connect_ex(("127.0.0.1", port)) != 0
