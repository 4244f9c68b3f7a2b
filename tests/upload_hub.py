"""A hub on the loopback: the few endpoints that an upload uses, for one user's token."""

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

SECRET = "hf_abcdefghijklmnopqrstuvwxyz0123456789"
REPO = "someone/warm-tiny"


class Hub(ThreadingHTTPServer):
    """Takes uploads to REPO; ``kind`` is the only kind of repository that it knows: models or
    datasets.
    """

    def __init__(self, kind: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.kind = kind
        self.created: list[dict[str, Any]] = []
        self.files: dict[str, bytes] = {}
        self.refusal: str | None = None
        """The fault that it finds in a card's metadata."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


@contextmanager
def serving(kind: str) -> Iterator[Hub]:
    with Hub(kind) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


class _Handler(BaseHTTPRequestHandler):
    server: Hub

    def log_message(self, *_: object) -> None:
        pass

    def _answer(self, value: Any, status: int = 200) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        self._answer({}, 404)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        url = f"{self.server.url}/{REPO}"
        if self.headers["Authorization"] != f"Bearer {SECRET}":
            self._answer({"error": "Invalid credentials"}, 401)
        elif self.path == "/api/repos/create":
            self.server.created.append(json.loads(body))
            self._answer({"url": url})
        elif self.path == "/api/validate-yaml":
            refusal = self.server.refusal
            errors = [{"message": refusal}] if refusal else []
            self._answer({"errors": errors, "warnings": []}, 400 if refusal else 200)
        elif self.path == f"/api/{self.server.kind}/{REPO}/preupload/main":
            names = [f["path"] for f in json.loads(body)["files"]]
            files = [{"path": n, "uploadMode": "regular", "shouldIgnore": False} for n in names]
            self._answer({"files": files})
        elif self.path == f"/api/{self.server.kind}/{REPO}/commit/main":
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    value = line["value"]
                    self.server.files[value["path"]] = base64.b64decode(value["content"])
            self._answer({"commitUrl": f"{url}/commit/1", "commitOid": "1", "success": True})
        else:
            self._answer({"error": self.path}, 404)
