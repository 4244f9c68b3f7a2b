"""`make audit`: pip-audit itself, asking a server with OSV's query API on this machine."""

import importlib.util
import json
import re
import socket
import threading
from collections.abc import Iterator
from datetime import date, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest

from tests.conftest import ROOT
from tests.test_setup import pins
from tools import audit

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("pip_audit") is None,
    reason="MAKE AUDIT IS NOT TESTED: pip-audit is missing in this environment: make setup",
)

ADVISORY = {
    "id": "GHSA-aaaa-bbbb-cccc",
    "aliases": ["CVE-2026-12345"],
    "summary": "Templates escape their sandbox",
    "details": "Templates escape their sandbox",
    "published": "2026-01-01T00:00:00Z",
    "affected": [
        {
            "package": {"name": "jinja2", "ecosystem": "PyPI"},
            "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "99.1"}]}],
        }
    ],
}


class Osv(BaseHTTPRequestHandler):
    """Knows one advisory, for jinja2."""

    asked: ClassVar[set[str]] = set()

    def do_POST(self) -> None:
        query = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        name = query["package"]["name"]
        self.asked.add(name)
        answer = json.dumps({"vulns": [ADVISORY]} if name == "jinja2" else {}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: Any) -> None:
        """Prints nothing."""


@pytest.fixture(scope="module")
def osv() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Osv) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/v1/query"
        server.shutdown()


@pytest.fixture
def pinned(tmp_path: Path) -> Path:
    """A short requirement file."""
    path = tmp_path / "requirements-short.txt"
    path.write_text(f"jinja2==3.1.6 --hash=sha256:{'0' * 64}\n")
    return path


def test_an_advisory_fails_the_audit_in_one_line(
    osv: str, pinned: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert audit.main(["--service", osv, str(pinned)]) == 1
    assert capsys.readouterr().out == (
        "jinja2 3.1.6: CVE-2026-12345, GHSA-aaaa-bbbb-cccc: fixed in 99.1\n"
    )


@pytest.mark.parametrize("name", ["GHSA-aaaa-bbbb-cccc", "CVE-2026-12345"])
def test_an_exception_with_a_reason_counts_until_its_day(
    osv: str, pinned: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def code(until: date, package: str = "jinja2") -> int:
        path = pinned.parent / "exceptions.yaml"
        path.write_text(
            f"- {{id: {name}, package: {package}, until: {until}, reason: templates are ours}}\n"
        )
        return audit.main(["--service", osv, "--exceptions", str(path), str(pinned)])

    assert code(date.today() + timedelta(days=1)) == 0
    assert code(date.today()) == 1
    assert "its exception ended on" in capsys.readouterr().out
    assert code(date.today() + timedelta(days=1), package="numpy") == 1
    assert "no pin needs the exception for numpy" in capsys.readouterr().out


def test_an_exception_without_a_reason_or_a_date_is_refused(
    osv: str, pinned: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = pinned.parent / "exceptions.yaml"
    for rest in ("until: 2099-01-01", "until: 2099-01-01, reason: ''", "until: later, reason: r"):
        path.write_text(f"- {{id: GHSA-aaaa-bbbb-cccc, package: jinja2, {rest}}}\n")
        words = ["--service", osv, "--exceptions", str(path), str(pinned)]
        assert audit.main(words) == 2
        assert capsys.readouterr().err.count("\n") == 1


def test_where_advisories_cannot_be_read_it_says_so_and_is_not_green(
    pinned: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    assert audit.main(["--service", f"http://127.0.0.1:{port}/v1/query", str(pinned)]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1
    assert re.match(r"warmstart: requirements-short\.txt is not audited: .+Connection", err)


def test_every_pin_of_the_project_is_asked_for_and_its_exceptions_are_well_formed(
    osv: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Osv.asked.clear()
    audit.main(["--service", osv])
    files = {path.name for path in ROOT.glob("requirements-*.txt")} - {"requirements-override.txt"}
    assert {name for name in files if "aarch64" not in name} == {*audit.FILES}
    wanted = {name for file in audit.FILES for name in pins(file)}
    assert wanted - Osv.asked == set()
    assert "jinja2" in capsys.readouterr().out
    audit.read_exceptions(audit.EXCEPTIONS)
