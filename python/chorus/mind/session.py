"""The executor's service `session` as the loop uses it: an attempt's journal, and the calls in its sandbox.

What may pass (the executor or the hub is being restarted) is waited for and asked again: every method is safe
to repeat.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any, Final

import orjson

from chorus.hub import (
    Hub,
    HubClosed,
    HubError,
    HubInternal,
    HubNotFound,
    HubNotPermitted,
    HubTimeout,
    HubUnavailable,
    Reply,
)

# Errors that may be over at the next try.
PASSING: Final = (HubUnavailable, HubTimeout, HubClosed)
# A call that makes the executor itself fail is given up; the model may try another.
_INTERNAL_TRIES: Final = 5
_FIRST_WAIT_S: Final = 0.1
_LAST_WAIT_S: Final = 5.0
_JOURNAL_TIMEOUT_S: Final = 30.0
# Beyond the time that the task has: the executor ends it then, and says so.
_GRACE_S: Final = 60.0

Sleep = Callable[[float], Awaitable[None]]


class RunOver(Exception):
    """The attempt is not running here any more."""


class CallRefused(Exception):
    """The executor does not take a call; the text says why."""


class Waits:
    """Growing waits between tries, with jitter."""

    def __init__(self, first_s: float = _FIRST_WAIT_S, last_s: float = _LAST_WAIT_S) -> None:
        self._first_s, self._last_s = first_s, last_s
        self.tries = 0

    def next_s(self) -> float:
        """How long to wait now."""
        wait = min(self._last_s, self._first_s * 2 ** min(self.tries, 16))
        self.tries += 1
        return float(wait * random.uniform(0.75, 1.25))


class Session:
    """One attempt's session. Every method raises RunOver when the attempt has ended."""

    def __init__(
        self, hub: Hub, task_id: str, attempt: int, secret: str, sleep: Sleep = asyncio.sleep
    ) -> None:
        self._hub = hub
        self._head = {"task_id": task_id, "attempt": attempt, "secret": secret}
        self._sleep = sleep
        self._next = 1

    async def pull(self) -> list[dict[str, Any]]:
        """The records that came into the journal since the last time."""
        records: list[dict[str, Any]] = []
        while True:
            reply = await self._ask("journal", {"from": self._next}, b"", _JOURNAL_TIMEOUT_S)
            page = orjson.loads(reply.payload) if reply.payload else []
            records += [record for record in page if isinstance(record, dict)]
            following = int(reply.head.get("next") or self._next)
            if following <= self._next:
                return records
            self._next = following
            if following > int(reply.head.get("last") or 0):
                return records

    async def append(self, record: dict[str, Any]) -> None:
        """Has a record of kind `reply`, `note` or `plan` journaled; repeating it changes nothing."""
        await self._ask("journal", {"append": True}, orjson.dumps(record), _JOURNAL_TIMEOUT_S)

    async def call(
        self, step: int, call: int, tool: str, arguments: dict[str, Any], left_s: float
    ) -> dict[str, Any]:
        """Does a call and returns its outcome, as the journal has it. A repeat answers the same outcome.

        Raises CallRefused when the executor does not take it.
        """
        head, payload = _divided(tool, arguments)
        named = {"step": step, "call": call, **head}
        reply = await self._ask(tool, named, payload, max(left_s, 0) + _GRACE_S, _INTERNAL_TRIES)
        return _outcome(step, call, reply.head, reply.payload.decode("utf-8", "replace"))

    async def finish(
        self, step: int, call: int, ended_by: str, text: str, left_s: float, *, refused: bool = False
    ) -> dict[str, Any]:
        """Ends the run; the outcome is `ok` if that was accepted, and has what the model is to be told.

        `refused`: another attempt would end the same, also one that had no step yet.
        """
        word = "summary" if ended_by == "finished" else "reason"
        head = {"step": step, "call": call, "ended_by": ended_by, word: text}
        if refused:
            head["refused"] = True
        reply = await self._ask("finish", head, b"", max(left_s, 0) + _GRACE_S)
        told = orjson.loads(reply.payload) if reply.payload else {}
        text = str(told.get("text") or "") if isinstance(told, dict) else ""
        return _outcome(step, call, {"ok": reply.head.get("accepted") is True}, text)

    async def _ask(
        self, method: str, head: dict[str, Any], payload: bytes, timeout_s: float, internal_tries: int = 0
    ) -> Reply:
        waits = Waits()
        while True:
            try:
                return await self._hub.call_service(
                    "session", method, {**self._head, **head}, payload, timeout_s
                )
            except (HubNotFound, HubNotPermitted) as error:
                raise RunOver(str(error)) from None
            except PASSING:
                pass
            except HubInternal as error:
                # Of the journal's disk the executor itself makes an end, when it has to.
                if internal_tries and waits.tries >= internal_tries:
                    raise CallRefused(str(error)) from None
            except HubError as error:
                raise CallRefused(str(error)) from None
            await self._sleep(waits.next_s())


def _divided(tool: str, arguments: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
    """Head and payload of a call: large texts travel as payload."""
    if tool == "write":
        return {"path": arguments["path"]}, arguments["text"].encode("utf-8", "replace")
    if tool == "edit":
        return {"path": arguments["path"]}, orjson.dumps({key: arguments[key] for key in ("old", "new")})
    return arguments, b""


def _outcome(step: int, call: int, said: dict[str, Any], text: str) -> dict[str, Any]:
    record = {"kind": "outcome", "step": step, "call": call, "ok": said.get("ok") is True, "text": text}
    return record | {name: said[name] for name in ("exit_code", "timed_out", "duration_s") if name in said}
