"""Builds and drives the hostile peer of this folder: a libp2p program that holds the network key and
misbehaves on purpose.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest

ROOT: Final = Path(__file__).resolve().parents[2]
BUILD_TIMEOUT_S: Final = 1800


def derived_key(cluster_secret: bytes, purpose: str) -> bytes:
    """A key for `network` or `join`, as docs/protocol.md has it: HKDF-SHA256 without salt, one block long."""
    inner = hmac.new(bytes(32), cluster_secret, hashlib.sha256).digest()
    return hmac.new(inner, f"chorus/v1/{purpose}\x01".encode(), hashlib.sha256).digest()


def build() -> Path:
    """The program, built from this checkout; skips the test where there is no Rust."""
    if shutil.which("cargo") is None:
        pytest.skip("no cargo: the hostile peer cannot be built")
    command = ["cargo", "build", "--release", "--quiet", "--message-format=json", "-p", "chorus-hostile"]
    # As scripts/env.sh has it: outside the checkout, shared with the core's own build.
    cache = (
        os.environ.get("CHORUS_CACHE")
        or f"{os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache'}/chorus"
    )
    environ = {"CARGO_TARGET_DIR": f"{cache}/target", **os.environ}
    done = subprocess.run(
        command, cwd=ROOT, env=environ, stdout=subprocess.PIPE, check=True, timeout=BUILD_TIMEOUT_S
    )
    for line in done.stdout.splitlines():
        said = json.loads(line)
        if said.get("executable") and said["target"]["name"] == "chorus-hostile":
            return Path(said["executable"])
    raise AssertionError("cargo named no program")


class HostilePeer:
    """One running program with one or more identities; methods are the commands of `src/command.rs`."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self.peers: list[str] = self._answer()["peers"]

    def publish(self, topic: str, data: bytes, *, identity: int = 0, **more: Any) -> dict[str, Any]:
        """Signs and publishes any bytes; `count` times, for at most `seconds`."""
        return self._do("publish", identity, topic=topic, data=_text(data), **more)

    def say(self, topic: str, kind: str, data: bytes, *, identity: int = 0, **more: Any) -> dict[str, Any]:
        """Publishes an envelope that is right but for its `data`, which may be any bytes."""
        return self.publish(topic, self.envelope(kind, data, identity), identity=identity, **more)

    def envelope(self, kind: str, data: bytes, identity: int = 0, age_s: float = 0) -> bytes:
        """An envelope of one of this program's identities."""
        moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - age_s))
        head = json.dumps({"type": kind, "from": self.peers[identity], "timestamp": moment}).encode()
        return head[:-1] + b', "data": ' + data + b"}"

    def request(
        self,
        service: str,
        method: str,
        head: bytes = b"{}",
        *,
        payload: bytes = b"",
        identity: int = 0,
        **more: Any,
    ) -> dict[str, Any]:
        """One request: `kind` 2 with the answer's head, 3 with an error's text, or `closed`."""
        named = {"service": service, "method": method, "head": _text(head), "payload": _text(payload)}
        return self._do("request", identity, **named, **more)

    def sign(self, data: bytes, *, identity: int = 0) -> str:
        """The signature of an identity, in base64."""
        return str(self._do("sign", identity, data=_text(data))["signature"])

    def write(self, protocol: str, data: bytes, *, identity: int = 0, count: int = 1) -> dict[str, Any]:
        """Opens a stream and writes bytes: how many times they were taken, and what ended it."""
        return self._do("write", identity, protocol=protocol, data=_text(data), count=count)

    def connected(self) -> list[bool]:
        """Which identities still are."""
        found: list[bool] = self._do("connected", None)["connected"]
        return found

    def _do(self, what: str, identity: int | None, **words: Any) -> dict[str, Any]:
        assert self._process.stdin is not None
        named = {} if identity is None else {"as": identity}
        self._process.stdin.write(json.dumps({"do": what, **named, **words}).encode() + b"\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, f"the hostile peer ended with {self._process.wait()}"
        found: dict[str, Any] = json.loads(line)
        return found


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


@contextmanager
def hostile_peer(
    program: Path, key: bytes, multiaddr: str, identities: int = 1, *, once: bool = False
) -> Iterator[HostilePeer]:
    """A running hostile peer, connected to the agent; ended afterwards.

    Identities that are thrown out come back, but for `once`.
    """
    command = [str(program), key.hex(), multiaddr, str(identities), *(["once"] if once else [])]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            yield HostilePeer(process)
        finally:
            process.kill()
