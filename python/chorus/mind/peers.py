"""Talk with other agents about a run, through the coordinator's HMMM methods.

A run never fails for want of talk: what cannot be had raises NoTalk, and the loop goes on without it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import orjson

from chorus.hub import Hub, HubError, HubInternal
from chorus.mind.run.records import WORDS_MAX_BYTES, bounded, items_of, text_of
from chorus.mind.session import PASSING, Sleep, Waits

_TIMEOUT_S: Final = 10.0
# One wait for the end of a discussion; then it is asked for again.
_RESULT_WAIT_S: Final = 20.0
# The coordinator answers a question for help within a minute.
_HELP_TIMEOUT_S: Final = 75.0
# A coordinator that is being restarted is back within this.
_AWAY_MAX_S: Final = 20.0
_WORDS_MAX: Final = 16


class NoTalk(Exception):
    """Other agents cannot be asked now; the text says why."""


@dataclass(frozen=True, slots=True)
class Talk:
    """What came of a discussion. `plan` is the owner's last one, `address` that of its record or ""."""

    outcome: str
    plan: str
    session: str
    said: tuple[dict[str, str], ...]
    address: str = ""


class Peers:
    """Other agents, as one attempt asks them."""

    def __init__(
        self,
        hub: Hub,
        task_id: str,
        attempt: int,
        clock: Callable[[], float],
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self._hub = hub
        self._named = {"task_id": task_id, "attempt": attempt}
        self._clock = clock
        self._sleep = sleep

    async def audience(self) -> int:
        """How many could answer a plan."""
        head = await self._ask("audience", self._named, _TIMEOUT_S)
        members = head.get("members")
        return members if isinstance(members, int) else 0

    async def discuss(self, plan: str, title: str, goal: str, project: str, wait_s: float) -> Talk:
        """Talks the plan over; the outcome is "timeout" when that took longer than `wait_s`."""
        until = self._clock() + wait_s
        about = {"title": title, "goal": goal, "project": project, "plan": plan}
        session = text_of(await self._ask("open", {**self._named, **about}, _TIMEOUT_S), "session_id")
        while True:
            left = until - self._clock()
            wait = min(_RESULT_WAIT_S, max(left, 0.0))
            head = await self._ask(
                "result", {"session_id": session, "wait_s": wait}, _RESULT_WAIT_S + _TIMEOUT_S
            )
            over = head.get("over") is True
            if over or left <= 0:
                outcome = text_of(head, "outcome") if over else "timeout"
                said = _words(items_of(head, "said"))
                return Talk(outcome, text_of(head, "plan") or plan, session, said, text_of(head, "address"))
            if wait < 1:
                await self._sleep(wait)

    async def help(self, question: str, id: str) -> tuple[dict[str, str], ...]:
        """What others advise; the same `id` is the same question."""
        head = await self._ask("help", {**self._named, "question": question, "id": id}, _HELP_TIMEOUT_S)
        return _words(items_of(head, "advice"))

    async def _ask(self, method: str, head: dict[str, Any], timeout_s: float) -> dict[str, Any]:
        waits, began = Waits(), self._clock()
        while True:
            try:
                reply = await self._hub.call_service("coordinator", f"hmmm.{method}", head, b"", timeout_s)
            except (*PASSING, HubInternal) as error:
                if self._clock() - began >= _AWAY_MAX_S:
                    raise NoTalk(str(error)) from None
            except HubError as error:
                raise NoTalk(str(error)) from None
            else:
                return {**_object(reply.payload), **reply.head}
            await self._sleep(waits.next_s())


def _object(payload: bytes) -> dict[str, Any]:
    """A payload that has the large part of an answer."""
    try:
        said = orjson.loads(payload) if payload else {}
    except orjson.JSONDecodeError:
        return {}
    return said if isinstance(said, dict) else {}


def _words(said: list[Any]) -> tuple[dict[str, str], ...]:
    fields = ("from", "name", "intent", "message")
    words = [one for one in said if isinstance(one, dict)]
    return tuple(
        {key: bounded(text_of(one, key), WORDS_MAX_BYTES) for key in fields if text_of(one, key)}
        for one in words[:_WORDS_MAX]
    )
