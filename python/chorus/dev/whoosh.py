"""A reference server for assignments (WHOOSH): documents from files, read anew for each request.

`GET /assignments/NAME.json` answers with the file NAME.json of the folder, or with default.json, where
`{name}` stands for NAME and `{slot}` for what follows its last dot: one file serves the replicas of a
service, whose addresses Swarm fills in from `{{.Service.Name}}.{{.Task.Slot}}`. `POST /admin` {"be": MODE, …}
makes the server misbehave for development and tests; `GET /admin` says what it was asked.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections import deque
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, Final

from chorus.dev.local_server import LocalHandler, LocalHttp, LocalServer

# Beside `well`: an answer after `delay_s`; a 500; a document with wrong fields; no answer at all; no JSON; a
# document that is too large; redirects without an end, and one to another scheme.
MODES: Final = ("well", "slow", "failing", "wrong", "silent", "garbled", "huge", "looping", "elsewhere")
SEEN_MAX: Final = 1000
_NAME: Final = re.compile(r"/assignments/([A-Za-z0-9_.-]{1,200})\.json")
_WRONG: Final = {"role": "a/b", "max_tasks": "many", "colour": "red"}


class WhooshServer(LocalServer):
    """Answers on 127.0.0.1 while the block runs. Raises OSError when the port is taken."""

    def __init__(self, folder: Path, *, port: int = 0, token: str = "") -> None:
        self.folder, self.token = folder, token
        self.mode, self.delay_s = "well", 0.0
        self.seen: deque[dict[str, Any]] = deque(maxlen=SEEN_MAX)
        # Set when a request has come; whoever waits clears it.
        self.asked = threading.Event()
        http = _Http(port, _Handler)
        http.whoosh = self
        super().__init__(http)

    def be(self, mode: str, delay_s: float = 0.0) -> None:
        """How it behaves from now on. Raises ValueError for no mode."""
        if mode not in MODES:
            raise ValueError(f"be: one of {', '.join(MODES)}")
        self.mode, self.delay_s = mode, delay_s

    def document(self, name: str) -> bytes | None:
        """What the file for this name says now; None without one."""
        for path in (self.folder / f"{name}.json", self.folder / "default.json"):
            if path.is_file():
                slot = name.rpartition(".")[2]
                text = path.read_text(encoding="utf-8")
                return text.replace("{name}", name).replace("{slot}", slot).encode()
        return None


class _Http(LocalHttp):
    whoosh: WhooshServer


class _Handler(LocalHandler, BaseHTTPRequestHandler):
    server: _Http

    def do_GET(self) -> None:
        whoosh = self.server.whoosh
        if self.path == "/admin":
            return self._answer(200, {"be": whoosh.mode, "seen": list(whoosh.seen)})
        etag = self.headers.get("If-None-Match", "")
        whoosh.seen.append({"path": self.path, "etag": etag, "be": whoosh.mode})
        whoosh.asked.set()
        if whoosh.token and self.headers.get("Authorization") != f"Bearer {whoosh.token}":
            return self._answer(401, {"error": "a bearer token is needed"})
        named = _NAME.fullmatch(self.path)
        content = whoosh.document(named[1]) if named else None
        if content is None:
            return self._answer(404, {"error": "no such assignment"})
        if not self._misbehaved(whoosh):
            self._document(content, etag)
        return None

    def do_POST(self) -> None:
        if self.path != "/admin":
            return self._answer(404, {"error": "POST /admin"})
        try:
            said = json.loads(self.rfile.read(min(int(self.headers.get("Content-Length") or 0), 65536)))
            self.server.whoosh.be(str(said["be"]), float(said.get("delay_s") or 0))
        except (ValueError, KeyError, TypeError) as error:
            return self._answer(400, {"error": str(error)})
        return self._answer(200, {"be": self.server.whoosh.mode})

    def _misbehaved(self, whoosh: WhooshServer) -> bool:
        """Whether the answer was another one than the document."""
        match whoosh.mode:
            case "slow":
                whoosh.stopping.wait(whoosh.delay_s)
                return False
            case "silent":
                whoosh.stopping.wait()
            case "failing":
                self._answer(500, {"error": "as asked for"})
            case "wrong":
                self._answer(200, _WRONG)
            case "garbled":
                self._bytes(200, b'{"role": ')
            case "huge":
                self._bytes(200, b" " * (1024 * 1024))
            case "looping":
                self._bytes(302, b"", Location=self.path)
            case "elsewhere":
                self._bytes(302, b"", Location="file:///etc/hostname")
            case _:
                return False
        return True

    def _document(self, content: bytes, etag: str) -> None:
        tag = f'"{hashlib.sha256(content).hexdigest()[:16]}"'
        if etag == tag:
            return self._bytes(304, b"", ETag=tag)
        return self._bytes(200, content, ETag=tag)

    def _answer(self, status: int, said: Any) -> None:
        self._bytes(status, json.dumps(said).encode())

    def _bytes(self, status: int, content: bytes, **headers: str) -> None:
        try:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)
        except OSError:
            self.close_connection = True  # whoever asked has gone
