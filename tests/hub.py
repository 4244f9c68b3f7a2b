"""A hub on the loopback: the few endpoints that downloads use, for repositories held in memory."""

import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

from tests.conftest import environment

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(ThreadingHTTPServer):
    """``repositories`` is kind/owner/name (kind models or datasets) -> file -> content."""

    def __init__(self, repositories: dict[str, dict[str, bytes]]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repositories = repositories
        self.requests: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


@contextmanager
def serving(repositories: dict[str, dict[str, bytes]]) -> Iterator[Hub]:
    with Hub(repositories) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def warm(folder: Path, url: str, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
    """Runs ``warmstart`` in ``folder`` with the hub at ``url`` and an empty cache of its own."""
    clean = {k: v for k, v in environment().items() if not k.startswith("HF_")}
    values = clean | {"HF_ENDPOINT": url, "HF_HOME": str(folder / "hf")} | more
    command = [sys.executable, "-m", "warmstart", *words]
    return subprocess.run(command, cwd=folder, env=values, capture_output=True, text=True)


def oid(name: str, content: bytes) -> str:
    """As the hub's cache names a file: weights and tables by SHA-256, what git holds by git's
    SHA-1.
    """
    if name.endswith((".safetensors", ".parquet")):
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    server: Hub

    def log_message(self, *_: object) -> None:
        pass

    def _answer(self, value: Any, status: int = 200) -> None:
        self._send(json.dumps(value).encode(), {"Content-Type": "application/json"}, status)

    def _send(self, body: bytes, headers: dict[str, str], status: int = 200) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _serve(self) -> None:
        self.server.requests.append(f"{self.command} {self.path}")
        path = self.path.partition("?")[0].removeprefix("/api").strip("/")
        sent = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = path if path.startswith(("models/", "datasets/")) else f"models/{path}"
        repository = "/".join(path.split("/")[:3])
        if repository not in self.server.repositories:
            return self._send(b"", {"X-Error-Code": "RepoNotFound"}, 404)
        files = self.server.repositories[repository]
        action, _, rest = path.removeprefix(repository).strip("/").partition("/")
        name = rest.partition("/")[2]
        if action == "resolve" and name in files:
            headers = {"ETag": f'"{oid(name, files[name])}"', "X-Repo-Commit": COMMIT}
            return self._send(files[name], headers)
        entries = [
            {"type": "file", "path": n, "size": len(c), "oid": oid(n, c)} for n, c in files.items()
        ]
        if action in ("", "revision"):
            siblings = [{"rfilename": n} for n in files]
            return self._answer(
                {"id": repository.partition("/")[2], "sha": COMMIT, "siblings": siblings}
            )
        if action == "tree":
            return self._answer([e for e in entries if e["path"].startswith(name)])
        if action == "paths-info":
            wanted = sent.decode()
            return self._answer(
                [
                    e
                    for e in entries
                    if e["path"].replace("/", "%2F") in wanted or e["path"] in wanted
                ]
            )
        self.send_response(404)
        self.send_header("X-Error-Code", "EntryNotFound")
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_GET = do_HEAD = do_POST = _serve
