"""Text of other people never reaches the terminal with control characters, whatever command prints it.

A fake agent answers every request with rows whose every text is hostile; each command is run against it.
"""

from __future__ import annotations

import ast
import base64
import hashlib
import json
import os
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from chorus import ctl
from chorus.ctl import client as client_module
from chorus.ctl import terminal
from chorus.ctl.cli import main
from chorus.wire.visible import visible, visible_json

CONTROLS = "".join(map(chr, (*range(0x20), *range(0x7F, 0xA0))))
BIDI = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f\u061c"
HIDDEN = "\u2028\u2029\u200b\u2060\ufeff\U000e0001\U000e0041\ue000"
EVIL = f"\x1b]0;owned\x07\x1b[2J[red]x[/red] {CONTROLS}{BIDI}{HIDDEN} \nchorusctl: all is well"
TASK = "01J00000000000000000000001"
HASH = "0" * 64
RAW_OUTPUT = EVIL.encode() + b"\xff\xc2\x9b" + b"a\tb\r\n" + b"\r"


END = {"state": EVIL, "reason": EVIL, "exit_code": EVIL, "ended_by": EVIL}
STREAMED = [
    {"id": "1-1", "event": "state", "data": {"state": EVIL, "reason": EVIL}},
    {"id": "1-2", "event": "gap", "data": {"detail": EVIL, "lost": EVIL}},
    {"id": "1-3", "event": "step", "data": {"step": 0, "plan": {"text": EVIL}, "note": EVIL}},
    {
        "id": "1-4",
        "event": "step",
        "data": {
            "step": 1,
            "reply": {"text": EVIL, "unreadable": EVIL, "tokens_in": EVIL},
            "call": {"tool": EVIL, "arguments": {EVIL: EVIL}},
            "outcome": {"text": EVIL, "exit_code": EVIL},
            "checks": {"commands": [{"command": EVIL, "exit_code": EVIL, "output": EVIL}]},
        },
    },
    {"id": "1-5", "event": "step", "data": {"call": {"tool": "run", "arguments": {"command": EVIL}}}},
    {"id": "1-6", "event": "message", "data": {"from": EVIL, "name": EVIL, "text": EVIL}},
    {
        "id": "1-7",
        "event": "end",
        "data": {"state": EVIL, "reason": EVIL, "exit_code": EVIL, "ended_by": EVIL},
    },
]
# The names and texts of a patch are those of whoever made it.
PATCH = (
    b"diff --git a/x b/x\nrename to " + EVIL.replace("\n", "").encode() + b"\n--- a/x\n+++ b/x\n@@ -1 +1 @@\n"
)
GOAL = {
    "provider": EVIL, "model": EVIL, "steps": EVIL, "tokens_in": EVIL, "tokens_out": EVIL, "usd": 1.0,
    "unchecked": EVIL, "discussion": EVIL,
    "checks": [{"command": EVIL, "exit_code": EVIL, "duration_s": EVIL}],
    "patch": {
        "sha256": hashlib.sha256(PATCH).hexdigest(), "size": len(PATCH), "files": EVIL,
        "left_out": [{"path": EVIL, "reason": EVIL}],
    },
}  # fmt: skip
TALKED = {
    "kind": EVIL, "message_id": EVIL, "from": {"agent_id": EVIL, "person": EVIL}, "intent": EVIL,
    "message": EVIL,
}  # fmt: skip
VERSION = {
    "address": f"ucxl://a:b@c:d/*^/{EVIL}", "size": EVIL, "deleted": False, "content_type": EVIL,
    "agent_id": EVIL,
    "author": EVIL, "created_at": EVIL, "latest": EVIL, "version": EVIL, "content": EVIL,
}  # fmt: skip
ROW = {
    **VERSION,
    "task_id": EVIL, "state": EVIL, "title": EVIL, "running_s": 1.0, "reason": EVIL, "peer_id": EVIL,
    "addresses": [EVIL], "rtt_ms": 1.0, "voter": EVIL, "present": EVIL, "role": EVIL, "leader": EVIL,
    "tasks": {"active": EVIL, "max": EVIL}, "accepting": EVIL, "languages": [EVIL], "hash": HASH,
    "kind": EVIL,
    "path": EVIL, "sha256": EVIL, "attempt": EVIL, "seq": EVIL, "timestamp": 1, "type": EVIL,
    "data": {EVIL: EVIL}, "removed_at": EVIL, "id": EVIL, "continues": EVIL, "opened_at": EVIL,
    "outcome": EVIL, "result": {"goal": GOAL, "ended_by": EVIL, "decision": EVIL}, "session_id": EVIL,
    "items": [TALKED],
}  # fmt: skip
STATUS = {
    "agent_id": EVIL, "version": EVIL, "peer_id": EVIL, "peers": EVIL, "ai": {"detail": EVIL}, "applied": 7,
    "mesh": {
        "id": EVIL, "members": EVIL, "present": EVIL, "voters": EVIL, "leader": EVIL, "term": EVIL,
        "state": EVIL,
    },
    "tasks": {"active": EVIL, "max": EVIL, "reason": EVIL},
}  # fmt: skip
ELECTION = {
    "mesh": EVIL, "term": EVIL, "state": EVIL, "leader": EVIL, "since": EVIL, "score": EVIL, "trigger": EVIL,
    "members": [{"agent_id": EVIL, "voter": True}],
}  # fmt: skip
BALLOT = {
    "state": EVIL, "round": EVIL, "approve": EVIL, "reject": EVIL, "abstain": EVIL, "quorum": EVIL,
    "voters": EVIL,
    "ended_at": EVIL, "closes_at": EVIL,
    "votes": [{"choice": EVIL, "agent_id": EVIL, "voter": EVIL, "by": EVIL, "reason": EVIL}],
}  # fmt: skip


