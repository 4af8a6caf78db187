"""Drives one attempt of a goal: does what the loop (`run`) says, with the executor's session, the model and
other agents.

It may be ended at any moment and started anew: it goes on from the journal. It ends with the attempt, or when
it is cancelled.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, assert_never

from chorus.hub import Hub
from chorus.mind import text_protocol
from chorus.mind.peers import NoTalk, Peers
from chorus.mind.run import (
    Action,
    Ask,
    Call,
    Discuss,
    Finish,
    Help,
    Note,
    Plan,
    Run,
    RunSettings,
    Summarise,
    Wait,
)
from chorus.mind.run.records import (
    PROMPT,
    SUMMARY_MAX_BYTES,
    bounded,
    discussed_record,
    note,
    plan_record,
    prompt_record,
    reply_record,
    spent,
    text_of,
)
from chorus.mind.session import CallRefused, RunOver, Session, Sleep, Waits
from chorus.mind.thinking import ModelAway, ModelRefused, ModelTooLong, Reply, Thinking, ToolCall
from chorus.process.logs import Logger

# A model that is away is asked again after such waits, doubled each time.
_AWAY_FIRST_S: Final = 1.0
_AWAY_LAST_S: Final = 30.0
# While there is nothing to do: the journal has not begun, or the executor is about to end the attempt.
_IDLE_S: Final = 0.5


@dataclass(frozen=True, slots=True)
class Parts:
    """What a driving works with. `prompt` gives a role's system prompt; `clock` is in seconds since 1970."""

    hub: Hub
    thinking: Thinking
    prompt: Callable[[str], str]
    log: Logger
    clock: Callable[[], float] = time.time
    sleep: Sleep = asyncio.sleep


async def drive(parts: Parts, task_id: str, attempt: int, task: Mapping[str, Any], secret: str) -> None:
    """Works on the goal until the attempt is over. Raises nothing but CancelledError."""
    driving = _Driving(parts, task_id, attempt, task, secret)
    log = parts.log.bind(task_id=task_id, attempt=attempt)
    try:
        try:
            await driving.run()
        except RunOver:
            raise
        except Exception as error:
            log.exception("the loop broke")
            await driving.end("model", f"the loop broke: {type(error).__name__}: {error}", refused=True)
    except RunOver as over:
        log.info("the attempt is over", reason=str(over))
    except Exception:
        log.exception("the end of a broken loop could not be told")


