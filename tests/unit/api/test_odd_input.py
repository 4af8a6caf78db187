"""Input that no honest client sends gets a 4xx that names what is odd, never a 5xx, a traceback or a hang."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chorus.api import connection, guard, service
from chorus.hub import Reply, Request
from chorus.table.reader import TableReader
from chorus.table.store import TableStore

from .conftest import TASK_ID, TOKEN, Surface

DEADLINE_S = 30.0
FUZZ = settings(
    max_examples=5_000 if os.environ.get("CHORUS_HEAVY") else 100,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
BEARER = (b"authorization", b"Bearer " + TOKEN.encode())
HOST = (b"host", b"127.0.0.1")
Headers = list[tuple[bytes, bytes]]


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waiting for the rest of a request that never comes is not what these tests are about."""
    monkeypatch.setattr(service, "KEEP_ALIVE_S", 0.05)
    monkeypatch.setattr(connection, "HEADERS_MAX_S", 0.05)
    monkeypatch.setattr(connection, "LINGER_MAX_S", 0.05)
    monkeypatch.setattr(guard, "BODY_PAUSE_MAX_S", 0.05)
    monkeypatch.setattr(guard, "LINGER_MAX_S", 0.05)


@pytest.fixture(autouse=True)
async def strict(
    hurried: None, surface: Surface, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> AsyncIterator[None]:
    """A table of the real kind, a core that is whole, and a log in which no error may stand."""
    store = TableStore(tmp_path / "odd.sqlite")
    surface.context.table = TableReader(tmp_path / "odd.sqlite")

    async def coordinator(request: Request) -> Reply:
        if request.method == "table.propose":
            return Reply({"accepted": False, "reason": "conflict: so it is"})
        task = request.head.get("task") or {}
        return Reply({"task": task, "created": True, "ok": True, "by": "a", "ballot": {}})

    await surface.mesh.hub("a", "coordinator").offer("coordinator", coordinator)
    with caplog.at_level(logging.ERROR):
        yield
    surface.context.table.close()
    store.close()
    assert [record.getMessage() for record in caplog.records] == []


async def call(
    surface: Surface,
    method: str = "GET",
    path: bytes = b"/api/v1/tasks",
    query: bytes = b"",
    headers: Headers | None = None,
    body: bytes = b"",
) -> tuple[int, bytes]:
    """One request to the application behind its guard, as a server would hand it over."""
    sent: list[dict[str, Any]] = []
    messages = iter([{"type": "http.request", "body": body, "more_body": False}])

    async def receive() -> dict[str, Any]:
        return next(messages, {"type": "http.disconnect"})

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": bytes(path).decode("utf-8", "replace"),
        "raw_path": path,
        "query_string": query,
        "root_path": "",
        "headers": [HOST, BEARER, (b"content-length", b"%d" % len(body))] if headers is None else headers,
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 1),
        "state": {},
    }
    async with asyncio.timeout(DEADLINE_S):
        await surface.app(scope, receive, send)
    return sent[0]["status"], b"".join(message.get("body", b"") for message in sent[1:])


def json_headers(body: bytes, kind: bytes = b"application/json") -> Headers:
    return [HOST, BEARER, (b"content-type", kind), (b"content-length", b"%d" % len(body))]


@pytest.mark.parametrize(
    ("header", "status", "named"),
    [
        ((b"host", b"["), 400, "Host"),
        ((b"host", b"[::1"), 400, "Host"),
        ((b"host", b"a b"), 400, "Host"),
        ((b"host", b"\xff"), 400, "Host"),
        ((b"host", b"127.0.0.1:" + b"9" * 5000), 400, "Host"),
        ((b"origin", b"http://["), 400, "Origin"),
        ((b"origin", b"\xff\xfe"), 400, "Origin"),
        ((b"origin", b"http://127.0.0.1@x"), 400, "Origin"),
        ((b"expect", b"a miracle"), 417, "Expect"),
        ((b"content-length", b"0" * 5000), 400, "Content-Length"),
        ((b"content-length", b"-1"), 400, "Content-Length"),
        ((b"content-length", b"\xb2"), 400, "Content-Length"),
        ((b"x-other", b"a\0b"), 400, "x-other"),
    ],
)
async def test_odd_headers_are_named(
    surface: Surface, header: tuple[bytes, bytes], status: int, named: str
) -> None:
    headers = [HOST, BEARER] if header[0] != b"host" else [BEARER]
    got, body = await call(surface, headers=[*headers, header])
    assert (got, named in body.decode()) == (status, True), body