RECOVERY = {
    "mesh": EVIL, "leader": EVIL, "needed": True, "why": EVIL, "longest": EVIL, "bringing": False,
    "voters": [{"agent_id": EVIL, "peer": EVIL, "present": EVIL, "reachable": EVIL}],
    "reachable": [{"agent_id": EVIL, "peer": EVIL, "last": EVIL, "term": EVIL}],
    "this": {"agent_id": EVIL, "peer": EVIL, "last": EVIL, "term": EVIL},
    "holds": {"tasks": EVIL, "decisions": EVIL, "versions": EVIL},
}  # fmt: skip


SAID = {
    "at": EVIL, "message_id": EVIL, "request_id": EVIL, "alert_id": EVIL, "record": EVIL, "address": EVIL,
    "rule": EVIL, "intent": EVIL, "message": EVIL, "question": EVIL, "reason": EVIL, "outcome": EVIL,
    "depends_on": [EVIL], "from": {"agent_id": EVIL, "role": EVIL, "person": EVIL},
}  # fmt: skip
SAID_KINDS = ("message", "help", "advice", "alert", "record", EVIL)
DISCUSSION = {
    **ROW, "participants": [EVIL], "record": EVIL, "items": [{**SAID, "kind": kind} for kind in SAID_KINDS],
}  # fmt: skip


def sse(events: list[dict[str, Any]]) -> bytes:
    return b"".join(
        b"id: %s\nevent: %s\ndata: %s\n\n" % (e["id"].encode(), e["event"].encode(), orjson.dumps(e["data"]))
        for e in events
    )


def hostile(request: httpx.Request) -> httpx.Response:
    """An agent that is well formed and means ill."""
    path = request.url.path
    if "/hmmm/sessions/" in path:
        if path.endswith("/events"):
            told = [{"id": "1", "event": kind, "data": SAID} for kind in SAID_KINDS[:-1]]
            told.append({"id": "end", "event": "end", "data": DISCUSSION})
            return httpx.Response(200, stream=httpx.ByteStream(sse(told)))
        said: Any = SAID if request.method == "POST" else DISCUSSION
        return httpx.Response(200, content=orjson.dumps(said))
    if path.endswith("/events"):
        return httpx.Response(200, stream=httpx.ByteStream(sse(STREAMED)))
    if path.endswith("/log/verify"):
        end = {"genuine": False, "checked": 1, "error": {"message": EVIL}, "length": 1, "peer_id": EVIL}
        return httpx.Response(200, stream=httpx.ByteStream(sse([{"id": "1", "event": "end", "data": end}])))
    if path.endswith("/subscribe"):
        events = [
            {"id": "1", "event": "version", "data": VERSION},
            {"id": "2", "event": "end", "data": VERSION},
        ]
        return httpx.Response(200, stream=httpx.ByteStream(sse(events)))
    if path.endswith("/artifacts/patch.diff"):
        return httpx.Response(200, stream=httpx.ByteStream(PATCH))
    if path.endswith("/logs"):
        return httpx.Response(200, stream=httpx.ByteStream(RAW_OUTPUT))
    if path.endswith("/status"):
        answer: Any = {"response": {"data": STATUS}} if path.startswith("/ucxi/") else STATUS
    elif path.startswith("/ucxi/v1/query"):
        answer = {"response": {"data": {"items": [VERSION], "next": None}}}
    elif path.startswith("/ucxi/"):
        answer = {"response": {"data": VERSION}}
    elif path.endswith("/election"):
        answer = ELECTION
    elif path.endswith("/transfer"):
        answer = {"to": EVIL}
    elif path.endswith("/reload"):
        answer = {"changed": [EVIL], "kept": [EVIL], "refused": [EVIL], "error": EVIL}
    elif path.endswith("/recovery"):
        answer = RECOVERY
    elif path.endswith("/votes"):
        answer = BALLOT
    elif path.endswith("/log"):
        answer = {"items": [ROW], "next": None, "length": 1}
    elif path.count("/") == 4 and "decisions" in path:
        answer = {"not": "a record", "title": EVIL}
    elif path.count("/") >= 4 and not path.endswith(("/artifacts", "/hmmm/sessions")):
        answer = ROW
    else:
        answer = {"items": [ROW], "next": None}
    return httpx.Response(200, content=orjson.dumps(answer))


