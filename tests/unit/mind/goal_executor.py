"""Stand-ins for the executor's service `session`, over files in memory, and for a model with a script."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson
from goal_journal import BEGAN, reply, start

from chorus.executor.goal.records import read_record
from chorus.hub import HubInvalid, HubNotFound, HubNotPermitted, Reply, Request
from chorus.mind.thinking import Reply as ModelReply
from chorus.mind.thinking import ToolCall, ToolSpec, Turn

SECRET = "the-secret"
TASK_ID = "01JTASK"
PAGE_RECORDS = 3


class GoalExecutor:
    """One attempt of a goal: its journal, its files, and what was done how often."""

    def __init__(self, **of_start: Any) -> None:
        self.records: list[dict[str, Any]] = []
        self.files: dict[str, str] = {"sum.py": "return a - b"}
        self.done: list[tuple[int, int]] = []
        self.ended: str | None = None
        self.refused = False
        self.reason = ""
        # Called after each record that was written.
        self.written: Callable[[dict[str, Any]], None] = lambda record: None
        # Errors to answer with, one for each request.
        self.failing: list[Exception] = []
        self._calls: dict[tuple[int, int], asyncio.Task[Reply]] = {}
        if of_start is not None:
            self.write(start(**of_start))

    def write(self, record: dict[str, Any]) -> int:
        """Appends a record to the journal."""
        self.records.append({**record, "n": len(self.records) + 1, "at": BEGAN})
        self.written(self.records[-1])
        return len(self.records)

    def of(self, kind: str) -> list[dict[str, Any]]:
        """The records of one kind."""
        return [record for record in self.records if record["kind"] == kind]

    async def serve(self, request: Request) -> Reply | dict[str, Any]:
        """The handler of the service."""
        if self.failing:
            raise self.failing.pop(0)
        head = request.head
        if head["secret"] != SECRET:
            raise HubNotPermitted("another attempt's secret")
        if self.ended is not None or head["task_id"] != TASK_ID:
            raise HubNotFound("no such goal runs here")
        if request.method == "journal":
            return self._journal(head, request.payload)
        named = (head["step"], head["call"])
        if named not in self._calls:
            self._calls[named] = asyncio.create_task(self._do(request.method, head, request.payload))
        # Whoever asked may go away: the call goes on.
        return await asyncio.shield(self._calls[named])

    def _journal(self, head: dict[str, Any], payload: bytes) -> Reply | dict[str, Any]:
        if not head.get("append"):
            first = head["from"] - 1
            page = self.records[first : first + PAGE_RECORDS]
            said = {"next": first + len(page) + 1, "last": len(self.records)}
            return Reply(said, orjson.dumps(page))
        # As the executor itself takes them, and no others.
        record, named = read_record(payload)
        for known in self.records:
            if (known["kind"], known.get("step" if known["kind"] == "reply" else "id")) == named:
                return {"n": known["n"]}
        return {"n": self.write(record)}

    async def _do(self, method: str, head: dict[str, Any], payload: bytes) -> Reply:
        named = {"step": head["step"], "call": head["call"]}
        if method == "finish" and head["ended_by"] != "finished":
            self.ended, self.reason = head["ended_by"], head["reason"]
            self.refused = head.get("refused") is True
            return Reply({"accepted": True})
        arguments = {key: value for key, value in head.items() if key not in ("task_id", "attempt", "secret")}
        self.write({"kind": "call", **named, "tool": method, "arguments": arguments})
        await asyncio.sleep(0)
        self.done.append((head["step"], head["call"]))
        if method == "finish":
            return self._judge(named, head["summary"])
        ok, text, code = self._act(method, head, payload)
        said: dict[str, Any] = {"ok": ok, "duration_s": 0.1}
        if code is not None:
            said["exit_code"] = code
        self.write({"kind": "outcome", **named, **said, "text": text})
        return Reply(said, text.encode())

    def _act(self, method: str, head: dict[str, Any], payload: bytes) -> tuple[bool, str, int | None]:
        if method == "run":
            ok = head["command"] != "pytest" or self.mended
            return ok, f"ran {head['command']}: {'passed' if ok else 'failed'}", 0 if ok else 1
        if method == "read":
            return head["path"] in self.files, self.files.get(head["path"], "no such file"), None
        if method == "write":
            self.files[head["path"]] = payload.decode()
            return True, "", None
        if method == "edit":
            change = orjson.loads(payload)
            self.files[head["path"]] = self.files[head["path"]].replace(change["old"], change["new"])
            return True, "", None
        raise HubInvalid(f"{method} is not known here")

    @property
    def mended(self) -> bool:
        """Whether the goal is reached."""
        return self.files["sum.py"] == "return a + b"

    def _judge(self, named: dict[str, Any], summary: str) -> Reply:
        self.write({"kind": "checks", **named, "commands": [], "passed": self.mended})
        text = "" if self.mended else "pytest: 1 failed"
        self.write({"kind": "outcome", **named, "ok": self.mended, "text": text, "duration_s": 0.1})
        if self.mended:
            self.write({"kind": "end", "ended_by": "finished", "reason": summary})
            self.ended, self.reason = "finished", summary
        return Reply({"accepted": self.mended}, orjson.dumps({"text": text, "checks": [], "changed": True}))


@dataclass
class ScriptedModel:
    """Answers step n with the n-th reply; which step it is, the conversation says."""

    script: Sequence[ModelReply | Exception]
    size: int = 32768
    asked: list[Sequence[Turn]] = field(default_factory=list)
    plan: str = "1. read 2. mend"

    async def ask(
        self,
        turns: Sequence[Turn],
        tools: Sequence[ToolSpec],
        *,
        deadline_s: float,
        local_only: bool = False,
        on_text: Callable[[str], None] | None = None,
    ) -> ModelReply:
        await asyncio.sleep(0)
        self.asked.append(turns)
        if not tools:
            return reply(text=self.plan)
        step = sum(turn.role == "assistant" and turn.text != self.plan for turn in turns)
        said = self.script[step]
        if isinstance(said, Exception):
            raise said
        return said

    def window(self) -> int:
        return self.size

    def count(self, text: str) -> int:
        return len(text) // 4

    def calls_tools(self) -> bool:
        return True


def does(tool: str, **arguments: Any) -> ModelReply:
    """A reply with one call."""
    return reply(ToolCall(tool, arguments))


# Reads, tries to finish too early, mends in two calls, and finishes.
ORACLE = (
    reply(ToolCall("read", {"path": "sum.py"}), ToolCall("run", {"command": "pytest"})),
    does("finish", summary="it was fine"),
    reply(
        ToolCall("edit", {"path": "sum.py", "old": "-", "new": "+"}),
        ToolCall("run", {"command": "pytest"}),
        ToolCall("finish", {"summary": "mended the sum"}),
    ),
)
