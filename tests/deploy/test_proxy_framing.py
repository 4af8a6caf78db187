"""Requests that a proxy and the daemon behind it might cut or read differently, and what the log says."""

from __future__ import annotations

import contextlib
import gzip
import json
import socket

import pytest

from .conftest import docker
from .sandbox_bodies import sandbox
from .watched import Watched

pytestmark = pytest.mark.deploy

NOBODY = "0" * 64
V = "/v1.41"
CREATE = f"{V}/containers/create"
BODY = json.dumps(sandbox()).encode()
ILL_FORMED = "not well-formed"
LENGTH = f"Content-Length: {len(BODY)}"
JSON = "Content-Type: application/json"


def request(line: str, *fields: str, body: bytes = b"") -> bytes:
    """A request as it is written here."""
    return "\r\n".join([line, "Host: docker", *fields, "", ""]).encode() + body


def create(*fields: str, body: bytes = BODY) -> bytes:
    """A sandbox, in a frame of one's own."""
    return request(f"POST {CREATE} HTTP/1.1", *fields, body=body)


def chunked(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n0\r\n\r\n" % (len(data), data)


FRAMES: dict[str, tuple[bytes, str]] = {
    "chunks": (create(JSON, "Transfer-Encoding: chunked", body=chunked(BODY)), "Transfer-Encoding"),
    "chunks and a trailer": (
        create(JSON, "Transfer-Encoding: chunked", "Trailer: X", body=chunked(BODY)[:-2] + b"X: y\r\n\r\n"),
        "Transfer-Encoding",
    ),
    "chunks where no body belongs": (
        request(
            f"POST {V}/containers/{NOBODY}/start HTTP/1.1", "Transfer-Encoding: chunked", body=b"0\r\n\r\n"
        ),
        "Transfer-Encoding",
    ),
    "chunks and a length": (
        create(JSON, LENGTH, "Transfer-Encoding: chunked", body=chunked(BODY)),
        ILL_FORMED,
    ),
    "a length and chunks": (
        create(JSON, "Transfer-Encoding: chunked", LENGTH, body=chunked(BODY)),
        ILL_FORMED,
    ),
    "one length twice": (create(JSON, LENGTH, LENGTH), ILL_FORMED),
    "two lengths": (create(JSON, LENGTH, "Content-Length: 2"), ILL_FORMED),
    "a list of lengths": (create(JSON, f"{LENGTH}, {len(BODY)}"), ILL_FORMED),
    "a length with a sign": (create(JSON, f"Content-Length: +{len(BODY)}"), ILL_FORMED),
    "a length in hexadecimal": (create(JSON, f"Content-Length: {len(BODY):#x}"), ILL_FORMED),
    "a length below nothing": (create(JSON, "Content-Length: -1"), ILL_FORMED),
    "a length without end": (create(JSON, f"Content-Length: {'9' * 40}"), ILL_FORMED),
    "a length before a colon": (create(JSON, f"Content-Length : {len(BODY)}"), ILL_FORMED),
    "no length": (create(JSON, body=b""), "no body where one belongs"),
    "two encodings": (create(JSON, "Transfer-Encoding: chunked, identity", body=chunked(BODY)), "encoding"),
    "identity": (create(JSON, "Transfer-Encoding: identity", LENGTH), "encoding"),
    "chunks of another name": (create(JSON, "Transfer-Encoding: xchunked", LENGTH), "encoding"),
    "encodings twice": (
        create(JSON, "Transfer-Encoding: chunked", "Transfer-Encoding: identity", body=chunked(BODY)),
        ILL_FORMED,
    ),
    "a body that waits": (create(JSON, LENGTH, "Expect: 200-ok"), "Expect"),
    "a body in gzip": (
        create(
            JSON,
            "Content-Encoding: gzip",
            f"Content-Length: {len(gzip.compress(BODY, mtime=0))}",
            body=gzip.compress(BODY, mtime=0),
        ),
        "Content-Encoding",
    ),
    "a body that says it is in gzip": (create(JSON, LENGTH, "Content-Encoding: gzip"), "Content-Encoding"),
    "a form": (create("Content-Type: application/x-www-form-urlencoded", LENGTH), "Content-Type"),
    "another charset": (create("Content-Type: application/json; charset=utf-16", LENGTH), "Content-Type"),
    "no type": (create(LENGTH), "Content-Type"),
    "a body where none belongs": (
        request(f"POST {V}/containers/{NOBODY}/start HTTP/1.1", JSON, "Content-Length: 2", body=b"{}"),
        "where none belongs",
    ),
    "a form for a pull": (
        request(
            f"POST {V}/images/create?tag=latest&fromImage=anthonyrawlins%2Fchorus-base HTTP/1.1",
            "Content-Type: application/x-www-form-urlencoded",
            "Content-Length: 9",
            body=b"fromSrc=-",
        ),
        "where none belongs",
    ),
    "a body of a question": (
        request("GET /_ping HTTP/1.1", "Content-Length: 2", body=b"{}"),
        "where none belongs",
    ),
    "HTTP/1.0": (create(JSON, LENGTH).replace(b"HTTP/1.1", b"HTTP/1.0"), "another version of HTTP"),
    "HTTP/1.0 in chunks": (
        create(JSON, "Transfer-Encoding: chunked", body=chunked(BODY)).replace(b"HTTP/1.1", b"HTTP/1.0"),
        ILL_FORMED,
    ),
    "HTTP/2.0": (request("GET /_ping HTTP/2.0"), "another version of HTTP"),
    "HTTP/2 with prior knowledge": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", ""),
    "HTTP/1.2": (request("GET /_ping HTTP/1.2"), "another version of HTTP"),
    "no version": (request("GET /_ping HTTP/"), ILL_FORMED),
    "a whole address": (request("GET http://docker/_ping HTTP/1.1"), "request line"),
    "a whole address of something else": (request("GET http://docker/v1.41/info HTTP/1.1"), "request line"),
    "two spaces": (request("GET  /_ping HTTP/1.1"), "request line"),
    "a NUL in the target": (request("GET /_ping%00 HTTP/1.1"), ILL_FORMED),
    "a tab": (request("GET\t/_ping HTTP/1.1"), ILL_FORMED),
    "a target of a proxy": (request("CONNECT docker:2375 HTTP/1.1"), ""),
    "a star": (request("OPTIONS * HTTP/1.1"), ""),
    "a trace": (request("TRACE /_ping HTTP/1.1"), "no such call"),
    "no host": (b"GET /_ping HTTP/1.1\r\n\r\n", ILL_FORMED),
    "two hosts": (request("GET /_ping HTTP/1.1", "Host: other"), ILL_FORMED),
    "a NUL in a field": (request("GET /_ping HTTP/1.1", "X: a\0b"), ILL_FORMED),
    "a field without end": (request("GET /_ping HTTP/1.1", "X: " + "a" * 70_000), ""),
    "a target without end": (request(f"GET /{'a' * 70_000} HTTP/1.1"), "head that is too large"),
    "an upgrade": (request("GET /_ping HTTP/1.1", "Connection: Upgrade", "Upgrade: tcp"), "Upgrade"),
    "an upgrade to HTTP/2": (
        request(
            "GET /version HTTP/1.1",
            "Connection: Upgrade, HTTP2-Settings",
            "Upgrade: h2c",
            "HTTP2-Settings: AAMAAABkAAQ",
        ),
        "Upgrade",
    ),
    "an upgrade of a sandbox": (create(JSON, LENGTH, "Connection: Upgrade", "Upgrade: tcp"), "Upgrade"),
    "a body that is too large": (
        create(JSON, f"Content-Length: {len(BODY) + 70_000}", body=BODY + b" " * 70_000),
        "too large to be judged",
    ),
}


@pytest.mark.parametrize("what", FRAMES)
def test_frames_that_no_agent_makes(watched: Watched, what: str) -> None:
    data, reason = FRAMES[what]
    watched.refuses(lambda: watched.send(data)[0], reason)


def test_a_verdict_is_not_taken_from_outside(watched: Watched) -> None:
    for name in (
        "X-Verdict",
        "X-Judged",
        "Judged",
        "X-Accel-Redirect",
        "X-HTTP-Method-Override",
        "X-Original-URL",
    ):
        for value in ("ok", "-", "@without_body", "/_ping"):
            data = request(f"GET {V}/info HTTP/1.1", f"{name}: {value}")
            watched.refuses(lambda data=data: watched.send(data)[0], "no such call", f"{V}/info", "GET")


def test_a_request_behind_another_is_judged_for_itself(watched: Watched) -> None:
    ping, info = request("GET /_ping HTTP/1.1"), request(f"GET {V}/info HTTP/1.1")
    first, second, third = watched.send(ping + info + ping, answers=3)
    assert (first.status, second.status, third.status) == (200, 403, 200)
    assert watched.log.refusal()[1]["path"] == f"{V}/info"


def test_a_request_in_the_body_of_another_is_judged_for_itself(watched: Watched) -> None:
    info = request(f"GET {V}/info HTTP/1.1")
    short = create(JSON, "Content-Length: 2", body=b"{}" + info)
    assert [answer.status for answer in watched.send(short, answers=2)] == [403, 403]
    assert [watched.log.refusal()[1]["path"] for _ in range(2)] == [CREATE, f"{V}/info"]


def test_after_a_session_that_failed_nothing_slips_through(watched: Watched) -> None:
    """A connection that did not become a session is still one of requests, and each is judged."""
    body = b'{"Tty": false, "Detach": false}'
    line = f"POST {V}/exec/{NOBODY}/start HTTP/1.1"
    start = request(
        line, JSON, f"Content-Length: {len(body)}", "Connection: Upgrade", "Upgrade: tcp", body=body
    )
    first, second = watched.send(start + request(f"GET {V}/info HTTP/1.1"), answers=2)
    assert (first.status, "No such exec" in first.text, second.status) == (404, True, 403)
    assert watched.log.refusal()[1]["path"] == f"{V}/info"


def test_of_the_head_nothing_else_goes_on(watched: Watched) -> None:
    fields = (
        "X-Registry-Auth: e30=",
        "Cookie: a=b",
        "X-Forwarded-For: x",
        "Authorization: c",
        "Range: bytes=0-1",
    )
    assert watched.send(request("GET /_ping HTTP/1.1", *fields))[0].status == 200
    assert bytes(watched.relay.received[-1]) == (
        b"GET /_ping HTTP/1.1\r\nHost: docker\r\nX-Registry-Auth: e30=\r\n\r\n"
    )
    answer = watched.send(create(JSON, LENGTH, *fields))[0]
    docker("rm", json.loads(answer.text)["Id"])
    head, _, body = bytes(watched.relay.received[-1]).partition(b"\r\n\r\n")
    assert sorted(head.split(b"\r\n")[1:]) == [
        b"Content-Length: %d" % len(body),
        b"Content-Type: application/json",
        b"Host: docker",
    ]


# ---- the log ---------------------------------------------------------------------------------------


def test_the_log_has_neither_query_nor_body(watched: Watched) -> None:
    path = f"{V}/containers/json"
    line = watched.refuses(lambda: watched.ask("GET", f"{path}?token=hunter2"), "no such call", path, "GET")
    body = {**sandbox(), "hunter2 ": "hunter2", "Env": [{"hunter2": "hunter2"}]}
    line += watched.refuses(
        lambda: watched.ask("POST", f"{CREATE}?name=hunter2", body), "a name that is not shown"
    )
    assert "hunter2" not in line


@pytest.mark.parametrize(
    "bad", [b"\xff", b"\xc2\x9b31m", b"\x7f", b"\x1b[31m", b'"', b"\\", b"%0aforged", b"\x85"]
)
def test_a_path_in_the_log_is_printable_and_on_one_line(watched: Watched, bad: bytes) -> None:
    """`refuses` looks at the line; nginx itself refuses control characters."""
    data = request(f"GET {V}/x HTTP/1.1").replace(b"/x", b"/" + bad)
    watched.refuses(lambda: watched.send(data)[0], "")


def test_path_and_method_in_the_log_are_cut(watched: Watched) -> None:
    path = f"{V}/{'a' * 5000}"
    line = watched.refuses(lambda: watched.ask("M" * 500, path), "no such call", path)
    assert len(line) < 600


def test_a_body_that_never_ends_is_named_too(watched: Watched) -> None:
    data = create(JSON, f"Content-Length: {len(BODY) + 1}")
    with contextlib.closing(socket.create_connection(("127.0.0.1", watched.port), timeout=60)) as connection:
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        assert b" 201 " not in connection.recv(100)
    line, fields = watched.log.refusal()
    assert (fields["path"], fields["status"] in {"400", "408"}) == (CREATE, True), line


def test_a_request_without_a_version_at_all(watched: Watched) -> None:
    with contextlib.closing(socket.create_connection(("127.0.0.1", watched.port), timeout=60)) as connection:
        connection.sendall(f"GET {V}/info\r\n".encode())
        assert b"refused by the proxy" in connection.makefile("rb").read()
    assert watched.log.refusal()[1]["reason"] == "another version of HTTP than 1.1"
