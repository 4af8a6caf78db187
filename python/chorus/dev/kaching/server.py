"""The reference server's HTTP: what agents ask, and an operator's interface with a token of its own."""

from __future__ import annotations

import hmac
import json
import secrets
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote

import orjson
from pydantic import ValidationError

from chorus.config.files import write_private
from chorus.dev.kaching import answers
from chorus.dev.kaching.faults import Fault
from chorus.dev.kaching.ledger import Ledger, License, Malformed
from chorus.dev.local_server import LocalHandler, LocalHttp, LocalServer
from chorus.license.refusals import Denied

# Where a running server says how its operator reaches it.
ADMIN: Final = "admin.json"
_BODY_MAX_BYTES: Final = 64 * 1024
_TOKEN_BYTES: Final = 24
_STATES: Final = {"suspend": "suspended", "resume": "active", "revoke": "revoked"}


class KachingServer(LocalServer):
    """Answers on 127.0.0.1 while the block runs; its state lies in `folder`. Raises OSError for a port that
    is taken.
    """

    def __init__(self, folder: Path, *, port: int = 0, clock: Callable[[], float] = time.time) -> None:
        self.ledger, self.clock = Ledger(folder), clock
        self.admin_token = secrets.token_urlsafe(_TOKEN_BYTES)
        self._fault = Fault()
        self._lock = threading.Lock()
        self.last_answer = b""
        http = _Http(port, _Handler)
        http.kaching = self
        super().__init__(http)
        write_private(folder / ADMIN, json.dumps({"url": self.url, "token": self.admin_token}))

    @property
    def public_keys(self) -> str:
        """What agents pin."""
        return ",".join(key.pinned for key in self.ledger.signing_keys())

    @property
    def fault(self) -> Fault:
        """How it misbehaves now."""
        return self._fault

    def misbehave(self, fault: Fault) -> None:
        """From the next question on."""
        with self._lock:
            self._fault = fault

    def take_fault(self) -> Fault:
        """The fault of one question; one that lasts for some is used up by them."""
        with self._lock:
            now = self._fault
            if now.times is not None:
                left = now.times - 1
                self._fault = now.model_copy(update={"times": left}) if left else Fault()
            return now


class _Http(LocalHttp):
    kaching: KachingServer


class _Handler(LocalHandler, BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Http

    def do_GET(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self._serve()

    def do_PUT(self) -> None:
        self._serve()

    def do_DELETE(self) -> None:
        self._serve()

    def _serve(self) -> None:
        path = [unquote(part) for part in self.path.split("?")[0].strip("/").split("/")]
        try:
            body = self._body()
            if path[:1] == ["admin"]:
                self._admin(path[1:], body)
            else:
                self._agent(path, body)
        except Denied as why:
            self._send(*answers.refused(why))
        except Malformed as error:
            self._problem(400, str(error))
        except ValidationError as error:
            named = (".".join(map(str, item["loc"])) + ": " + item["msg"] for item in error.errors())
            self._problem(400, "; ".join(named))

    def _body(self) -> dict[str, Any]:
        length = self.headers.get("Content-Length", "0")
        if not length.isdecimal() or int(length) > _BODY_MAX_BYTES:
            self.close_connection = True
            raise Malformed(f"Content-Length: expected at most {_BODY_MAX_BYTES}")
        text = self.rfile.read(int(length))
        try:
            said = orjson.loads(text or b"{}")
        except orjson.JSONDecodeError:
            said = None
        if not isinstance(said, dict):
            raise Malformed("body: expected a JSON object")
        return said

    # Agents

    def _agent(self, path: list[str], body: dict[str, Any]) -> None:
        kaching = self.server.kaching
        fault = kaching.take_fault()
        if self._faulted(fault):
            return
        now = kaching.clock()
        match self.command, path:
            case "POST", ["api", "v1", "licenses", "validate"]:
                claims, license = kaching.ledger.validate(body, now)
            case "POST", ["api", "v1", "leases", lease_id, "renew"]:
                claims, license = kaching.ledger.renew(lease_id, body, now)
            case "DELETE", ["api", "v1", "leases", lease_id]:
                kaching.ledger.give_back(lease_id, body, now)
                return self._send(204, b"")
            case _:
                return self._problem(404, f"there is no {self.command} {self.path}")
        answer = answers.granted(claims, license, kaching.ledger.signing_keys()[0], fault)
        if fault.lies and fault.replay and kaching.last_answer:
            answer = kaching.last_answer
        kaching.last_answer = answer
        self._send(200, answer)

    def _faulted(self, fault: Fault) -> bool:
        """Whether the fault is all the answer there is."""
        match fault.fault:
            case "slow":
                self.server.kaching.stopping.wait(fault.delay_s)
                return False
            case "silent":
                # Until the client gives up, or the server ends.
                self.connection.setblocking(True)
                with suppress(OSError):
                    self.connection.recv(1)
            case "closed":
                pass
            case "error":
                self._problem(fault.status, "as it was told")
                return True
            case "redirect":
                self._send(302, b"", Location="http://127.0.0.1:9/")
                return True
            case "garbage":
                self._garbage(fault)
            case _:
                return False
        self.close_connection = True
        return True

    def _garbage(self, fault: Fault) -> None:
        if fault.garbage not in ("endless", "cut"):
            self._send(200, answers.garbage(fault.garbage))
            return
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(1 << 40))
        self.end_headers()
        with suppress(OSError):
            self.wfile.write(b'{"token": "')
            while fault.garbage == "endless":
                self.wfile.write(b"x" * 65536)

    # The operator

    def _admin(self, path: list[str], body: dict[str, Any]) -> None:
        kaching, ledger = self.server.kaching, self.server.kaching.ledger
        shown = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if not hmac.compare_digest(shown.encode(), kaching.admin_token.encode()):
            self._problem(401, f"show the token that stands in {ADMIN} in the server's folder")
            return
        match self.command, path:
            case "GET", ["licenses"]:
                self._items([_shown(license) for license in ledger.licenses()])
            case "POST", ["licenses"]:
                self._json(201, _shown(ledger.create(License.model_validate(body))))
            case "POST", ["licenses", license_id, verb] if verb in _STATES:
                self._json(200, _shown(ledger.set_state(license_id, _STATES[verb])))
            case "GET", ["leases"]:
                self._items([lease.model_dump() for lease in ledger.leases(kaching.clock())])
            case "GET", ["key"]:
                self._json(200, {"public_key": kaching.public_keys})
            case "POST", ["key", "rotate"]:
                ledger.rotate()
                self._json(200, {"public_key": kaching.public_keys})
            case "GET", ["fault"]:
                self._json(200, kaching.fault.model_dump())
            case "PUT", ["fault"]:
                kaching.misbehave(Fault.model_validate(body))
                self._json(200, kaching.fault.model_dump())
            case _:
                self._problem(404, f"there is no {self.command} {self.path}")

    def _items(self, items: list[dict[str, Any]]) -> None:
        self._json(200, {"items": items, "next": None})

    def _json(self, status: int, said: dict[str, Any]) -> None:
        self._send(status, orjson.dumps(said))

    def _problem(self, status: int, detail: str) -> None:
        self._send(status, answers.problem(status, detail))

    def _send(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        kind = "application/problem+json" if status >= 400 else "application/json"
        for name, value in {"Content-Type": kind, **headers}.items():
            self.send_header(name, value)
        if status != 204:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        with suppress(OSError):
            self.wfile.write(body)


def _shown(license: License) -> dict[str, Any]:
    return license.model_dump(exclude={"cluster_secret"})
