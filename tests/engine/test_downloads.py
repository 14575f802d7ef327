import hashlib
import re
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from asyncdiff_cli.engine.downloads import CHUNK_BYTES, download
from asyncdiff_cli.engine.errors import AsyncDiffError

CONTENT = bytes(range(256)) * (3 * CHUNK_BYTES // 256) + b"the end"
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Handler(BaseHTTPRequestHandler):
    """Serves CONTENT as its server says: with or without ranges, all of it or less."""

    def do_GET(self):
        settings, asked = self.server.settings, self.headers["Range"]
        settings["asked"].append(asked)
        start = int(asked.removeprefix("bytes=")[:-1]) if asked and settings["ranges"] else 0
        if self.path == "/missing":
            return self.send_error(404)
        if start >= len(CONTENT):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(CONTENT)}")
            return self.end_headers()
        self.send_response(206 if start else 200)
        if settings["length"]:
            self.send_header("Content-Length", str(len(CONTENT) - start))
        self.end_headers()
        return self.wfile.write(CONTENT[start : settings["stop"]])

    def log_message(self, *_):
        pass


@pytest.fixture
def settings():
    return {"ranges": True, "length": True, "stop": None, "asked": []}


@pytest.fixture
def url(settings, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.settings = settings
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/data.zip"
        server.shutdown()


def names(directory):
    return sorted(path.name for path in directory.rglob("*") if path.is_file())


@pytest.mark.parametrize("length", [True, False])
def test_a_file_arrives_whole_and_alone(url, settings, tmp_path, length):
    settings["length"] = length
    calls = []
    target = tmp_path / "new" / "data.zip"
    assert download(url, target, SHA256, lambda *c: calls.append(c)) == target
    assert target.read_bytes() == CONTENT
    assert names(tmp_path) == ["data.zip"]
    assert calls[-1] == (len(CONTENT), len(CONTENT) if length else None)
    assert [done for done, _ in calls] == sorted({done for done, _ in calls})


def test_what_is_there_is_not_fetched_again(url, settings, tmp_path):
    target = tmp_path / "data.zip"
    target.write_bytes(CONTENT)
    assert download(url, target) == download(url, target, SHA256) == target
    target.write_bytes(b"edited")
    assert download(url, target) == target
    with pytest.raises(AsyncDiffError, match=f"{SHA256}: delete it to download it again"):
        download(url, target, SHA256)
    assert target.read_bytes() == b"edited"
    assert settings["asked"] == []


def test_a_download_that_broke_off_goes_on(url, settings, tmp_path):
    target, stop = tmp_path / "data.zip", 2 * CHUNK_BYTES + 5
    settings["stop"] = stop
    with pytest.raises(AsyncDiffError, match=f"after {stop:,} of {len(CONTENT):,} bytes") as error:
        download(url, target, SHA256)
    assert url in str(error.value)
    assert "--prompts PATH" in str(error.value)
    assert names(tmp_path) == ["data.zip.part"]
    settings["stop"] = None
    calls = []
    download(url, target, SHA256, lambda *c: calls.append(c))
    assert target.read_bytes() == CONTENT
    assert settings["asked"] == [None, f"bytes={stop}-"]
    assert calls[-1] == (len(CONTENT), len(CONTENT))
    assert calls[0][0] > stop


def test_it_starts_over_if_the_server_ignores_the_range(url, settings, tmp_path):
    settings["ranges"] = False
    (tmp_path / "data.zip.part").write_bytes(b"half of it")
    assert download(url, tmp_path / "data.zip", SHA256).read_bytes() == CONTENT
    assert settings["asked"] == ["bytes=10-"]


def test_a_part_that_is_complete_only_gets_its_name(url, settings, tmp_path):
    (tmp_path / "data.zip.part").write_bytes(CONTENT)
    assert download(url, tmp_path / "data.zip", SHA256).read_bytes() == CONTENT
    assert len(settings["asked"]) == 1
    assert names(tmp_path) == ["data.zip"]


def test_a_part_that_is_longer_than_the_file_is_dropped(url, settings, tmp_path):
    (tmp_path / "data.zip.part").write_bytes(CONTENT + b"more")
    assert download(url, tmp_path / "data.zip", SHA256).read_bytes() == CONTENT
    assert settings["asked"] == [f"bytes={len(CONTENT) + 4}-", None]


@pytest.mark.parametrize("part", [None, b"of another file"])
def test_a_wrong_file_is_refused_and_dropped(url, tmp_path, part):
    wrong = "0" * 64 if part is None else SHA256
    if part:
        (tmp_path / "data.zip.part").write_bytes(part)
    with pytest.raises(AsyncDiffError, match=rf"has SHA-256 [0-9a-f]{{64}}, expected {wrong}") as e:
        download(url, tmp_path / "data.zip", wrong)
    assert str(e.value).startswith("data.zip from http://127.0.0.1")
    assert "--prompts PATH" in str(e.value)
    assert names(tmp_path) == []


def test_what_the_server_refuses_is_one_line(url, tmp_path):
    address = url.replace("data.zip", "missing")
    with pytest.raises(AsyncDiffError, match=re.escape(f"{address} to ")) as error:
        download(address, tmp_path / "data.zip")
    assert "HTTP 404 Not Found" in str(error.value)
    assert "\n" not in str(error.value)
    assert names(tmp_path) == []


def test_a_server_that_cannot_be_reached(tmp_path, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # bound but not listening, so it is nobody else's either
        address = f"http://127.0.0.1:{closed.getsockname()[1]}/data.zip"
        with pytest.raises(AsyncDiffError, match="Connection refused; pass --prompts PATH"):
            download(address, tmp_path / "data.zip")
    assert names(tmp_path) == []


def test_a_place_that_cannot_be_written(url, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(AsyncDiffError, match="cannot download"):
        download(url, tmp_path / "file" / "data.zip")
