"""`chorusctl ask` and `say` against a stand-in for the API: what is sent, shown, applied, returned."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from chorus.ctl import client as client_module
from chorus.ctl import talk as talk_module
from chorus.ctl import told
from chorus.ctl.cli import build_parser, main

TASK = "01J00000000000000000000001"
PATCH = b"""diff --git a/a.py b/a.py
--- a/a.py
+++ b/a.py
@@ -1 +1,2 @@
-one
+two
+three
"""
STEPS: list[tuple[str, dict[str, Any]]] = [
    ("state", {"state": "running", "reason": ""}),
    ("step", {"step": 0, "plan": {"text": "first look, then change"}}),
    ("step", {"step": 1, "reply": {"text": "I run the tests.", "tokens_in": 900, "tokens_out": 100}}),
    ("step", {"step": 1, "call": {"call": 1, "tool": "run", "arguments": {"command": "pytest -q"}}}),
    ("step", {"step": 1, "outcome": {"call": 1, "ok": True, "exit_code": 1, "text": "x\n1 failed"}}),
    ("message", {"from": "person", "name": "Ada", "text": "mind the order"}),
]
# As `GET /api/v1/hmmm/sessions/{id}` has it.
TALK = [
    {"n": 1, "kind": "message", "message_id": "m1", "from": {"agent_id": "a", "role": ""},
     "intent": "proposal", "message": "so"},
    {"n": 2, "kind": "message", "message_id": "m2", "from": {"agent_id": "b", "role": "r"},
     "intent": "objection", "message": "why?"},
    {"n": 3, "kind": "help", "request_id": "h1", "from": {"agent_id": "a"}, "question": "how?"},
    {"n": 4, "kind": "message", "message_id": "m3", "from": {"agent_id": "b", "person": "Ada"},
     "intent": "answer", "message": "yes"},
    {"n": 5, "kind": "advice", "request_id": "h1", "from": {"agent_id": "c"}, "message": "thus"},
    {"n": 6, "kind": "alert", "alert_id": "l1", "rule": "security", "reason": "both change auth"},
    {"n": 7, "kind": "record", "hash": "0" * 64, "outcome": "agreed"},
]  # fmt: skip


def report(**changes: Any) -> dict[str, Any]:
    patch = {"sha256": hashlib.sha256(PATCH).hexdigest(), "size": len(PATCH), "files": 1, "left_out": []}
    return {
        "provider": "ollama", "model": "m", "steps": 3, "calls": 4, "tokens_in": 900, "tokens_out": 100,
        "usd": 0.25, "model_s": 1.5, "unchecked": False, "patch": patch,
        "checks": [{"command": "pytest -q", "exit_code": 0, "duration_s": 1.25}], **changes,
    }  # fmt: skip


class Agent:
    """An agent that takes a goal and tells how it goes."""

    def __init__(self) -> None:
        self.end: dict[str, Any] = {"state": "completed", "reason": "", "ended_by": "finished"}
        self.goal: dict[str, Any] | None = report()
        self.patch = PATCH
        self.steps = STEPS
        self.commands: list[str] = []
        self.talk: list[dict[str, Any]] | None = None
        self.before: dict[str, Any] = {}
        self.bodies: list[bytes] = []
        self.said: list[tuple[str, str, Any]] = []
        # What happens while the goal runs.
        self.meanwhile: Callable[[], object] = lambda: None

    def __call__(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path
        if request.method == "POST":
            if path == "/api/v1/tasks":
                self.bodies.append(request.read())
                return httpx.Response(201, json={"task_id": TASK, "state": "announced"})
            self.said.append((request.url.host, path, json.loads(request.read())))
            return httpx.Response(202, json={"id": self.said[-1][2].get("id")})
        if "/hmmm/sessions" in path:
            return self.discussion(path, dict(request.url.params))
        if path.endswith("/events"):
            self.meanwhile()
            return httpx.Response(200, stream=httpx.ByteStream(self.events()))
        if path.endswith("/artifacts/patch.diff"):
            return httpx.Response(200, stream=httpx.ByteStream(self.patch))
        if self.bodies:
            result = {"goal": self.goal, "ended_by": self.end["ended_by"], "decision": "ucxl://a:b@c:d/*^/e"}
            shown = {
                "task_id": TASK,
                "commands": self.commands,
                "title": "t",
                "agent_id": "b",
                "attempt": 1,
                **self.end,
            }
            return httpx.Response(200, json={**shown, "result": result})
        return httpx.Response(200, json=self.before)

    def discussion(self, path: str, asked: dict[str, str]) -> httpx.Response:
        """As the routes of chorus.api.hmmm answer."""
        if self.talk is None:
            return httpx.Response(404, json={"detail": "there is nothing"})
        if path.endswith("/sessions"):
            mine = self.task["task_id"] if self.bodies else TASK
            listed = [{"session_id": "s1", "task_id": mine}, {"session_id": "s2", "task_id": "0" * 26}]
            found = [row for row in listed if asked.get("task_id") in (None, row["task_id"])]
            return httpx.Response(200, json={"items": found, "next": None})
        other = [{"n": 1, "kind": "message", "from": {"agent_id": "z"}, "message": "of another goal"}]
        items = self.talk if path.endswith("/s1") else other
        return httpx.Response(200, json={"session_id": path[-2:], "items": items})

    def events(self) -> bytes:
        events = [*self.steps, ("end", self.end)]
        return b"".join(
            b"id: 1-%d\nevent: %s\ndata: %s\n\n" % (number, name.encode(), orjson.dumps(data))
            for number, (name, data) in enumerate(events, 1)
        )

    @property
    def task(self) -> dict[str, Any]:
        """The task as it was sent."""
        body = self.bodies[-1]
        if body.startswith(b"{"):
            return json.loads(body)
        start = body.index(b"\r\n\r\n", body.index(b'name="task"')) + 4
        return json.loads(body[start : body.index(b"\r\n--", start)])

    @property
    def files(self) -> list[str]:
        body = self.bodies[-1]
        start = body.index(b"\r\n\r\n", body.index(b'name="source"')) + 4
        with tarfile.open(fileobj=io.BytesIO(body[start:])) as archive:
            return archive.getnames()


@pytest.fixture
def agent(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Agent:
    made = Agent()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "a.py").write_text("one\n")
    monkeypatch.setenv("CHORUS_API_URL", "http://agent")
    monkeypatch.setenv("CHORUS_API_TOKEN", "t")
    real = httpx.Client
    monkeypatch.setattr(client_module.httpx, "Client", lambda **_: real(transport=httpx.MockTransport(made)))
    monkeypatch.setattr("chorus.ctl.endings.CANCEL_TRIES_S", 0.0)
    return made


def test_the_goal_is_sent_with_what_was_asked_for(agent: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN", "s3cret")
    words = (
        "ask|make it so\nand well|--dir|work|--check|pytest -q|--check|ruff check|--setup|make"
        "|--protect|tests/**|--language|python|--artifact|out.txt|--env|A=b|--secret|TOKEN|--model|m|--local-model|--steps|7"
        "|--tokens|1000|--usd|0.5|--timeout|60|--memory|2GB|--project|p"
    )
    assert main(words.split("|")) == 0
    task = agent.task
    assert len(task.pop("task_id")) == 26
    assert task == {
        "title": "make it so", "description": "make it so\nand well", "checks": ["pytest -q", "ruff check"],
        "setup": ["make"], "protected": ["tests/**"], "language": "python", "artifacts": ["out.txt"],
        "env": {"A": "b"}, "secrets": {"TOKEN": "s3cret"}, "required_model": "m", "local_model": True,
        "budget": {"steps": 7, "tokens": 1000, "usd": 0.5}, "timeout_s": 60.0,
        "resources": {"memory_mb": 2048}, "project": "p",
    }  # fmt: skip
    assert agent.files == ["a.py"]


def test_little_is_sent_when_little_is_said(agent: Agent) -> None:
    assert main(["ask", "x" * 300]) == 0
    task = agent.task
    assert task.keys() == {"task_id", "title", "description"}
    assert (len(task["title"]), task["title"][-1], len(task["description"])) == (200, "…", 300)


def test_what_a_run_tells_is_shown_line_by_line(agent: Agent, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ask", "x"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "running",
        "plan: first look, then change",
        "step 1: I run the tests.",
        "step 1: run pytest -q",
        "  x",
        "  1 failed",
        "  exit code 1",
        "person Ada says: mind the order",
        "check passed (1.2 s): pytest -q",
        "model: m of ollama; steps: 3, 900 tokens read and 100 written, $0.2500",
        "patch: 1 file, +2 -1",
        "  M a.py +2 -1",
        "ended by: finished",
        "decision: ucxl://a:b@c:d/*^/e",
    ]


def checks(code: int) -> tuple[str, dict[str, Any]]:
    commands = [{"command": "pytest -q", "exit_code": code, "duration_s": 1.25}]
    return "step", {"step": 2, "checks": {"commands": commands, "passed": not code}}


def test_a_plan_and_checks_that_passed_are_shown_once() -> None:
    long = "look, " * 200
    settled = ("step", {"step": 0, "plan": {"text": f"{long[:500]}…", "outcome": "unanimous"}})
    proposed = {"kind": "message", "from": {"agent_id": "a"}, "intent": "proposal"}
    lines = told.Told()
    shown = [
        *lines.event("step", {"step": 0, "plan": {"text": "look"}}),
        *lines.talk({**proposed, "message": "look\n"}),
        *lines.talk({**proposed, "message": long}),
        *lines.event(*settled),
        *lines.event(*checks(0)),
        *lines.result({"state": "completed", "result": {"goal": report()}}, None),
    ]
    assert [line.text for line in shown[:2]] == ["plan: look", "a, proposal: the plan above"]
    assert shown[2].text.startswith("a, proposal: look, look")
    assert shown[3].text == "the plan is as above; discussion: unanimous"
    assert [line.text for line in shown if "check" in line.text] == ["check passed (1.2 s): pytest -q"]


def test_checks_that_failed_and_others_are_shown_at_the_end_again() -> None:
    failing = report(checks=checks(1)[1]["checks"]["commands"])
    for before, goal in ((checks(1), failing), (checks(1), report()), (checks(0), failing)):
        lines = told.Told()
        assert list(lines.event(*before))
        account = [line.text for line in lines.result({"result": {"goal": goal}}, None)]
        assert any("pytest -q" in line for line in account)


def test_ask_shows_a_plan_once(agent: Agent, capsys: pytest.CaptureFixture[str]) -> None:
    agent.steps = [*STEPS, *STEPS, checks(0)]
    assert main(["ask", "x"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for line in ("plan: first look, then change", "check passed (1.2 s): pytest -q"):
        assert lines.count(line) == 1


def test_the_discussion_is_shown_once(
    agent: Agent, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    agent.talk = TALK
    monkeypatch.setattr(talk_module, "LOOK_AGAIN_S", 0.001)
    monkeypatch.setattr(talk_module, "STOP_S", 60)
    assert main(["ask", "x"]) == 0
    lines = capsys.readouterr().out.splitlines()
    said = ["a, proposal: so", "b, objection: why?", "a, asks for help: how?", "Ada through b, answer: yes",
            "c, advises: thus", "alert, security: both change auth"]  # fmt: skip
    assert [line for line in lines if line in said] == said
    assert not any("of another goal" in line for line in lines)


def test_without_discussions_it_goes_on(agent: Agent) -> None:
    client = client_module.Client(client_module.Target((client_module.Endpoint("http://agent", "t"),)))
    told: list[Any] = []
    assert talk_module.Talk(client, TASK, told.append).look() is False
    agent.talk = []
    assert talk_module.Talk(client, TASK, told.append).look() is True
    assert told == []


def test_json_has_every_event_and_the_result(agent: Agent, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ask", "x", "--json", "--dir", "work"]) == 0
    said = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [event["event"] for event in said] == ["packed", *(name for name, _ in STEPS), "end", "result"]
    assert [event["id"] for event in said[1:3]] == ["1-1", "1-2"]
    assert said[-1]["data"]["result"]["goal"]["steps"] == 3


@pytest.mark.parametrize(
    ("state", "ended_by", "code"),
    [
        ("completed", "finished", 0),
        *(
            ("failed", how, 1)
            for how in ("setup", "checks", "steps", "tokens", "money", "stuck", "gave_up", "format", "model",
                        "out_of_memory", "disk")
        ),
        ("failed", "timeout", 124),
        ("failed", "daemon", 125),
        ("failed", None, 125),
        ("expired", None, 125),
        ("cancelled", "cancel", 130),
    ],
)  # fmt: skip
@pytest.mark.parametrize(
    "command",
    [["ask", "x"], ["ask", "x", "--json"], ["wait", TASK], ["wait", TASK, "--json"], ["show", TASK]],
)
def test_exit_codes_of_goals(
    agent: Agent,
    capsys: pytest.CaptureFixture[str],
    state: str,
    ended_by: str,
    code: int,
    command: list[str],
) -> None:
    agent.end = {"state": state, "reason": "why it is so", "ended_by": ended_by, "exit_code": None}
    agent.bodies.append(b"{}")  # it was submitted
    if command[0] == "show":
        # It follows nothing: what it shows is in what it says.
        assert main(command) == 0
        assert f"state    {state}: why it is so" in capsys.readouterr().out
        return
    assert main(command) == code
    if code:
        assert f"chorusctl: {state}: why it is so" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("end", "code"),
    [
        ({"state": "completed", "exit_code": 0, "ended_by": "exit"}, 0),
        ({"state": "completed", "exit_code": None, "ended_by": "finished"}, 0),
        ({"state": "failed", "exit_code": 3, "ended_by": "exit"}, 3),
        ({"state": "failed", "exit_code": 137, "ended_by": "timeout"}, 124),
        ({"state": "failed", "exit_code": None, "ended_by": "lost"}, 125),
        ({"state": "cancelled", "exit_code": None, "ended_by": "cancel"}, 130),
    ],
)
@pytest.mark.parametrize("command", [["run", "true"], ["run", "--json", "true"], ["wait", TASK]])
def test_exit_codes_of_commands(agent: Agent, end: dict[str, Any], code: int, command: list[str]) -> None:
    agent.end, agent.goal, agent.commands = {"reason": "", **end}, None, ["true"]
    agent.bodies.append(b"{}")  # it was submitted
    assert main(command) == code


def test_detached_it_says_the_id_and_is_not_cancelled(
    agent: Agent, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["ask", "x", "--detach"]) == 0
    assert capsys.readouterr().out.strip() == agent.task["task_id"]
    assert agent.said == []


def test_the_patch_is_applied_when_the_checks_passed(agent: Agent, tmp_path: Path) -> None:
    assert main(["ask", "x", "--dir", "work", "--apply"]) == 0
    assert (tmp_path / "work" / "a.py").read_text() == "two\nthree\n"
    assert list(tmp_path.glob("*.patch")) == []


def test_files_that_changed_meanwhile_are_left_alone(
    agent: Agent, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    agent.meanwhile = lambda: (tmp_path / "work" / "a.py").write_text("by hand\n")
    assert main(["ask", "x", "--dir", "work", "--apply"]) == 1
    assert (tmp_path / "work" / "a.py").read_text() == "by hand\n"
    err = capsys.readouterr().err
    assert "a.py changed since the folder was sent" in err
    assert f"git apply {TASK}.patch" in err
    assert (tmp_path / f"{TASK}.patch").read_bytes() == PATCH


@pytest.mark.parametrize("changes", [{"unchecked": True, "checks": []}, {"checks": []}, {"unchecked": True}])
def test_what_no_check_has_seen_is_applied_only_when_it_is_said(
    agent: Agent, tmp_path: Path, capsys: pytest.CaptureFixture[str], changes: dict[str, Any]
) -> None:
    agent.goal = report(**changes)
    assert main(["ask", "x", "--dir", "work", "--apply"]) == 1
    assert (tmp_path / "work" / "a.py").read_text() == "one\n"
    assert "--apply-unchecked" in capsys.readouterr().err
    assert main(["ask", "x", "--dir", "work", "--apply-unchecked"]) == 0
    assert (tmp_path / "work" / "a.py").read_text() == "two\nthree\n"


@pytest.mark.parametrize(("answer", "applied"), [("yes\n", True), ("no\n", False), ("", False)])
def test_on_a_terminal_it_asks(
    agent: Agent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: str, applied: bool
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    agent.goal = report(unchecked=True, checks=[])
    asked = Terminal()
    monkeypatch.setattr("sys.stdin", Terminal(answer))
    monkeypatch.setattr("sys.stderr", asked)
    assert main(["ask", "x", "--dir", "work", "--apply"]) == (0 if applied else 1)
    assert "Change work? yes or no:" in asked.getvalue()
    assert (tmp_path / "work" / "a.py").read_text() == ("two\nthree\n" if applied else "one\n")


def test_a_goal_that_failed_changes_nothing(
    agent: Agent, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    agent.end = {"state": "failed", "reason": "1 of 1 checks failed", "ended_by": "checks"}
    failing = [{"command": "pytest -q", "exit_code": 1, "duration_s": 1.0}]
    agent.goal = report(checks=failing)
    assert main(["ask", "x", "--dir", "work", "--apply"]) == 1
    assert (tmp_path / "work" / "a.py").read_text() == "one\n"
    said = capsys.readouterr()
    assert "check failed with exit code 1 (1.0 s): pytest -q" in said.out
    assert "nothing was changed, as the goal was not reached" in said.err


def test_a_goal_without_a_change_has_nothing_to_apply(
    agent: Agent, capsys: pytest.CaptureFixture[str]
) -> None:
    agent.goal = report(patch=None)
    assert main(["ask", "x", "--dir", "work", "--apply"]) == 0
    assert "there is nothing to change" in capsys.readouterr().err


def test_a_patch_that_is_another_is_not_applied(agent: Agent, tmp_path: Path) -> None:
    agent.patch = PATCH.replace(b"two", b"bad")
    assert main(["ask", "x", "--dir", "work", "--apply"]) == 125
    assert (tmp_path / "work" / "a.py").read_text() == "one\n"


def test_a_patch_that_cannot_be_had_keeps_nothing_else_from_being_shown(
    agent: Agent, capsys: pytest.CaptureFixture[str]
) -> None:
    agent.patch = b""
    assert main(["ask", "x"]) == 0
    said = capsys.readouterr()
    assert "check passed (1.2 s): pytest -q" in said.out
    assert "the patch arrived damaged" in said.err


def test_a_retry_of_a_goal_says_how_to_go_on_instead(
    agent: Agent, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for commands, said in (([], True), (["true"], False)):
        shown = {"state": "announced", "commands": commands}
        monkeypatch.setattr(client_module.Client, "post", lambda *_, shown=shown: shown)
        assert main(["retry", TASK]) == 0
        assert (f"--continue {TASK}" in capsys.readouterr().err) is said


def test_a_goal_goes_on_from_an_ended_one(agent: Agent) -> None:
    agent.before = {
        "task_id": TASK, "source": {"kind": "blob", "sha256": "0" * 64, "url": "", "files": {}},
        "checks": ["pytest -q"], "setup": [], "language": "python", "secrets": {"X": "sealed"},
        "budget": {"steps": 3}, "artifacts": ["out"], "timeout_s": 5,
    }  # fmt: skip
    assert main(["ask", "go on", "--continue", TASK, "--artifact", "other", "--steps", "9"]) == 0
    task = agent.task
    del task["task_id"]
    assert task == {
        "title": "go on", "description": "go on", "continues": TASK, "language": "python",
        "source": {"kind": "blob", "sha256": "0" * 64}, "checks": ["pytest -q"], "artifacts": ["other"],
        "budget": {"steps": 9},
    }  # fmt: skip
    agent.bodies.clear()
    assert main(["ask", "go on", "--continue", TASK, "--dir", "work"]) == 0
    assert "source" not in agent.task
    assert agent.files == ["a.py"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([" "], "what is to be reached?"),
        (["x", "--apply"], "--dir FOLDER"),
        (["x", "--apply-unchecked"], "--dir FOLDER"),
        (["x", "--dir", ".", "--apply", "--detach"], "--detach"),
        (["x", "--detach", "-o", "out"], "--detach"),
        (["x", "--env", "A"], "expected NAME=VALUE"),
    ],
)
def test_arguments_that_contradict_each_other(
    agent: Agent, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    assert main(["ask", *words]) == 2
    assert said in capsys.readouterr().err
    assert agent.bodies == []


@pytest.mark.parametrize("option", [["--steps", "0"], ["--tokens", "x"], ["--usd", "nan"], ["--usd", "-1"]])
def test_budgets_are_numbers_above_zero(option: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        build_parser().parse_args(["ask", "x", *option])
    assert f"argument {option[0]}" in capsys.readouterr().err


def test_the_end_of_the_command_cancels_the_goal(agent: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
    from chorus.ctl import attend
    from chorus.ctl.endings import Signalled

    cancelled: list[str] = []
    monkeypatch.setattr(attend.Canceller, "cancel", lambda beside: cancelled.append("asked") is None)

    def interrupt() -> None:
        if not cancelled:
            raise Signalled(2)

    agent.meanwhile = interrupt
    agent.end = {"state": "cancelled", "reason": "interrupted", "ended_by": "cancel"}
    assert main(["ask", "x"]) == 130
    assert cancelled == ["asked"]


def test_words_are_said_to_the_agent_that_runs_the_goal(
    agent: Agent, capsys: pytest.CaptureFixture[str]
) -> None:
    agent.before = {"agent_id": "b"}
    assert main(["say", TASK.lower(), "mind the order", "--name", "Ada"]) == 0
    [(host, path, body)] = agent.said
    assert (host, path) == ("agent", f"/api/v1/tasks/{TASK}/messages")
    assert len(body.pop("id")) == 26
    assert body == {"text": "mind the order", "name": "Ada"}
    assert "it is heard before the next step" in capsys.readouterr().out


def test_the_agent_that_runs_the_goal_is_asked_first() -> None:
    places = [client_module.Endpoint(f"http://{name}", "t", name) for name in "abc"]
    client = client_module.Client(client_module.Target(tuple(places)))
    client.prefer("c")
    assert [each.agent_id for each in client.endpoints] == ["c", "a", "b"]
    client.prefer(None)
    client.prefer("nobody")
    assert [each.agent_id for each in client.endpoints] == ["c", "a", "b"]


def test_a_task_is_shown_in_short(agent: Agent, capsys: pytest.CaptureFixture[str]) -> None:
    agent.bodies.append(b"{}")
    agent.goal = report(unchecked=True, checks=[])
    assert main(["show", TASK]) == 0
    out = capsys.readouterr().out
    assert "state    completed" in out
    assert "unchecked: there were no checks" in out
    assert f"patch: 1 file, {len(PATCH)} bytes" in out
    agent.goal = None
    assert main(["show", TASK]) == 0