def refusing(status: int, form: str) -> Callable[[httpx.Request], httpx.Response]:
    problem = {"detail": EVIL, "errors": [{"field": EVIL, "message": EVIL}]}
    refusal = {"error": {"message": EVIL, "code": EVIL}}
    content = {"problem": orjson.dumps(problem), "ucxi": orjson.dumps(refusal), "junk": RAW_OUTPUT}[form]
    return lambda request: httpx.Response(status, content=content)


ASKING = [
    ["tasks"], ["task", TASK], ["logs", TASK], ["logs", "-f", TASK], ["cancel", TASK], ["rm", TASK],
    ["retry", TASK],
    ["wait", TASK], ["artifacts", TASK], ["artifacts", TASK, "-o", "out"], ["status"], ["agents"], ["peers"],
    ["members"], ["members", "--all"], ["members", "remove", "x", "--yes"], ["members", "rejoin", "--yes"],
    ["members", "recover", "--yes"], ["members", "recover", "--yes", "--force"],
    ["reload"], ["election"], ["election", "transfer"], ["election", "transfer", "x"],
    ["log"], ["log", "--verify"], ["decisions"], ["decisions", "--graph", "dot"],
    ["decisions", "--graph", "json"], ["decision", "show", HASH], ["decision", "verify", HASH],
    ["decision", "verify", "--all"], ["vote", HASH], ["vote", HASH, "approve"], ["ucxl", "query"],
    ["ucxl", "history", "ucxl://a:b@c:d/*^/e"], ["ucxl", "tree"], ["ucxl", "follow"],
    ["ucxl", "put", "ucxl://a:b@c:d/*^/e", "/dev/null"], ["run", "--", "true"],
    ["ask", "x"], ["ask", "x", "--detach"], ["ask", "x", "--continue", TASK], ["say", TASK, "x"],
    ["show", TASK],
    ["hmmm"], ["hmmm", "show", TASK], ["hmmm", "follow", TASK], ["hmmm", "say", TASK, "hello"],
]  # fmt: skip
# They ask no agent, or print what is meant to be exact; each has tests of its own.
OTHERS = {"up", "down", "doctor", "scan", "completion", "token", "config", "dev", "images"}


