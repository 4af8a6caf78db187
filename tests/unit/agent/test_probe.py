"""The image's health check asks the agent that the data directory names, wherever that listens."""

from __future__ import annotations

import http.server
import json
import socketserver
from collections.abc import Callable
from pathlib import Path

import pytest

from chorus.agent.probe import alive


class _Health(http.server.BaseHTTPRequestHandler):
    status = 200

    def do_GET(self) -> None:
        self.send_response(self.status if self.path == "/healthz" else 404)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        return


@pytest.fixture
def health(serve: Callable[[socketserver.BaseServer], None]) -> int:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Health)
    serve(server)
    return server.server_port


def told(path: Path, port: int, host: str = "0.0.0.0") -> Path:
    path.write_text(json.dumps({"api_host": host, "ports": {"health": port}}))
    return path


@pytest.mark.parametrize("host", ["0.0.0.0", "127.0.0.1", ""])
def test_it_lives(tmp_path: Path, health: int, host: str) -> None:
    assert alive(told(tmp_path / "agent.json", health, host)) == ""


def test_it_does_not(tmp_path: Path, health: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_Health, "status", 503)
    assert "503" in alive(told(tmp_path / "agent.json", health))


def test_nobody_answers(tmp_path: Path) -> None:
    assert "refused" in alive(told(tmp_path / "agent.json", 1))


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"ports": {}}', '{"api_host": "::", "ports": {"health": null}}']
)
def test_a_file_that_says_nothing(tmp_path: Path, content: str) -> None:
    (tmp_path / "agent.json").write_text(content)
    assert "not started yet" in alive(tmp_path / "agent.json")
    assert "not started yet" in alive(tmp_path / "missing.json")