@pytest.mark.parametrize("name", [b"host", b"authorization", b"content-type", b"content-length", b"origin"])
async def test_a_header_that_may_stand_there_once_is_not_taken_twice(surface: Surface, name: bytes) -> None:
    value = {b"host": HOST[1], b"authorization": BEARER[1], b"content-length": b"0"}.get(name, b"a")
    headers = [one for one in (HOST, BEARER) if one[0] != name]
    status, body = await call(surface, headers=[*headers, (name, value), (name, value)])
    assert status == 400
    assert name in body


async def test_a_request_without_a_host(surface: Surface) -> None:
    status, body = await call(surface, headers=[BEARER])
    assert (status, b"Host" in body) == (400, True)


@pytest.mark.parametrize("odd", [b"%", b"%z1", b"%ff", b"%00", b"%ed%a0%80", b"\xff"])
@pytest.mark.parametrize("where", ["path", "query"])
async def test_odd_percent_encodings_are_named(surface: Surface, where: str, odd: bytes) -> None:
    place = {"path": b"/api/v1/tasks/" + odd} if where == "path" else {"query": b"project=" + odd}
    status, body = await call(surface, **place)  # type: ignore[arg-type]
    assert (status, where in body.decode()) == (400, True), body


async def test_absurd_parameters_are_named(surface: Surface) -> None:
    for name, value in (("limit", "9" * 400), ("limit", "1e999"), ("cursor", "9" * 65), ("cursor", "9" * 30)):
        status, body = await call(surface, query=f"{name}={value}".encode())
        assert (status, orjson.loads(body)["errors"][0]["field"]) == (422, name)


NOT_JSON = [
    b'{"title": "\\ud800"}',
    b'{"title": "\xff"}',
    b'{"title": "t", "priority": 1e999}',
    b'{"title": "t", "priority": NaN}',
    b'{"title": "t", "priority": ' + b"9" * 400 + b"}",
    b'{"title": ' + b"[" * 100_000,
    b'{"title": "t", "env": ' + b'{"a":' * 1100 + b"1" + b"}" * 1100 + b"}",
    b"\xef\xbb\xbf{}",
    "{}".encode("utf-16"),
]


@pytest.mark.parametrize("body", NOT_JSON)
@pytest.mark.parametrize("path", ["", f"/{TASK_ID}/cancel"])
async def test_what_is_no_json_is_refused(surface: Surface, path: str, body: bytes) -> None:
    surface.context.table.task = lambda task_id: _row()  # type: ignore[method-assign]
    status, answer = await call(
        surface, "POST", b"/api/v1/tasks" + path.encode(), headers=json_headers(body), body=body
    )
    assert (status, b"not JSON" in answer) == (400, True), answer


def _row() -> Any:
    from .conftest import task_row

    return task_row()


@pytest.mark.parametrize(
    "field", ["sha256", "kind", "files", "url", "nonsense", "\a" * 10_000, "a" * 500_000]
)
async def test_deep_and_long_fields_are_refused_briefly(surface: Surface, field: str) -> None:
    deep = b"[" * 900 + b"]" * 900
    for source in (b'{"kind": "archive", %s: %s}', b"{%s: %s}"):
        body = b'{"title": "t", "source": ' + source % (orjson.dumps(field), deep) + b"}"
        status, answer = await call(surface, "POST", headers=json_headers(body), body=body)
        assert status == 422, answer[:200]
        assert len(answer) < 20_000


async def test_another_charset_is_named(surface: Surface) -> None:
    body = b'{"title": "t"}'
    headers = json_headers(body, b"application/json; charset=utf-16")
    status, answer = await call(surface, "POST", headers=headers, body=body)
    assert (status, b"charset" in answer) == (415, True)


def part(head: bytes, boundary: bytes = b"b") -> bytes:
    return b"--" + boundary + b"\r\n" + head + b"\r\n\r\n{}\r\n--" + boundary + b"--\r\n"


TASK_PART = b'Content-Disposition: form-data; name="task"'


@pytest.mark.parametrize(
    ("kind", "body", "status", "named"),
    [
        (b"multipart/form-data; boundary=" + b"b" * 5000, part(TASK_PART, b"b" * 5000), 400, "boundary"),
        (b"multipart/form-data; boundary=", part(TASK_PART), 400, "boundary"),
        (b'multipart/form-data; boundary="\xff;\\"', part(TASK_PART), 400, "malformed"),
        (b"multipart/form-data; boundary=b", part(b"X-A: " + b"a" * 70_000), 431, "65536"),
        (b"multipart/form-data; boundary=b", part(b"a" * 70_000 + b": b"), 431, "65536"),
        (b"multipart/form-data; boundary=b", part(b"\r\n".join([b"X-A: " + b"a" * 900] * 99)), 431, "65536"),
        (b"multipart/form-data; boundary=b", part(b"\r\n".join([b"X-A: a"] * 101)), 431, "100"),
        (b"multipart/form-data; boundary=b", part(b"no colon"), 400, "malformed"),
        (b"multipart/form-data; boundary=b", part(b'Content-Disposition: a; name="\xff"'), 422, "part"),
        (
            b"multipart/form-data; boundary=b",
            part(b'Content-Disposition: a; name="' + b"n" * 9000),
            422,
            "part",
        ),
        (b"multipart/form-data; boundary=b", b"\r\n" * 10_000, 400, "boundary"),
        (b"text/\xff", b"{}", 415, "application/json"),
    ],
)
async def test_odd_multipart_bodies_are_named(
    surface: Surface, kind: bytes, body: bytes, status: int, named: str
) -> None:
    got, answer = await call(surface, "POST", headers=json_headers(body, kind), body=body)
    assert (got, named in answer.decode()) == (status, True), answer[:500]
    assert len(answer) < 2000


