"""A goal that runs: its journal, and its calls, each of which is done once however often it is asked for."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import secrets
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

import orjson

from chorus.archives.errors import ArchiveRefused
from chorus.executor.backend import EndedBy, Sandbox, SandboxError
from chorus.executor.globs import TooMuchWork
from chorus.executor.goal import texts
from chorus.executor.goal.checking import Checked, Checking
from chorus.executor.goal.records import PROMPT
from chorus.executor.goal.report import Tally
from chorus.executor.goal.tools import Outcome, Tools
from chorus.executor.goal.transcript import Transcript, TranscriptFull
from chorus.executor.journal import Journal
from chorus.executor.patch import Patch, PatchRefused
from chorus.executor.summary import GoalEnd
from chorus.hub import HubInvalid, HubNotFound, HubRefused, Reply

# How the loop itself may end a run.
LoopEnd = Literal["steps", "tokens", "money", "stuck", "gave_up", "format", "model"]
_LOOP_ENDS: Final = frozenset(get_args(LoopEnd))
_BUDGETS: Final = ("steps", "tokens", "money")
# Of a text in an event; the transcript has the whole.
_SHORT_CHARS: Final = 500
_REASON_CHARS: Final = 8_000
_MESSAGES_MAX: Final = 1_000
# Of peers, so that they leave the rest to people.
_PEERS_MESSAGES_MAX: Final = 50
_NO_CHANGE: Final = (
    "Nothing was changed: the files are as they were at the beginning. If that is what the goal needs, "
    "call finish again; if not, go on."
)


@dataclass(frozen=True, slots=True)
class End:
    """How the run ended, as its loop or its checks say. `given_back`: the model never began."""

    ended_by: EndedBy | GoalEnd
    reason: str
    given_back: bool = False


class GoalRun:
    """One attempt's goal while its loop may ask for it."""

    def __init__(
        self, sandbox: Sandbox, tools: Tools, checking: Checking, transcript: Transcript, journal: Journal,
        *, has_checks: bool, touched: Callable[[str], None] = lambda path: None,
    ) -> None:  # fmt: skip
        self._sandbox = sandbox
        self.tools = tools
        self.checking = checking
        self._touched = touched
        self._has_checks = has_checks
        self.transcript = transcript
        self.journal = journal
        self.secret = secrets.token_hex(16)
        self.tally = Tally()
        self.ended: asyncio.Future[End] = asyncio.get_running_loop().create_future()
        self.checked: Checked | None = None
        self.patch: Patch | None = None
        self.discussion: str | None = None
        # Calls under way, and the records of the outcomes of the others.
        self._calls: dict[tuple[int, int], asyncio.Task[Reply]] = {}
        self._outcomes: dict[tuple[int, int], int] = {}
        self._replies: dict[tuple[int, int], Reply] = {}
        # Calls whose beginning was journaled, and what came of those whose outcome could not be: none of them
        # is done again.
        self._begun: set[tuple[int, int]] = set()
        self._unwritten: dict[tuple[int, int], Outcome] = {}
        # Held by what works in the sandbox.
        self.turn = asyncio.Lock()
        # Called when a command has ended.
        self.ran: Callable[[], None] = lambda: None
        # Whether the last finish found more than what the run began with, and whether that was asked about.
        self._changed = False
        self._questioned = False
        # Whether the last thing that happened was a finish that the checks refused.
        self._refused = False
        self._messages: dict[tuple[str, str], int] = {}
        self._peers_messages = 0
        self._closed = ""

    def permits(self, secret: object) -> bool:
        """Whether a secret is this goal's, in constant time."""
        return isinstance(secret, str) and hmac.compare_digest(
            secret.encode("utf-8", "replace"), self.secret.encode()
        )

    def close(self, why: str) -> None:
        """Nothing more is taken: what comes is told why."""
        self._closed = why

    async def settle(self) -> None:
        """Waits for the calls under way; the sandbox they work in was stopped."""
        if self._calls:
            await asyncio.wait(set(self._calls.values()))

    # ---- the journal -------------------------------------------------------------------------------

    def read(self, head: Mapping[str, Any]) -> Reply:
        """`journal` {from, limit_bytes?}."""
        first, limit = head.get("from", 1), head.get("limit_bytes")
        if type(first) is not int or first < 0:
            raise HubInvalid("from: a record's number is needed")
        page = self.transcript.page(first) if type(limit) is not int else self.transcript.page(first, limit)
        return Reply({"next": page[1], "last": self.transcript.last}, page[0])

    def append(self, payload: bytes) -> Reply:
        """`journal` {append: true}. Raises RecordInvalid, OSError."""
        self._check_open()
        try:
            number, record = self.transcript.append(payload)
        except TranscriptFull as full:
            self.end(End("steps", str(full)))
            raise HubRefused(str(full)) from None
        if record is not None:
            self.tally.add(record)
            if record["kind"] == "reply":
                self._refused = False
            if isinstance(address := record.get("address"), str) and address.startswith("ucxl://"):
                self.discussion = address[:1024]
            # A prompt is long, and no step.
            if record.get("kind2") != PROMPT:
                self.tell(record)
        return Reply({"n": number})

    def message(self, id: str, by: Literal["person", "peer"], name: str, text: str) -> int:
        """Takes somebody's words in; a repeat changes nothing. On the disk when this returns.

        Raises HubRefused, OSError.
        """
        self._check_open()
        # Under an id of its own each: a peer's word keeps no person's out.
        if (known := self._messages.get((by, id))) is not None:
            return known
        if len(self._messages) >= _MESSAGES_MAX:
            raise HubRefused(f"limit: a run hears at most {_MESSAGES_MAX} messages")
        if by == "peer" and self._peers_messages >= _PEERS_MESSAGES_MAX:
            raise HubRefused(
                f"limit: a run hears at most {_PEERS_MESSAGES_MAX} messages of peers; "
                "say it through the agent that runs the goal, or through the one that vouched for it"
            )
        try:
            record = self.transcript.add("message", id=id, **{"from": by}, name=name, text=text)
        except TranscriptFull as full:
            raise HubRefused(f"limit: {full}") from None
        self.transcript.sync()
        self._messages[by, id] = record["n"]
        self._peers_messages += by == "peer"
        self.journal.event("message", {name: record[name] for name in ("id", "from", "name", "text", "at")})
        return self.transcript.last

    def tell(self, record: Mapping[str, Any]) -> None:
        """The event of a record, its texts cut."""
        kind = record["kind"]
        fields = {
            name: _short(value) for name, value in record.items() if name not in ("n", "at", "kind", "step")
        }
        told = {"step": record.get("step", 0), kind: fields, "at": record["at"]}
        # The record is in the transcript; a call must not fail because its event has no room.
        with contextlib.suppress(OSError):
            self.journal.event("step", told)

    # ---- calls -------------------------------------------------------------------------------------

    async def call(self, tool: str, step: int, call: int, arguments: Mapping[str, Any]) -> Reply:
        """The outcome of a call: done now, or known from before."""
        return await self._once((step, call), lambda: self._tool(tool, (step, call), arguments))

    async def finish(self, step: int, call: int, head: Mapping[str, Any]) -> Reply:
        """`finish` {ended_by, summary|reason, refused?}; `refused`: the model would refuse again."""
        ended_by = head.get("ended_by")
        text = str(head.get("summary") or head.get("reason") or "")[:_REASON_CHARS]
        if ended_by == "finished":
            return await self._once((step, call), lambda: self._finished((step, call), text))
        if ended_by not in _LOOP_ENDS:
            raise HubInvalid(f"ended_by: {ended_by!r} is no end of a run")
        loop_end: LoopEnd = ended_by  # type: ignore[assignment]
        refused = head.get("refused") is True
        if call:
            return await self._once(
                (step, call), lambda: self._given_up((step, call), loop_end, text, refused)
            )
        self._check_open()
        self._end_loop(loop_end, text, refused)
        return _accepted()

    def end(self, end: End) -> None:
        """The first end counts."""
        if not self.ended.done():
            self.ended.set_result(end)

    def _end_loop(self, ended_by: LoopEnd, reason: str, refused: bool) -> None:
        if ended_by in _BUDGETS and self._refused:
            self.end(End("checks", reason))
        else:
            # Given back, a goal that the model refuses would go round without an end.
            away = ended_by == "model" and not refused and not self.transcript.begun
            self.end(End(ended_by, reason, given_back=away))

    async def _once(self, key: tuple[int, int], work: Callable[[], Awaitable[Reply]]) -> Reply:
        if (known := self._known(key)) is not None:
            return known
        if (running := self._calls.get(key)) is None:
            self._check_open()
            running = self._calls[key] = asyncio.create_task(self._in_turn(work))
            running.add_done_callback(lambda _: self._calls.pop(key, None))
        # Whoever asked may go away; the call goes on, and its outcome is kept.
        return await asyncio.shield(running)

    async def _in_turn(self, work: Callable[[], Awaitable[Reply]]) -> Reply:
        async with self.turn:
            self._check_open()
            try:
                return await work()
            except TranscriptFull as full:
                self.end(End("steps", str(full)))
                raise HubRefused(str(full)) from None

    def _known(self, key: tuple[int, int]) -> Reply | None:
        if (number := self._outcomes.get(key)) is None:
            return None
        if (reply := self._replies.get(key)) is not None:
            return reply
        record = self.transcript.record(number)
        names = ("ok", "exit_code", "timed_out", "duration_s")
        return Reply({name: record[name] for name in names if name in record}, record["text"].encode())

    def _check_open(self) -> None:
        if self._closed or self.ended.done():
            raise HubNotFound(f"this goal has ended: {self._closed or self._ended_by()}")

    def _ended_by(self) -> str:
        return "its sandbox is gone" if self.ended.exception() else self.ended.result().ended_by

    async def _done_once(
        self,
        key: tuple[int, int],
        tool: str,
        arguments: Mapping[str, Any],
        work: Callable[[], Awaitable[Outcome]],
    ) -> Reply:
        """Does a call between its two records; of one that was done already, it writes what came of it.

        Raises OSError.
        """
        if key not in self._begun:
            step, call = key
            self.tell(self.transcript.add("call", step=step, call=call, tool=tool, arguments=dict(arguments)))
            self._begun.add(key)
            self._unwritten[key] = await work()
        outcome = self._unwritten.get(key, Outcome(False, "the call was begun; what came of it is not known"))
        fields = {"step": key[0], "call": key[1], **outcome.head(), "text": outcome.text}
        record = self.transcript.add("outcome", **fields)
        self._outcomes[key] = record["n"]
        self._unwritten.pop(key, None)
        self.tell(record)
        return Reply(outcome.head(), str(record["text"]).encode())

    async def _tool(self, tool: str, key: tuple[int, int], arguments: Mapping[str, Any]) -> Reply:
        async def work() -> Outcome:
            try:
                outcome = await self.tools.call(tool, arguments)
                if outcome.ok and tool in ("write", "edit"):
                    self._touched(self.tools.below_workspace(arguments["path"]))
                if tool == "run":
                    self.ran()
                return outcome
            except SandboxError as error:
                # Who drives the attempt finds the same, and ends it.
                self._fail(error)
                return Outcome(False, f"the sandbox ended, so what came of it is not known: {error}")
            except (OSError, ArchiveRefused, ValueError) as error:
                return Outcome(False, f"this agent failed, so what came of it is not known: {error}")

        return await self._done_once(key, tool, arguments, work)

    async def _given_up(self, key: tuple[int, int], ended_by: LoopEnd, reason: str, refused: bool) -> Reply:
        async def work() -> Outcome:
            return Outcome(True, "")

        await self._done_once(key, "finish", {"ended_by": ended_by, "reason": reason}, work)
        self._replies[key] = _accepted()
        self._end_loop(ended_by, reason, refused)
        return _accepted()

    async def _finished(self, key: tuple[int, int], summary: str) -> Reply:
        async def work() -> Outcome:
            try:
                return Outcome(*await self._decide(*key))
            except SandboxError as error:
                self._fail(error)
                return Outcome(False, f"the sandbox ended: {error}")
            except (ArchiveRefused, PatchRefused, TooMuchWork, OSError) as error:
                return Outcome(False, f"the changes could not be checked: {error}")

        done = await self._done_once(key, "finish", {"summary": summary}, work)
        accepted, patch = done.head["ok"], self.patch
        told = {
            "text": done.payload.decode(),
            "checks": self.checked.commands if self.checked else [],
            "changed": self._changed,
            "patch": {"files": patch.files, "size": len(patch.text)} if patch else None,
        }
        reply = Reply({"accepted": accepted}, orjson.dumps(self.transcript.cleaned(told)))
        # Of an earlier one the journal has what its asker needs.
        self._replies = {key: reply}
        if accepted:
            self.tally.summary = summary
            self.end(End("finished", summary))
        return reply

    async def _decide(self, step: int, call: int) -> tuple[bool, str]:
        patch = self.patch = await self.checking.patch(self._sandbox)
        # Commands change files too, of which nothing was known before.
        for path in patch.paths:
            self._touched(path)
        if not patch.complete:
            named = "; ".join(f"{one.path}: {one.reason}" for one in patch.left_out[:20])
            return (
                False,
                f"Not everything that changed fits into the patch. Make it smaller. Left out: {named}",
            )
        self._changed = await self.checking.changed(patch)
        if not self._changed and not self._questioned:
            self._questioned = True
            return False, _NO_CHANGE
        if not self._has_checks:
            return True, ""
        checked = self.checked = await self.checking.check(patch)
        record = self.transcript.add(
            "checks", step=step, call=call, commands=checked.commands, passed=checked.passed
        )
        self.tell(record)
        self._refused = not checked.passed
        return checked.passed, texts.bounded(checked.told())

    def _fail(self, error: SandboxError) -> None:
        if not self.ended.done():
            self.ended.set_exception(error)


def _accepted() -> Reply:
    return Reply({"accepted": True}, b'{"text":""}')


def _short(value: Any) -> Any:
    if isinstance(value, str):
        return value if len(value) <= _SHORT_CHARS else f"{value[:_SHORT_CHARS]}…"
    if isinstance(value, dict):
        return {name: _short(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_short(item) for item in value]
    return value
