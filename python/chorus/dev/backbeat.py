"""A small BACKBEAT server for development and tests: a pulse over server-sent events, claims and operations
taken and kept, and an admin interface that beats on command and makes it slow, wrong, silent or lying.

`/api/v1` is what agents talk to; `/admin` is for whoever holds the token that it prints at its start.
"""

from __future__ import annotations

import json
import secrets
import socket
import threading
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from hmac import compare_digest
from http.server import BaseHTTPRequestHandler
from typing import Any, ClassVar, Final, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from chorus.dev.backbeat_frames import FAULTS, Fault, Pulse
from chorus.dev.local_server import LocalHandler, LocalHttp, LocalServer, cut
from chorus.telemetry.frames import StatusClaim, said_of

BODY_MAX_BYTES: Final = 256 * 1024
KEPT_MAX: Final = 10_000
# Garbage that is long enough to find a reader without a bound.
GARBAGE_BYTES: Final = 1024 * 1024


class FaultOrder(BaseModel):
    """`POST /admin/fault`: how it misbehaves from now on, and for `slow` by how many seconds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    fault: Fault
    seconds: float = Field(default=1.0, ge=0, le=3600)
    status: int = Field(default=500, ge=300, le=599)


@dataclass(frozen=True, slots=True)
class Taken:
    """A body that came: on which path, whether it fits, and what it holds."""

    path: str
    fits: bool
    why: str
    body: Any


class BackbeatServer(LocalServer):
    """Answers on 127.0.0.1 while the block runs. `tempo_bpm` 0: it beats on command only.

    Raises OSError when the port is taken.
    """

    def __init__(self, cluster_id: str, *, port: int = 0, tempo_bpm: float = 2.0) -> None:
        self.token = secrets.token_urlsafe(24)
        self.order = FaultOrder(fault="none")
        self.taken: deque[Taken] = deque(maxlen=KEPT_MAX)
        self.counts: dict[str, int] = {"beats": 0, "streams": 0, "claims": 0, "operations": 0, "refused": 0}
        self._pulse = Pulse(cluster_id, tempo_bpm or 60.0)
        self._interval_s = 60.0 / tempo_bpm if tempo_bpm else None
        self._changed = threading.Condition()
        # The number and bytes of what was said last on the streams.
        self._said: tuple[int, bytes] = (0, b"")
        self._http = _Http(port, _Handler)
        self._http.backbeat = self
        super().__init__(self._http)

    def __enter__(self) -> Self:
        super().__enter__()
        if self._interval_s is not None:
            threading.Thread(target=self._beats, daemon=True).start()
        return self

    def stop(self) -> None:
        """Ends it, with the streams of beats."""
        self.stopping.set()
        with self._changed:
            self._changed.notify_all()
        super().stop()

    def _beats(self) -> None:
        while not self.stopping.wait(self._interval_s):
            self.beat()

    def beat(self) -> None:
        """The next beat, as the present fault has it."""
        said = self._pulse.beat(self.order.fault, time.time())
        with self._changed:
            self.counts["beats"] += 1
            self._said = (self._said[0] + 1, said)
            self._changed.notify_all()

    def misbehave(self, order: FaultOrder) -> None:
        """The fault from now on. `restarted` and `wrong` cut all streams; the former begins anew at 0."""
        with self._changed:
            self.order = order
        if order.fault == "restarted":
            self._pulse.restart()
        if order.fault in ("restarted", "wrong"):
            cut(self._http.streams)

    def next_said(self, after: int) -> tuple[int, bytes]:
        """What is said on the streams after a number; waits for it. The number is unchanged at a stop."""
        with self._changed:
            while self._said[0] <= after and not self.stopping.is_set():
                self._changed.wait(timeout=1.0)
            return self._said if not self.stopping.is_set() else (after, b"")

    @property
    def said(self) -> int:
        """The number of what was said last."""
        return self._said[0]

    def take(self, path: str, body: bytes) -> str:
        """Keeps what an agent sent; why it does not fit, or nothing."""
        why, content = "", None
        try:
            content = json.loads(body)
            if path == "/api/v1/status":
                StatusClaim.model_validate_json(body)
            elif not isinstance(content, dict):
                why = "an operation is an object"
        except ValidationError as error:
            why = said_of(error)
        except ValueError as error:
            why = f"no JSON: {error}"
        with self._changed:
            self.taken.append(Taken(path, not why, why, content))
            self.counts["claims" if path.endswith("status") else "operations"] += 1
            self.counts["refused"] += bool(why)
        return why

    def report(self) -> dict[str, Any]:
        """`GET /admin/seen`: counts and what came, the oldest first."""
        with self._changed:
            seen = [
                {"path": one.path, "fits": one.fits, "why": one.why, "body": one.body} for one in self.taken
            ]
            return {"fault": self.order.fault, "counts": dict(self.counts), "seen": seen}


class _Http(LocalHttp):
    backbeat: BackbeatServer

    def __init__(self, port: int, handler: type[LocalHandler]) -> None:
        # Those with a stream of beats.
        self.streams: set[socket.socket] = set()
        super().__init__(port, handler)


class _Handler(LocalHandler, BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm: ClassVar[bool] = True
    server: _Http

    def finish(self) -> None:
        self.server.streams.discard(self.connection)
        super().finish()

    def do_GET(self) -> None:
        if self.path == "/admin/seen":
            if self._allowed():
                self._json(200, self.server.backbeat.report())
        elif self.path == "/api/v1/beats":
            if self._well():
                self._stream()
        else:
            self._json(404, {"error": "not found"})

    def do_POST(self) -> None:
        body = self._body()
        if body is None:
            return
        backbeat = self.server.backbeat
        if self.path == "/admin/fault":
            self._admin(lambda: backbeat.misbehave(FaultOrder.model_validate_json(body)))
        elif self.path == "/admin/beat":
            self._admin(backbeat.beat)
        elif self.path in ("/api/v1/status", "/api/v1/operations"):
            if self._well():
                why = backbeat.take(self.path, body)
                self._json(422 if why else 202, {"error": why} if why else {"accepted": True})
        else:
            self._json(404, {"error": "not found"})

    def _body(self) -> bytes | None:
        length = self.headers.get("content-length") or "0"
        if not length.isdecimal() or int(length) > BODY_MAX_BYTES:
            self.close_connection = True
            self._json(413, {"error": f"a body holds at most {BODY_MAX_BYTES} bytes"})
            return None
        return self.rfile.read(int(length))

    def _admin(self, act: Any) -> None:
        if not self._allowed():
            return
        try:
            act()
        except ValidationError as error:
            self._json(422, {"error": f"{said_of(error)}; faults are {', '.join(FAULTS)}"})
        else:
            self._json(200, {"fault": self.server.backbeat.order.fault})

    def _allowed(self) -> bool:
        said = (self.headers.get("authorization") or "").encode()
        if compare_digest(said, f"Bearer {self.server.backbeat.token}".encode()):
            return True
        self._json(401, {"error": "give the token that the server printed: Authorization: Bearer TOKEN"})
        return False

    def _well(self) -> bool:
        """Whether this request is answered as it should be; else it is answered as the fault has it."""
        backbeat = self.server.backbeat
        order = backbeat.order
        match order.fault:
            case "silent":
                backbeat.stopping.wait()
                self.close_connection = True
            case "wrong":
                # A redirect has to go somewhere, to be seen not to be followed.
                self._json(order.status, {"error": "as ordered"}, location=backbeat.url + "/api/v1/beats")
            case "garbage" if self.command == "POST":
                self.wfile.write(secrets.token_bytes(GARBAGE_BYTES))
                self.close_connection = True
            case "slow":
                return not backbeat.stopping.wait(order.seconds)
            case _:
                return True
        return False

    def _stream(self) -> None:
        backbeat = self.server.backbeat
        backbeat.counts["streams"] += 1
        self.server.streams.add(self.connection)
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("cache-control", "no-store")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        self.close_connection = True
        number = backbeat.said
        with suppress(OSError):
            self._chunk(b": the pulse\n\n")
            while not backbeat.stopping.is_set():
                before = number
                number, said = backbeat.next_said(before)
                if number == before:
                    return
                if backbeat.order.fault == "slow":
                    backbeat.stopping.wait(backbeat.order.seconds)
                if said:
                    self._chunk(said)

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))

    def _json(self, status: int, content: dict[str, Any], *, location: str = "") -> None:
        data = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        if 300 <= status < 400:
            self.send_header("location", location)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