ODD_TEXT = st.one_of(
    st.text(max_size=40),
    st.sampled_from(
        ["", "0", "-1", "9" * 400, "1e999", "nan", "true", "null", "[", "\0", "\x1b[2J", "\u202e", "%", "*",
        "é",
         "9999-12-31T23:59:59-14:00", "0001-01-01T00:00:00+14:00", "ucxl://any:any@any:any/*^/",
         "ucxl://a:agent@p:t/*~9999999999999999999/x", '"1-0"', "a" * 5000, TASK_ID, "0" * 64, "1-1", "both"]
    ),
)  # fmt: skip
ODD_BYTES = st.one_of(st.binary(max_size=60), ODD_TEXT.map(lambda text: text.encode("utf-8", "replace")))
PATHS = [
    "/api/v1/tasks", "/api/v1/tasks/{}", "/api/v1/tasks/{}/events", "/api/v1/tasks/{}/logs",
    "/api/v1/tasks/{}/artifacts", "/api/v1/tasks/{}/artifacts/{}", "/api/v1/tasks/{}/cancel",
    "/api/v1/tasks/{}/retry", "/api/v1/tasks/{}/messages", "/api/v1/status", "/api/v1/agents",
    "/api/v1/peers", "/api/v1/members",
    "/api/v1/election/transfer",
    "/api/v1/members/{}", "/api/v1/members/rejoin", "/api/v1/members/recovery", "/api/v1/members/recover",
    "/api/v1/election", "/api/v1/decisions", "/api/v1/decisions/{}", "/api/v1/decisions/{}/votes",
    "/api/v1/context", "/api/v1/log", "/api/v1/log/verify", "/metrics", "/docs", "/openapi.json", "/{}",
    "/ucxi/v1/get", "/ucxi/v1/put", "/ucxi/v1/post", "/ucxi/v1/delete", "/ucxi/v1/navigate",
    "/ucxi/v1/announce", "/ucxi/v1/discover", "/ucxi/v1/query", "/ucxi/v1/subscribe", "/ucxi/v1/status",
]  # fmt: skip
NAMES = [
    "address", "raw", "to", "text", "limit", "cursor", "state", "agent", "project", "submitted_by", "kind",
    "since", "task", "task_id", "budget", "type", "order", "follow", "stream", "attempt",
    "all", "force",
]  # fmt: skip
HEADER_NAMES = [
    b"host", b"origin", b"content-type", b"content-length", b"transfer-encoding", b"expect", b"if-match",
    b"if-none-match", b"last-event-id", b"idempotency-key", b"range", b"upgrade", b"connection", b"cookie",
    b"authorization", b"sec-fetch-site", b"x-forwarded-for", b"accept-encoding",
]  # fmt: skip
METHODS = ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "CONNECT", "TRACE", "NONSENSE"]
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**63), 2**64 - 1), st.floats(), ODD_TEXT),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(ODD_TEXT, inner, max_size=4)),
    max_leaves=12,
)
FIELDS = [
    "title", "commands", "source", "env", "secrets", "timeout_s", "start_by", "resources", "depends_on",
    "task_id", "priority", "artifacts", "workdir", "stdin", "vote", "reason", "by", "quorum", "open_s",
    "mesh", "force", "to", "text", "name", "id", "nonsense",
]  # fmt: skip
BODIES = st.one_of(
    ODD_BYTES,
    st.sampled_from(NOT_JSON),
    st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=4).map(
        lambda body: orjson.dumps({"title": "t", "vote": "approve", **body})
    ),
)


