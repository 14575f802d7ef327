"""A stand-in for the hub: the part of its HTTP interface that pushing and downloading use."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import yaml

FIRST = ".gitattributes"
"""The file that the hub puts in every new repository."""
ROUTES = (
    ("HEAD", r"/", "alive"),
    ("POST", r"/api/repos/create", "create"),
    ("POST", r"/api/validate-yaml", "validate"),
    ("GET", r"/api/models/(?P<repo>[^/]+/[^/]+)(?:/revision/(?P<revision>[^/]+))?", "info"),
    ("POST", r"/api/models/(?P<repo>[^/]+/[^/]+)/branch/(?P<revision>[^/]+)", "branch"),
    ("POST", r"/api/models/(?P<repo>[^/]+/[^/]+)/preupload/(?P<revision>[^/]+)", "preupload"),
    ("POST", r"/api/models/(?P<repo>[^/]+/[^/]+)/commit/(?P<revision>[^/]+)", "commit"),
    ("POST", r"/(?P<repo>[^/]+/[^/]+)\.git/info/lfs/objects/batch", "batch"),
    ("PUT", r"/lfs/(?P<oid>\w+)", "store"),
    ("HEAD", r"/(?P<repo>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<path>.+)", "resolve"),
    ("GET", r"/(?P<repo>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<path>.+)", "resolve"),
)


class RefusedError(Exception):
    """An answer that is an error: its status, the hub's name of it, and what it says."""

    def __init__(self, status: int, code: str = "", message: str = "no") -> None:
        self.status, self.code, self.message = status, code, message


@dataclass
class Commit:
    files: dict[str, bytes]
    summary: str = "initial commit"


@dataclass
class StoredRepository:
    private: bool = False
    commits: dict[str, Commit] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)

    def add(self, branch: str, files: dict[str, bytes], summary: str = "") -> str:
        text = json.dumps([len(self.commits), branch, sorted(files), summary])
        oid = hashlib.sha1(text.encode()).hexdigest()
        self.commits[oid] = Commit(files, summary)
        self.branches[branch] = oid
        return oid

    def find(self, revision: str | None) -> str:
        oid = self.branches.get(revision or "main", revision)
        if oid not in self.commits:
            raise RefusedError(404, "RevisionNotFound")
        return oid


@dataclass
class Hub:
    """What the stand-in holds, and what it was asked."""

    url: str = ""
    users: dict[str, str] = field(default_factory=lambda: {"hf_alice": "alice"})
    """Who a token is of."""
    repositories: dict[str, StoredRepository] = field(default_factory=dict)
    large: dict[str, bytes] = field(default_factory=dict)
    """Large files by their SHA-256."""
    asked: list[str] = field(default_factory=list)
    """The names of the routes, one a request."""
    down: bool = False
    """Whether every request but the first look is hung up on."""

    def put(self, name: str, files: dict[str, bytes], branch: str = "main") -> str:
        """Commit files as someone else would; the commit."""
        return self.repositories.setdefault(name, StoredRepository()).add(branch, files)

    def files(self, name: str, revision: str | None = None) -> dict[str, bytes]:
        """The files of a repository, but the hub's own."""
        repository = self.repositories[name]
        found = repository.commits[repository.find(revision)].files
        return {path: content for path, content in found.items() if path != FIRST}


