"""`chorusctl hmmm`: discussions listed, shown and followed, with one's own word in them."""

from __future__ import annotations

import json
from typing import Any

import httpx
import orjson
import pytest

from chorus.ctl import client as client_module
from chorus.ctl.cli import main

SESSION = "7YNTCPW6Z2V45Q2DZ940DC95GY"
TASK = "01J00000000000000000000001"
HEAD = {
    "session_id": SESSION, "task_id": TASK, "attempt": 1, "title": "mend it", "project": "p", "agent_id": "a",
    "participants": ["b", "c"], "state": "escalated", "outcome": None, "reason": "", "plan": "the plan",
    "opened_at": "2026-11-27T00:00:00.000Z", "ended_at": None, "record": None,
}  # fmt: skip
ITEMS = [
    {"n": 1, "kind": "message", "at": "t1", "message_id": "1" * 26, "from": {"agent_id": "a", "role": ""},
     "intent": "proposal", "message": "the plan\nin two\x1b[2J lines"},
    {"n": 2, "kind": "message", "at": "t2", "message_id": "2" * 26, "intent": "answer", "message": "do",
     "from": {"agent_id": "b", "role": "", "person": "ann"}},
    {"n": 3, "kind": "help", "at": "t3", "request_id": "3" * 26, "question": "how?",
     "from": {"agent_id": "a"}},
    {"n": 4, "kind": "alert", "at": "t4", "alert_id": "4" * 26, "rule": "security", "depends_on": [TASK],
     "reason": "both touch keys"},
]  # fmt: skip


class Agent:
    """Answers as an agent would."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, Any]] = []
        # Of one who reads along: how often that was said, and what there is to read each time.
        self.reads = 0
        self.pages: list[dict[str, Any]] = []

    def answer(self, request: httpx.Request) -> httpx.Response:
        body = orjson.loads(request.content) if request.content else dict(request.url.params)
        path = request.url.path.removeprefix("/api/v1/hmmm/sessions")
        self.asked.append((request.method, path, body))
        if request.url.path == "/api/v1/hmmm/reader":
            self.reads += 1
            if self.reads > len(self.pages) + 1:
                raise KeyboardInterrupt
            return httpx.Response(200, json={"for_s": 30})
        if request.method == "POST":
            return httpx.Response(201, json={**ITEMS[1], "message": body["message"]})
        if path.endswith("/events"):
            lines = [f"id: {i['n']}\nevent: {i['kind']}\ndata: {json.dumps(i)}\n\n" for i in ITEMS]
            text = "".join(lines) + f"id: end\nevent: end\ndata: {json.dumps(HEAD)}\n\n"
            return httpx.Response(200, stream=httpx.ByteStream(text.encode()))
        if path:
            said = self.pages[self.reads - 2] if self.pages else {}
            return httpx.Response(200, json={**HEAD, "items": ITEMS, **said})
        if self.pages:
            page = self.pages[self.reads - 2]
            return httpx.Response(200, json={"items": [{**HEAD, "state": page["state"]}], "next": None})
        return httpx.Response(200, json={"items": [HEAD], "next": None})


@pytest.fixture
def agent(monkeypatch: pytest.MonkeyPatch) -> Agent:
    monkeypatch.setenv("CHORUS_API_URL", "http://agent")
    monkeypatch.setenv("CHORUS_API_TOKEN", "t")
    made, real = Agent(), httpx.Client
    monkeypatch.setattr(
        client_module.httpx, "Client", lambda **_: real(transport=httpx.MockTransport(made.answer))
    )
    return made


@pytest.mark.parametrize("words", [["hmmm", "--task", TASK], ["hmmm", "list", "--task", TASK.lower()]])
def test_discussions_are_listed(agent: Agent, capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    assert main(words) == 0
    assert agent.asked == [("GET", "", {"task_id": TASK, "limit": "50"})]
    head, line = capsys.readouterr().out.splitlines()
    assert head.split() == ["session", "task", "agent", "state", "opened", "title"]
    assert line.split()[:4] == [SESSION, TASK, "a", "escalated"]


@pytest.mark.parametrize("verb", ["show", "follow"])
def test_a_discussion_is_read(agent: Agent, capsys: pytest.CaptureFixture[str], verb: str) -> None:
    assert main(["hmmm", verb, SESSION]) == 0
    out = capsys.readouterr().out
    assert f"t2  {'2' * 26}  ann through b  answer\n    do\n" in out
    assert "    the plan\n    in two\\x1b[2J lines\n" in out
    assert "asks for help\n    how?\n" in out
    assert f"security  with task {TASK}\n    both touch keys\n" in out
    assert "mend it" in out


def test_json_is_what_the_agent_said(agent: Agent, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["hmmm", "show", SESSION, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["items"] == ITEMS
    assert main(["hmmm", "follow", SESSION, "--json"]) == 0
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [event["event"] for event in events] == ["message", "message", "help", "alert", "end"]


def test_a_person_speaks(agent: Agent, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["hmmm", "say", SESSION, "go on", "--intent", "agreement", "--name", "ann"]) == 0
    path = f"/{SESSION}/messages"
    said = {"message": "go on", "name": "ann", "intent": "agreement"}
    assert agent.asked[-1] == ("POST", path, said)
    assert main(["hmmm", "say", SESSION, "no", "--name", "ann", "--to", "1" * 26, "--json"]) == 0
    assert agent.asked[-1] == ("POST", path, {"message": "no", "name": "ann", "parent_id": "1" * 26})


def test_what_is_no_discussions_id_is_said(agent: Agent, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["hmmm", "show", "x"])
    assert "26 letters and digits" in capsys.readouterr().err


def test_who_reads_along_says_so_and_is_told_each_thing_once(
    agent: Agent, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chorus.ctl.hmmm.LOOK_AGAIN_S", 0)
    agent.pages = [
        {"state": "open", "items": ITEMS[:1]},
        {"state": "open", "items": ITEMS[:2]},
        {"state": "concluded", "outcome": "answered", "items": ITEMS[:3]},
        {"state": "concluded", "outcome": "answered", "items": ITEMS[:3]},
    ]
    assert main(["hmmm", "follow"]) == 130
    out = capsys.readouterr().out
    assert [out.count(f"t{number}  ") for number in (1, 2, 3, 4)] == [1, 1, 1, 0]
    assert out.count("concluded: answered") == 1
    agent.reads = 0
    assert main(["hmmm", "follow", "--json"]) == 130
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [one["event"] for one in told] == ["message", "message", "help", "end"]


def test_what_was_over_before_is_not_told(agent: Agent, capsys: pytest.CaptureFixture[str]) -> None:
    agent.pages = [{"state": "concluded", "items": ITEMS}]
    assert main(["hmmm", "follow"]) == 130
    assert capsys.readouterr().out == ""