@FUZZ
@given(data=st.data())
async def test_no_request_is_an_error_of_the_agent(surface: Surface, data: st.DataObject) -> None:
    pick = data.draw
    shape = pick(st.sampled_from(PATHS))
    path = shape.format(*[quote(pick(ODD_TEXT), safe="/", errors="replace") for _ in range(2)]).encode()
    names = pick(st.lists(st.sampled_from(NAMES), max_size=4))
    query = "&".join(f"{name}={quote(pick(ODD_TEXT), errors='replace')}" for name in names).encode()
    if pick(st.booleans()):
        query += pick(ODD_BYTES)
    odd = pick(st.lists(st.tuples(st.sampled_from(HEADER_NAMES), ODD_BYTES), max_size=3))
    body = pick(BODIES)
    known = {name for name, _ in odd}
    headers = [one for one in json_headers(body) if one[0] not in known] + odd
    status, answer = await call(surface, pick(st.sampled_from(METHODS)), path, query, headers, body)
    assert 200 <= status < 500 or status == 503, (status, answer)


LINES = st.sampled_from(
    [
        b"GET /api/v1/tasks HTTP/1.1\r\n", b"POST /api/v1/tasks HTTP/1.1\r\n", b"GET * HTTP/1.1\r\n",
        b"OPTIONS * HTTP/1.1\r\n", b"CONNECT 127.0.0.1:80 HTTP/1.1\r\n",
        b"GET http://127.0.0.1 HTTP/1.1\r\n", b"GET http://[ HTTP/1.1\r\n",
        b"GET http://evil/ HTTP/1.1\r\n", b"GET //x HTTP/1.1\r\n", b"GET / HTTP/9.9\r\n",
        b"GET /\xff HTTP/1.1\r\n", b"GET /%ff HTTP/1.1\r\n", b"GET ?a HTTP/1.1\r\n",
        b"GET /#a HTTP/1.1\r\n", b"PRI * HTTP/2.0\r\n", b"GET /\r\n", b"GET / HTTP/1.0\r\n",
        b"FOO / HTTP/1.1\r\n", b"\x16\x03\x01\x02\0\r\n", b"Host: 127.0.0.1\r\n", b"Host: [\r\n",
        b"Host:\r\n", b"Host 127.0.0.1\r\n", b"Origin: http://[\r\n", b"Content-Length: 5\r\n",
        b"Content-Length: 5, 5\r\n", b"Content-Length: +5\r\n", b"Content-Length: 0x5\r\n",
        b"Content-Length: " + b"9" * 400 + b"\r\n", b"Content-Length: " + b"0" * 5000 + b"5\r\n",
        b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding: gzip\r\n",
        b"Transfer-Encoding: chunked, gzip\r\n", b"Transfer-Encoding: identity\r\n",
        b"Transfer-Encoding: \x0bchunked\r\n", b"transfer-encoding : chunked\r\n",
        b"Expect: 100-continue\r\n", b"Expect: x\r\n", b"Connection: upgrade\r\nUpgrade: websocket\r\n",
        b"Connection: close\r\n", b"Connection: \xff\r\n", b"X-A: \0\r\n", b"X-A: a\rb\r\n",
        b" folded\r\n", b": \r\n",
        b"Content-Type: multipart/form-data; boundary=" + b"b" * 5000 + b"\r\n",
        b"Content-Type: application/json\r\n", b"Authorization: Bearer " + TOKEN.encode() + b"\r\n",
        b"\r\n", b"\r\n", b"\r\n\r\n", b"5\r\nhello\r\n", b"0\r\n\r\n", b"-1\r\n", b"f" * 400 + b"\r\n",
        b"5;a=\xff\r\n", b"{}", b"5\r\nhel",
    ]
)  # fmt: skip


def spoken(port: int, content: bytes) -> bytes:
    """What a server says to the bytes before it closes."""
    answer = b""
    with (
        socket.create_connection(("127.0.0.1", port), DEADLINE_S) as client,
        contextlib.suppress(ConnectionError),
    ):
        client.sendall(content)
        while piece := client.recv(65536):
            answer += piece
    return answer


@FUZZ
@given(
    pieces=st.lists(st.one_of(LINES, ODD_BYTES), max_size=8),
    start=st.sampled_from(
        [b"", b"GET / HTTP/1.1\r\n", b"POST /api/v1/tasks HTTP/1.1\r\nHost: 127.0.0.1\r\n"]
    ),
)
async def test_no_bytes_are_an_error_of_the_server(
    surface: Surface, pieces: list[bytes], start: bytes
) -> None:
    for client in (surface.api, surface.probes):
        port = client.base_url.port
        assert port is not None
        # The line at the end makes the server close instead of waiting for another request.
        content = start + b"".join(pieces) + b"\r\n\r\n\x01\r\n\r\n"
        async with asyncio.timeout(DEADLINE_S):
            answer = await asyncio.to_thread(spoken, port, content)
        for status in re.findall(rb"HTTP/1\.1 ([0-9]{3}) [A-Z]", answer):
            assert status < b"500" or status == b"503", answer[:500]
