"""The service `session`: what the process `mind` works on a goal through. For it alone, never for peers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, Literal

import orjson

from chorus.executor.goal import tools
from chorus.executor.goal.records import CALLS_MAX, RecordInvalid
from chorus.executor.goal.run import GoalRun
from chorus.hub import HubInvalid, HubNotFound, HubNotPermitted, Reply, Request, disk_error
from chorus.wire.ids import is_id
from chorus.wire.task import BUDGET_STEPS_MAX

MESSAGE_CHARS_MAX: Final = 4096
_NAME: Final = re.compile(r"[^\x00-\x1f\x7f]{0,64}")
# Of a head: everything else is an argument of the tool.
_NAMED: Final = frozenset({"task_id", "attempt", "secret", "step", "call"})

Goals = dict[tuple[str, int], GoalRun]


class SessionService:
    """Answers for the goals that run here."""

    def __init__(self, goals: Goals) -> None:
        self._goals = goals

    async def handle(self, request: Request) -> Reply:
        """`journal` reads and appends records, `finish` ends the run, and each tool is a method."""
        if request.peer is not None:
            raise HubNotPermitted("this service is for processes of the same agent")
        goal = self._goal(request.head)
        if not goal.permits(request.head.get("secret")):
            raise HubNotPermitted("the secret is not this attempt's")
        head, method = request.head, request.method
        try:
            if method == "journal":
                return goal.append(request.payload) if head.get("append") is True else goal.read(head)
            if method == "finish":
                return await goal.finish(*_numbers(head, first=0), head)
            if method in tools.NAMES:
                step, call = _numbers(head, first=1)
                return await goal.call(method, step, call, _arguments(method, head, request.payload))
        except RecordInvalid as error:
            raise HubInvalid(str(error)) from None
        except OSError as error:
            raise disk_error(f"the journal was not written: {error.strerror or error}") from error
        raise HubInvalid(f"session has no method {method!r}")

    def message(self, head: Mapping[str, Any], by: Literal["person", "peer"]) -> dict[str, Any]:
        """`message` {task_id, attempt, id, text, name}: words for a goal, journaled on return."""
        goal = self._goal(head)
        id, text, name = head.get("id"), head.get("text"), head.get("name", "")
        if not isinstance(id, str) or not 0 < len(id) <= 64:
            raise HubInvalid("id: a text of at most 64 characters is needed")
        if not isinstance(text, str) or not 0 < len(text) <= MESSAGE_CHARS_MAX or not text.strip():
            raise HubInvalid(f"text: 1 to {MESSAGE_CHARS_MAX} characters are needed")
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise HubInvalid("name: at most 64 characters, none of them a control character")
        try:
            return {"n": goal.message(id, by, name, text)}
        except OSError as error:
            raise disk_error(f"the message was not written: {error.strerror or error}") from error

    def _goal(self, head: Mapping[str, Any]) -> GoalRun:
        task_id, attempt = head.get("task_id"), head.get("attempt")
        if not is_id(task_id) or type(attempt) is not int:
            raise HubInvalid("task_id and attempt name an attempt")
        goal = self._goals.get((str(task_id), attempt))
        if goal is None:
            raise HubNotFound("no such goal runs here")
        return goal


def _numbers(head: Mapping[str, Any], *, first: int) -> tuple[int, int]:
    step, call = head.get("step"), head.get("call")
    if type(step) is not int or not first <= step <= BUDGET_STEPS_MAX:
        raise HubInvalid(f"step: a number from {first} to {BUDGET_STEPS_MAX} is needed")
    if type(call) is not int or not first <= call <= CALLS_MAX:
        raise HubInvalid(f"call: a number from {first} to {CALLS_MAX} is needed")
    return step, call


def _arguments(method: str, head: Mapping[str, Any], payload: bytes) -> dict[str, Any]:
    arguments = {name: value for name, value in head.items() if name not in _NAMED}
    if method == "write":
        try:
            arguments["text"] = payload.decode()
        except UnicodeDecodeError:
            raise HubInvalid("the payload of write is no UTF-8") from None
    elif method == "edit" and payload:
        try:
            said = orjson.loads(payload)
        except orjson.JSONDecodeError:
            said = None
        if not isinstance(said, dict):
            raise HubInvalid('the payload of edit is {"old", "new"}')
        arguments |= {name: said.get(name) for name in ("old", "new")}
    return arguments