class _Driving:
    def __init__(
        self, parts: Parts, task_id: str, attempt: int, task: Mapping[str, Any], secret: str
    ) -> None:
        self._parts = parts
        self._task = task
        self._session = Session(parts.hub, task_id, attempt, secret, parts.sleep)
        self._peers = Peers(parts.hub, task_id, attempt, parts.clock, parts.sleep)
        self._run: Run | None = None
        self._away = Waits(_AWAY_FIRST_S, _AWAY_LAST_S)

    async def run(self) -> None:
        """From the journal as it is to the end of the attempt."""
        run = self._run = await self._begin()
        while True:
            # A server that was away at the beginning has said since how much its model takes.
            run.resize(self._parts.thinking.window())
            action = run.next(self._parts.clock())
            done = await self._do(run, action)
            if done is None:
                return
            for record in (*await self._session.pull(), *done):
                # What is in the journal already counts once, as the journal has it.
                run.apply(record)

    async def end(self, ended_by: str, reason: str, *, refused: bool = False) -> None:
        """Ends the run from outside the loop; `refused` as for `Session.finish`."""
        step = self._run.step if self._run is not None else 0
        await self._session.finish(step, 0, ended_by, bounded(reason), 0, refused=refused)

    async def _begin(self) -> Run:
        """A run that was told what the journal has."""
        records = await self._session.pull()
        while not any(record.get("kind") == "start" for record in records):
            await self._parts.sleep(_IDLE_S)
            records += await self._session.pull()
        role = next(text_of(record, "role") for record in records if record.get("kind") == "start")
        talks = not any(record.get("kind") in ("plan", "reply") for record in records)
        thinking = self._parts.thinking
        settings = RunSettings(
            prompt=await self._prompt(role, records),
            window=thinking.window(),
            count=thinking.count,
            talks=talks and await self._audience() > 0,
        )
        run = Run(settings)
        for record in records:
            run.apply(record)
        return run

    async def _prompt(self, role: str, records: list[dict[str, Any]]) -> str:
        """The system prompt that the run began with: files that change count from the next run on."""
        for record in records:
            if record.get("kind") == "note" and record.get("id") == PROMPT:
                return text_of(record, "text")
        prompt = self._parts.prompt(role)
        await self._session.append(prompt_record(prompt))
        return prompt

    async def _audience(self) -> int:
        """How many could answer a plan; a note says so if nobody can be asked."""
        try:
            return await self._peers.audience()
        except NoTalk as error:
            said = note("away", "no-audience", f"other agents cannot be asked about a plan: {error}")
            await self._session.append(said)
            return 0

    async def _do(self, run: Run, action: Action) -> list[dict[str, Any]] | None:
        """Does it, and returns the records that came of it; None when the run is over."""
        match action:
            case Ask() | Plan():
                return await self._think(run, action)
            case Call():
                return [await self._call(run, action)]
            case Note():
                return await self._journal(action.record)
            case Discuss():
                return await self._discuss(run, action)
            case Help():
                return await self._help(action)
            case Summarise():
                return await self._summarise(action)
            case Finish():
                return await self._finish(run, action)
            case Wait():
                if action.over:
                    return None
                await self._parts.sleep(_IDLE_S)
                return []
            case _:
                assert_never(action)

    async def _journal(self, record: dict[str, Any]) -> list[dict[str, Any]]:
        await self._session.append(record)
        return [record]

    async def _think(self, run: Run, asked: Ask | Plan) -> list[dict[str, Any]] | None:
        tools = asked.tools if isinstance(asked, Ask) else ()
        try:
            reply = await self._parts.thinking.ask(
                asked.turns, tools, deadline_s=asked.deadline_s, local_only=self._local_only
            )
        except ModelRefused as error:
            if isinstance(asked, Ask) and isinstance(error, ModelTooLong):
                shorter = run.too_long(error.reason)
                if shorter is not None:
                    return await self._journal(shorter)
            await self.end("model", error.reason, refused=error.lasting)
            return None
        except ModelAway as error:
            return await self._wait_for_model(run, error.reason)
        self._away = Waits(_AWAY_FIRST_S, _AWAY_LAST_S)
        if isinstance(asked, Ask):
            written = _written(reply) if asked.written else ()
            if written:
                reply = replace(reply, calls=written)
            return await self._journal(reply_record(asked.step, reply, written=bool(written)))
        return await self._journal(plan_record(reply.text, spent(reply)))

    async def _wait_for_model(self, run: Run, reason: str) -> list[dict[str, Any]] | None:
        """Waits a while for a model that is away, if the run has begun and has time left."""
        wait = self._away.next_s()
        if not run.begun or run.left_s(self._parts.clock()) <= wait:
            await self.end("model", reason)
            return None
        done = await self._journal(note("away", f"away-{run.step + 1}", reason))
        await self._parts.sleep(wait)
        return done

    async def _call(self, run: Run, call: Call) -> dict[str, Any]:
        left = run.left_s(self._parts.clock())
        try:
            return await self._session.call(call.step, call.call, call.tool, call.arguments, left)
        except CallRefused as error:
            return {"kind": "outcome", "step": call.step, "call": call.call, "ok": False, "text": str(error)}

    async def _discuss(self, run: Run, talk: Discuss) -> list[dict[str, Any]]:
        title, goal = text_of(run.start, "title"), text_of(run.start, "goal")
        project = str(self._task.get("project") or "")
        try:
            came = await self._peers.discuss(talk.plan, title, goal, project, talk.wait_s)
        except NoTalk as error:
            missing = note("away", "no-discussion", f"the plan was not talked over: {error}")
            return [
                *await self._journal(missing),
                *await self._journal(discussed_record(talk.plan, "not talked over")),
            ]
        return await self._journal(
            discussed_record(came.plan, came.outcome, came.session, came.said, came.address)
        )

    async def _help(self, asked: Help) -> list[dict[str, Any]]:
        advice: tuple[dict[str, str], ...] = ()
        text = asked.question
        try:
            advice = await self._peers.help(asked.question, asked.id)
            if not advice:
                text = "no other agent had advice"
        except NoTalk as error:
            text = f"no other agent could be asked: {error}"
        place = {"step": asked.step, "call": asked.call} if asked.call else {}
        return await self._journal(note("hint", asked.id, text, advice=list(advice), **place))

    async def _summarise(self, asked: Summarise) -> list[dict[str, Any]]:
        text, cost = asked.plain, {}
        try:
            reply = await self._parts.thinking.ask(
                asked.turns, (), deadline_s=asked.deadline_s, local_only=self._local_only
            )
        except (ModelAway, ModelRefused):
            pass  # the plain list says less, and is enough to go on with
        else:
            text, cost = reply.text.strip() or asked.plain, spent(reply)
        said = bounded(text, SUMMARY_MAX_BYTES)
        return await self._journal(note("summary", f"summary-{asked.upto}", said, upto=asked.upto, **cost))

    async def _finish(self, run: Run, end: Finish) -> list[dict[str, Any]] | None:
        left = run.left_s(self._parts.clock())
        outcome = await self._session.finish(end.step, end.call, end.ended_by, bounded(end.text), left)
        if outcome["ok"] or end.ended_by != "finished":
            return None
        return [outcome]

    @property
    def _local_only(self) -> bool:
        return self._task.get("local_model") is True


def _written(reply: Reply) -> tuple[ToolCall, ...]:
    """The call that a whole reply without one has in its text."""
    if reply.calls or reply.unreadable or reply.finish == "length":
        return ()
    return text_protocol.read(reply.text)[0]
