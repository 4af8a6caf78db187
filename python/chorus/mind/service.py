"""The mind process: puts its parts together, offers its service to its siblings, starts and stops.

The executor asks it to drive goals, the coordinator for words in discussions, and the api for its health.
"""

from __future__ import annotations

import asyncio
import secrets
import sqlite3
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from chorus.hub import HubInvalid, HubUnavailable, Request, guard
from chorus.mind import words
from chorus.mind.accounting import Accounts
from chorus.mind.driving import Parts, drive
from chorus.mind.kept_calls import KeptCalls
from chorus.mind.models import Models
from chorus.mind.role_prompts import RolePrompts
from chorus.mind.thinking import ModelAway, ModelRefused, Turn
from chorus.mind.watch import Watch
from chorus.process import Process
from chorus.process.sentinel import scanner_of
from chorus.table.reader import TableReader

Driver = Callable[[Parts, str, int, Mapping[str, Any], str], Awaitable[None]]

# Words for discussions that are asked for at once; goals come first at a model that answers one by one.
WORDS_AT_ONCE: Final = 2
# What is left of the asker's patience for the way back.
ANSWER_S: Final = 1.0
WORD_BYTES: Final = 8

_Key = tuple[str, int]


class Mind:
    """The process's parts and its service."""

    def __init__(self, process: Process, driver: Driver = drive) -> None:
        settings = process.settings
        self._process = process
        self._driver = driver
        self._table = TableReader(settings.paths.table_db)
        accounts = Accounts(settings.paths.spending, settings.ai.prices, settings.ai.daily_usd)
        redact = scanner_of(settings).redact
        kept = KeptCalls(settings.paths.model_calls)
        self.models = Models(settings.ai, accounts, self._sharing, redact, kept=kept)
        self._prompts = RolePrompts(settings.ai.prompts_dir)
        self._watch = Watch(self.models, self._prompts, process.log)
        self._runs: dict[_Key, asyncio.Task[None]] = {}
        self._words = asyncio.Semaphore(WORDS_AT_ONCE)
        # How many others share a limit of calls.
        self._sharers = 0

    async def run(self) -> None:
        """Until the process is to stop."""
        async with asyncio.TaskGroup() as group:
            watching = group.create_task(guard.lasting(self._watch.run, "answer"))
            await self._process.offer(
                {
                    "health": self._health,
                    "models": self._models,
                    "drive": self._drive,
                    "stop": self._stop,
                    "discuss": self._discuss,
                    "advise": self._advise,
                }
            )
            await self._process.stopping.wait()
            watching.cancel()
            await self._end([*self._runs.values()])
        await self.models.close()
        self._table.close()

    # ---- goals -----------------------------------------------------------------------------------

    async def _drive(self, request: Request) -> dict[str, Any]:
        """`drive` {task_id, attempt, task, secret}: works on a goal from now on; a repeat changes nothing."""
        head = request.head
        task, secret = head.get("task"), head.get("secret")
        key = _key(head)
        if not isinstance(task, dict) or not isinstance(secret, str):
            raise HubInvalid("drive names task (an object) and secret")
        if self._process.stopping.is_set():
            return {"accepted": False, "reason": "this process is stopping"}
        if (running := self._runs.get(key)) is None or running.done():
            run = self._runs[key] = asyncio.create_task(self._run(key, task, secret))
            # Not at the end of the run itself: one that is cancelled before it began has none.
            run.add_done_callback(lambda done: self._forget(key, done))
        return {"accepted": True, "reason": ""}

    async def _run(self, key: _Key, task: Mapping[str, Any], secret: str) -> None:
        parts = Parts(self._process.hub, self.models, self._prompt, self._process.log)
        with guard.handling("answer"):
            await self._driver(parts, *key, task, secret)

    def _prompt(self, role: str) -> str:
        return self._prompts.prompt(role or self._process.assignments.current.role).text

    def _forget(self, key: _Key, run: asyncio.Task[None]) -> None:
        if self._runs.get(key) is run:
            del self._runs[key]

    async def _stop(self, request: Request) -> dict[str, Any]:
        """`stop` {task_id, attempt}: works on it no more; answers when that is so."""
        key = _key(request.head)
        run = self._runs.get(key)
        await self._end([] if run is None else [run])
        return {"stopped": run is not None}

    async def _end(self, runs: list[asyncio.Task[None]]) -> None:
        for run in runs:
            run.cancel()
        await asyncio.gather(*runs, return_exceptions=True)

    # ---- words -----------------------------------------------------------------------------------

    async def _discuss(self, request: Request) -> dict[str, Any]:
        """`discuss` {session, task, role}: intent, message and citations, or nothing to say.

        An objection to the same point as an earlier one has that one's id as `repeats`.
        """
        session, task = request.head.get("session"), request.head.get("task")
        if not isinstance(session, dict) or not isinstance(task, dict):
            raise HubInvalid("discuss names session and task (objects)")
        turns = words.discuss_turns(session, task, self._role(request), secrets.token_hex(WORD_BYTES))
        text = await self._ask(turns, task, request)
        earlier = words.earlier_objections(session)
        return words.discussed(text, owner=session.get("owner") is True, earlier=earlier)

    async def _advise(self, request: Request) -> dict[str, Any]:
        """`advise` {question, task, role}: a message, or nothing to say."""
        question, task = request.head.get("question"), request.head.get("task")
        if not isinstance(question, str) or not isinstance(task, dict):
            raise HubInvalid("advise names question (text) and task (an object)")
        turns = words.advise_turns(question, task, self._role(request), secrets.token_hex(WORD_BYTES))
        return words.advised(await self._ask(turns, task, request))

    def _role(self, request: Request) -> str:
        """What a role is told of itself, without how to work on a goal of one's own."""
        return self._prompts.role(str(request.head.get("role") or self._process.assignments.current.role))

    async def _ask(self, turns: tuple[Turn, ...], task: Mapping[str, Any], request: Request) -> str:
        """The text of a reply. Raises HubUnavailable where no model gives one in time."""
        try:
            async with asyncio.timeout(max(0.0, request.timeout - ANSWER_S)), self._words:
                reply = await self.models.ask(
                    turns,
                    (),
                    deadline_s=max(0.0, request.timeout - ANSWER_S),
                    local_only=task.get("local_model") is True,
                )
        except TimeoutError:
            raise HubUnavailable("no model answered in time") from None
        except (ModelAway, ModelRefused) as error:
            raise HubUnavailable(error.reason) from None
        return reply.text

    # ---- what it says of itself ------------------------------------------------------------------

    async def _models(self, request: Request) -> dict[str, Any]:
        """`models`: those that answer now, for this member's entry in the table."""
        models = self._watch.models
        return {"models": models, "reason": self._watch.reason, "ready": bool(models)}

    async def _health(self, request: Request) -> dict[str, Any]:
        """`health`: whether a model answers, which, and what else an operator wants to know."""
        return {
            **self._watch.health(),
            "goals": len(self._runs),
            "spent_usd_today": round(self.models.accounts.spent_usd, 6),
        }

    def _sharing(self) -> int:
        """How many present members share a limit of calls with this one, itself included."""
        try:
            members = [row for row in self._table.members() if row.present]
            self._sharers = sum(
                any(model.get("provider") == "resetdata" for model in row.models)
                for row in members
                if row.peer != self._process.settings.peer_id
            )
        except sqlite3.Error:
            pass  # what was read last holds until the table can be read again
        return self._sharers + 1


def _key(head: Mapping[str, Any]) -> _Key:
    task_id, attempt = head.get("task_id"), head.get("attempt")
    if not isinstance(task_id, str) or type(attempt) is not int:
        raise HubInvalid("task_id and attempt name a goal's attempt")
    return task_id, attempt


async def main(process: Process) -> None:
    """The body of the process."""
    await Mind(process).run()
