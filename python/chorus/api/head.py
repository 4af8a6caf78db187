"""What the head of a request may say: whatever is odd about it gets a 4xx that names it. Pure.

Sizes and the form of the bytes are `connection`'s; who is let in is `guard`'s.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Final
from urllib.parse import unquote_to_bytes

from starlette.types import Scope

from chorus.api.problems import Problem

SHOWN_MAX_CHARS: Final = 64

# Read in more than one place here, or by proxies on the way: two of them could be read differently.
_ONCE: Final = frozenset(
    {
        b"authorization",
        b"content-length",
        b"content-type",
        b"expect",
        b"host",
        b"idempotency-key",
        b"last-event-id",
        b"origin",
        b"sec-fetch-site",
    }
)
_CONTROL: Final = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
# A name, an IPv4 address or an IPv6 address in brackets, and a port.
_HOST: Final = re.compile(r"(?:\[([0-9A-Za-z:.%_~-]+)\]|([0-9A-Za-z!$&'()*+,;=._~-]*))(?::[0-9]{0,5})?")
_ORIGIN: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://(.*)")
_LENGTH: Final = re.compile(rb"[0-9]{1,19}")
_LONE_PERCENT: Final = re.compile(rb"%(?![0-9A-Fa-f]{2})")


def read_head(scope: Scope) -> dict[bytes, bytes]:
    """The headers of a request by their names. Raises Problem when they, or its target, are malformed."""
    headers: dict[bytes, bytes] = {}
    for name, value in scope["headers"]:
        if name in _ONCE and name in headers:
            raise Problem(400, f"the header {_shown(name)} stands there twice; send it once")
        if _CONTROL.search(value):
            raise Problem(400, f"the header {_shown(name)} holds a control character")
        headers[name] = value
    if b"host" not in headers and scope.get("http_version", "1.1") != "1.0":
        raise Problem(400, "the header Host is missing; HTTP/1.1 asks for it")
    if _HOST.fullmatch(headers.get(b"host", b"").decode("latin-1")) is None:
        raise Problem(400, f"Host {_shown(headers[b'host'])} is not a name or address with an optional port")
    length = headers.get(b"content-length")
    if length is not None and not _LENGTH.fullmatch(length):
        raise Problem(400, f"Content-Length {_shown(length)} is not a number of bytes")
    expected = headers.get(b"expect")
    if expected is not None and expected.strip().lower() != b"100-continue":
        raise Problem(417, f"Expect {_shown(expected)} cannot be met; only 100-continue can")
    _check_encoding(scope.get("raw_path") or b"", "path")
    _check_encoding(scope["query_string"], "query")
    return headers


def host_is_address(host: str) -> bool:
    """Whether a Host that `read_head` took is an IP address or localhost."""
    match = _HOST.fullmatch(host)
    assert match is not None
    name = (match[1] or match[2]).lower()
    if name == "localhost":
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def origin_host(origin: bytes) -> str | None:
    """The host and port of an Origin, None for `null`. Raises Problem for what is no origin."""
    text = origin.decode("latin-1").strip()
    if text == "null":
        return None
    match = _ORIGIN.fullmatch(text)
    if match is None or _HOST.fullmatch(match[1]) is None:
        raise Problem(400, f"Origin {_shown(origin)} is no origin: null, or a scheme and a host")
    return match[1].lower()


def _check_encoding(raw: bytes, where: str) -> None:
    if b"%" not in raw and raw.isascii() and b"\0" not in raw:
        return
    if _LONE_PERCENT.search(raw):
        raise Problem(400, f"the {where} holds a % without two hexadecimal digits after it; write it as %25")
    plain = unquote_to_bytes(raw)
    if b"\0" in plain:
        raise Problem(400, f"the {where} holds a zero byte")
    try:
        plain.decode()
    except UnicodeDecodeError:
        raise Problem(400, f"the {where} is not UTF-8 once its percent-encoding is undone") from None


def _shown(value: bytes) -> str:
    text = value.decode("latin-1")
    return repr(text if len(text) <= SHOWN_MAX_CHARS else text[:SHOWN_MAX_CHARS] + "…")
