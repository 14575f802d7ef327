"""Whether the hub answers is found out once, and then local files have to do."""

import socket
import threading

import pytest
from huggingface_hub import constants

from asyncdiff_cli.engine import hub, load_backbone
from asyncdiff_cli.engine.backbones.lora import LoRA
from asyncdiff_cli.engine.errors import AsyncDiffError
from asyncdiff_cli.engine.rewards import load_reward


class StandIn:
    """A server in the hub's place, which counts who comes and says the same to all."""

    def __init__(self, answer: bytes | None) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        self.calls, self.answer = 0, answer
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:  # it was closed
                return
            self.calls += 1
            if self.answer is not None:
                connection.recv(4096)
                connection.sendall(self.answer)
            connection.close()


@pytest.fixture
def stand_in(monkeypatch, tmp_path):
    """Make one the hub, and its cache an empty one."""
    servers = []

    def make(answer=None):
        servers.append(server := StandIn(answer))
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        return server

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    hub._answers.cache_clear()
    yield make
    hub._answers.cache_clear()
    for server in servers:
        server.listener.close()


def test_a_hub_that_hangs_up_is_asked_once(stand_in):
    server = stand_in()
    for ask in (
        lambda: load_backbone("flux", device="cpu"),
        lambda: load_backbone("someone/pipeline", device="cpu"),
        lambda: load_reward("clip", device="cpu"),
        LoRA("someone/style").local,
    ):
        with pytest.raises(AsyncDiffError, match="is not downloaded and cannot be reached"):
            ask()
    assert server.calls == 1
    assert constants.HF_HUB_OFFLINE is False  # of no concern to what else runs here


def test_a_port_that_nothing_listens_on(stand_in):
    stand_in().listener.close()
    assert not hub.is_reachable()


def test_a_hub_that_says_nothing_is_not_waited_for(stand_in, monkeypatch):
    monkeypatch.setattr(hub, "PATIENCE", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        assert not hub.is_reachable()


def test_any_answer_is_one(stand_in):
    server = stand_in(b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n")
    assert hub.is_reachable()
    with hub.local_if_unreachable():
        assert constants.HF_HUB_OFFLINE is False
    assert server.calls == 1


def test_offline_is_what_it_was_told(stand_in, monkeypatch):
    server = stand_in()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(AsyncDiffError, match="cannot be reached"):
        load_backbone("flux", device="cpu")
    assert server.calls == 0


def test_a_directory_asks_no_hub(stand_in, tmp_path):
    server = stand_in()
    with hub.hub_errors(str(tmp_path), "", "", ""):
        pass
    assert server.calls == 0