class Answering(BaseHTTPRequestHandler):
    hub: Hub

    def _answer(self) -> None:
        address = urlsplit(self.path)
        self.query = parse_qs(address.query)
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        routes = [(re.fullmatch(p, address.path), n) for m, p, n in ROUTES if m == self.command]
        found, name = next((route for route in routes if route[0]), (None, ""))
        if found is None:
            return self._send(404, b"{}")
        self.hub.asked.append(name)
        if self.hub.down and name != "alive":
            self.close_connection = True
            return self.connection.shutdown(socket.SHUT_RDWR)
        try:
            values = {k: v and unquote(v) for k, v in found.groupdict().items()}
            return getattr(self, name)(**values)
        except RefusedError as error:
            headers = {"X-Error-Code": error.code, "X-Error-Message": error.message}
            return self._send(error.status, json.dumps({"error": error.message}).encode(), headers)

    do_GET = do_HEAD = do_POST = do_PUT = _answer  # noqa: N815

    def _send(self, status: int, content: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {**(headers or {}), "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _json(self, **values: Any) -> None:
        headers = {"Content-Type": "application/json"}
        self._send(200, json.dumps(values).encode(), headers)

    def log_message(self, *_: Any) -> None:
        pass

    @property
    def user(self) -> str | None:
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        if token and token not in self.hub.users:
            raise RefusedError(401, message="Invalid credentials in Authorization header")
        return self.hub.users.get(token)

    def _read(self, name: str) -> StoredRepository:
        found = self.hub.repositories.get(name)
        if found is None or (found.private and self.user != name.partition("/")[0]):
            raise RefusedError(404 if self.user else 401, "RepoNotFound")
        return found

    def _may_write(self, owner: str) -> None:
        if self.user != owner:
            raise RefusedError(403, message=f"You don't have the rights to write under {owner}")

    def alive(self) -> None:
        self._send(200, b"")

    def create(self) -> None:
        asked = json.loads(self.body)
        owner = asked.get("organization") or self.user
        self._may_write(owner)
        name = f"{owner}/{asked['name']}"
        if name in self.hub.repositories:
            raise RefusedError(409, message="You already created this model repo")
        private = asked.get("private", False) or asked.get("visibility") == "private"
        self.hub.repositories[name] = StoredRepository(private)
        self.hub.put(name, {FIRST: b"*.safetensors filter=lfs\n"})
        self._json(url=f"{self.hub.url}/{name}")

    def validate(self) -> None:
        head = json.loads(self.body)["content"].split("---\n")[1]
        licence = yaml.safe_load(head).get("license", "mit")
        if licence not in ("mit", "apache-2.0", "other"):
            message = '"license" must be one of [mit, apache-2.0, other]'
            plain = self.headers.get("Accept") == "text/plain"
            errors = {"errors": [{"message": message}]}
            return self._send(400, message.encode() if plain else json.dumps(errors).encode())
        return self._json(warnings=[])

    def info(self, repo: str, revision: str | None) -> None:
        stored = self._read(repo)
        oid = stored.find(revision)
        files = stored.commits[oid].files
        card = files.get("README.md", b"").decode().split("---\n")
        data = yaml.safe_load(card[1]) if len(card) > 2 else None
        self._json(
            id=repo,
            sha=oid,
            private=stored.private,
            cardData=data,
            siblings=[self._sibling(path, content) for path, content in files.items()],
        )

    def _sibling(self, path: str, content: bytes) -> dict[str, Any]:
        size, digest = len(content), hashlib.sha256(content).hexdigest()
        lfs = {"size": size, "sha256": digest, "pointerSize": 130}
        return {
            "rfilename": path,
            "size": size,
            "blobId": git_oid(content),
            **({"lfs": lfs} if is_large(path) else {}),
        }

    def branch(self, repo: str, revision: str) -> None:
        self._may_write(repo.partition("/")[0])
        stored = self._read(repo)
        stored.branches.setdefault(revision, stored.find("main"))
        self._json()

    def preupload(self, repo: str, revision: str) -> None:
        files = self._read(repo).commits[self._read(repo).find(revision)].files
        self._json(
            files=[
                {
                    "path": asked["path"],
                    "uploadMode": "lfs" if is_large(asked["path"]) else "regular",
                    "shouldIgnore": False,
                    "oid": oid_of(asked["path"], files),
                }
                for asked in json.loads(self.body)["files"]
            ]
        )

    def batch(self, repo: str) -> None:
        self._may_write(repo.partition("/")[0])
        upload = {
            asked["oid"]: {"upload": {"href": f"{self.hub.url}/lfs/{asked['oid']}"}}
            for asked in json.loads(self.body)["objects"]
        }
        sizes = {asked["oid"]: asked["size"] for asked in json.loads(self.body)["objects"]}
        self._json(
            transfer="basic",
            objects=[{"oid": o, "size": sizes[o], "actions": a} for o, a in upload.items()],
        )

    def store(self, oid: str) -> None:
        assert hashlib.sha256(self.body).hexdigest() == oid
        self.hub.large[oid] = self.body
        self._send(200, b"")

    def commit(self, repo: str, revision: str) -> None:
        stored, proposed = self._read(repo), "create_pr" in self.query
        if not proposed:
            self._may_write(repo.partition("/")[0])
        parent = stored.find(revision)
        header, *operations = map(json.loads, self.body.splitlines())
        if header["value"].get("parentCommit") not in (None, parent):
            raise RefusedError(412, message="A commit has happened since")
        files = dict(stored.commits[parent].files)
        for operation in operations:
            value = operation["value"]
            files[value["path"]] = (
                self.hub.large[value["oid"]]
                if operation["key"] == "lfsFile"
                else base64.b64decode(value["content"])
            )
        pulls = sum(name.startswith("refs/pr/") for name in stored.branches)
        branch = f"refs/pr/{pulls + 1}" if proposed else revision
        oid = stored.add(branch, files, header["value"]["summary"])
        self._json(
            commitUrl=f"{self.hub.url}/{repo}/commit/{oid}",
            commitOid=oid,
            pullRequestUrl=f"{self.hub.url}/{repo}/discussions/{pulls + 1}" if proposed else None,
        )

    def resolve(self, repo: str, revision: str, path: str) -> None:
        stored = self._read(repo)
        oid = stored.find(revision)
        content = stored.commits[oid].files.get(path)
        if content is None:
            raise RefusedError(404, "EntryNotFound")
        etag = f'"{hashlib.sha256(content).hexdigest()}"'
        self._send(200, content, {"X-Repo-Commit": oid, "ETag": etag})


def is_large(path: str) -> bool:
    return path.endswith((".safetensors", ".png"))


def oid_of(path: str, files: dict[str, bytes]) -> str | None:
    """What tells whether a file is there already; None for one that is not."""
    if path not in files:
        return None
    return hashlib.sha256(files[path]).hexdigest() if is_large(path) else git_oid(files[path])


def git_oid(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@contextmanager
def running_hub() -> Iterator[Hub]:
    """A stand-in on a free port of this machine."""
    hub = Hub()
    handler = type("Handler", (Answering,), {"hub": hub, "protocol_version": "HTTP/1.1"})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