@pytest.fixture
def agent(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[Any], None]:
    """Makes chorusctl ask an agent that answers so."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CHORUS_API_URL", "http://agent")
    monkeypatch.setenv("CHORUS_API_TOKEN", "t")
    for module in ("follow", "members"):
        monkeypatch.setattr(f"chorus.ctl.{module}.GIVE_UP_S", 0.0)
        monkeypatch.setattr(f"chorus.ctl.{module}.PAUSE_FIRST_S", 0.001)
    real = httpx.Client

    def use(answers: Any) -> None:
        monkeypatch.setattr(
            client_module.httpx, "Client", lambda **_: real(transport=httpx.MockTransport(answers))
        )

    return use


def assert_harmless(text: str) -> None:
    found = {char for char in text if unicodedata.category(char)[0] in "CZ" and char not in " \n\xa0"}
    assert not found, f"{sorted(map(ascii, found))} in {text[:400]!r}"


@pytest.mark.parametrize("command", ASKING, ids=" ".join)
@pytest.mark.parametrize("as_json", [False, True], ids=["text", "json"])
def test_no_command_prints_a_control_character(
    agent: Callable[[Any], None], capfd: pytest.CaptureFixture[str], command: list[str], as_json: bool
) -> None:
    agent(hostile)
    main([command[0], "--json", *command[1:]] if as_json else command)
    out, err = capfd.readouterr()
    assert_harmless(out)
    assert_harmless(err)
    assert "Traceback" not in err
    if as_json and command[0] != "logs" and "dot" not in command:
        for line in out.splitlines():
            json.loads(line)


@pytest.mark.parametrize("form", ["problem", "ucxi", "junk"])
@pytest.mark.parametrize("status", [400, 503])
@pytest.mark.parametrize("command", ASKING, ids=" ".join)
def test_no_refusal_prints_a_control_character(
    agent: Callable[[Any], None],
    capfd: pytest.CaptureFixture[str],
    command: list[str],
    status: int,
    form: str,
) -> None:
    agent(refusing(status, form))
    assert main(command) != 0
    out, err = capfd.readouterr()
    assert_harmless(out + err)
    assert "Traceback" not in err
    # What an agent quotes begins no line of its own.
    assert not [line for line in err.splitlines() if line == "chorusctl: all is well"]


def test_a_hash_that_is_none_is_not_asked_for(
    agent: Callable[[Any], None], capfd: pytest.CaptureFixture[str]
) -> None:
    page = orjson.dumps({"items": [{**ROW, "hash": EVIL}], "next": None})
    agent(lambda request: httpx.Response(200, content=page))
    for command in (["decisions", "--graph", "dot"], ["decision", "verify", "--all"]):
        assert main(command) == 1
        out, err = capfd.readouterr()
        assert_harmless(out + err)
        assert "hash" in err


def test_answers_that_are_no_json_end_with_a_sentence(
    agent: Callable[[Any], None], capfd: pytest.CaptureFixture[str]
) -> None:
    for content in (b"", b"{", b"NaN", b"\xff", b"[" * 100_000):
        agent(lambda request, content=content: httpx.Response(200, content=content))
        assert main(["tasks"]) == 125
        assert "did not answer in JSON" in capfd.readouterr().err


def test_every_command_is_tried() -> None:
    from chorus.ctl.cli import build_parser
    from chorus.ctl.completion import _commands

    assert {command[0] for command in ASKING} | OTHERS == set(_commands(build_parser()))


def test_the_output_of_a_run_is_exact(
    agent: Callable[[Any], None], capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    data = {"stream": "stdout", "base64": base64.b64encode(RAW_OUTPUT).decode()}
    error = {"stream": "stderr", "text": EVIL}
    events = [
        {"id": "1-1", "event": "output", "data": data},
        {"id": "1-2", "event": "output", "data": error},
        {"id": "1-3", "event": "end", "data": {"state": "completed", "exit_code": 3, "ended_by": "exit"}},
    ]

    def answer(request: httpx.Request) -> httpx.Response:
        if request.method == "POST":
            return httpx.Response(201, content=b"{}")
        return httpx.Response(200, stream=httpx.ByteStream(sse(events)))

    agent(answer)
    assert main(["run", "--", "true"]) == 3
    assert capfdbinary.readouterr() == (RAW_OUTPUT, EVIL.encode())


def test_logs_are_exact_only_when_asked(
    agent: Callable[[Any], None], capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    agent(hostile)
    assert main(["logs", "--raw", TASK]) == 0
    assert capfdbinary.readouterr().out == RAW_OUTPUT
    assert main(["logs", TASK]) == 0
    out = capfdbinary.readouterr().out.decode()
    assert "\\x1b]0;owned\\x07" in out
    assert out.endswith("b\n\\r")
    assert_harmless(out)


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_output_is_the_same_at_every_cut(capfd: pytest.CaptureFixture[str], size: int) -> None:
    text = "é€😀 one\r\ntwo\rthree\x1b[0m\n".encode() + b"\xff"
    shown = terminal.Output()
    for start in range(0, len(text), size):
        shown.push(text[start : start + size])
    shown.push(b"", end=True)
    assert capfd.readouterr().out == "é€😀 one\ntwo\\rthree\\x1b[0m\n\\xff"


def test_scan_names_files_of_others(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    name = "\x1b[2J\n\u202e".encode() + b"\xff"
    (tmp_path / os.fsdecode(name)).write_bytes(b"key = AKIAZ5GMHYJKLMNOPQRS\n")
    for more in ([], ["--json"]):
        assert main(["scan", str(tmp_path), *more]) == 1
        out, err = capfd.readouterr()
        assert_harmless(out + err)
        assert "aws" in out, err


def test_visible_keeps_what_people_write() -> None:
    for text in ("Grüße", "日本語　スペース", "שלום", "no\xa0break", "[red]", "a\\b", "😀\ufe0f"):
        assert visible(text) == text
    assert visible("a\nb", lines=True) == "a\nb"
    assert visible("\ud800\x1b\u202e") == "\\ud800\\x1b\\u202e"


def test_json_means_the_same() -> None:
    value = {"a": EVIL, EVIL: [1, 1.5, None, True, "\U000e0041", "\ud800"]}
    text = visible_json(value)
    assert_harmless(text)
    assert json.loads(text) == value


def test_nothing_prints_but_the_terminal() -> None:
    wrong = []
    for path in sorted(Path(ctl.__file__).parent.glob("*.py")):
        if path.name == "terminal.py":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                if called == "print" or (called.startswith("sys.std") and called.endswith("write")):
                    wrong.append(f"{path.name}:{node.lineno}: {called}")
    assert wrong == []
