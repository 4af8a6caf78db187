"""Answers to announcements that are refused: `task_decline` with the field and the remedy, never a value.

The pure part decides what is said and how often; `Declines` says it.
"""

from __future__ import annotations

import asyncio
import json
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any, Final

from chorus.hub import Hub, HubError, Message, guard
from chorus.process.logs import Logger
from chorus.wire.ids import is_id
from chorus.wire.messages import COORDINATION
from chorus.wire.source import Source
from chorus.wire.task import Budget, Resources, TaskInvalid, TaskSubmission

# Of one signer, whatever it announces, and of all together, as an identity costs nothing.
EVERY_S: Final = 1.0
AT_ONCE_MAX: Final = 20
# Signers whose last answer is remembered; of more the one answered longest ago goes.
SIGNERS_MAX: Final = 4_096
REASON_MAX_CHARS: Final = 500
FIELD_MAX_CHARS: Final = 64
# So many mistakes are named.
PROBLEMS_MAX: Final = 8
# Shorter texts of an announcement stand in many sentences by chance.
TELLING_CHARS: Final = 3
# A sentence may have cut a long one.
TELLING_START_CHARS: Final = 16

_FIELDS: Final = frozenset(
    {*TaskSubmission.model_fields, *Resources.model_fields, *Budget.model_fields, *Source.model_fields}
)
# Whose parts are numbered.
_LISTS: Final = frozenset(
    {"commands", "depends_on", "artifacts", "setup", "checks", "protected", "required_expertise"}
)
# What to do where the usual words would repeat what was announced.
_REMEDIES: Final = {
    "task_id": "make a ULID, 26 characters of Crockford's base 32, or leave it out",
    "depends_on": "announce the tasks that it names first, and name only tasks of this mesh",
    "source": "give inline files below 64 KiB, or upload the archive over HTTP and name its hash",
    "network": "use none",
    "idempotency_key": "leave it out and give a task_id of your own",
    "env": "use names of letters, digits and _, and values that the shell takes",
    "secrets": "submit the task over HTTP, which seals them",
    "required_role": "leave it out, or announce the task on the topic of the role that it names",
    "required_expertise": "name at most 64 words, the topic's own among them",
}
_USUAL: Final = "give what docs/api.md says of it, or leave it out"


def reason_of(error: TaskInvalid | HubError | str, data: Any) -> str:
    """Why an announcement is refused, in words that hold none of its values."""
    if isinstance(error, TaskInvalid):
        problems = error.problems[:PROBLEMS_MAX]
    else:
        text = error if isinstance(error, str) else error.message
        field, colon, what = text.partition(": ")
        first = field.split(".", 1)[0]
        problems = [(field, what)] if colon and first in _FIELDS else [("", text)]
    values = [value for value in _texts(data) if value]
    said = (_problem(field, what, values) for field, what in problems)
    return "; ".join(said)[:REASON_MAX_CHARS]


def _problem(field: str, what: str, values: list[str]) -> str:
    parts = field.split(".") if field else []
    name = parts[0] if parts else ""
    # Below that somebody may have chosen the names.
    inner = parts[1:2] if name in _LISTS else [part for part in parts[1:] if part in _FIELDS]
    shown = [name[:FIELD_MAX_CHARS], *inner]
    if what == "unknown field":
        what = "unknown field; leave it out"
    elif any(_repeats(what, value) for value in values):
        what = _REMEDIES.get(name, _USUAL)
    else:
        what = f"{what}; {_REMEDIES.get(name, _USUAL)}" if name in _FIELDS and ";" not in what else what
    where = ".".join(shown)
    return f"{where}: {what}" if where else what


def _repeats(what: str, value: str) -> bool:
    """Whether a sentence holds a value, or how it begins: plain, or as Python or JSON writes it."""
    if len(value) < TELLING_CHARS:
        return repr(value) in what
    start = value[:TELLING_START_CHARS]
    return any(form in what for form in (start, repr(start)[1:-1], json.dumps(start)[1:-1]))


def _texts(data: Any) -> Iterator[str]:
    """All texts in an announcement that its sender chose, also names of its own."""
    waiting = [data]
    while waiting:
        one = waiting.pop()
        if isinstance(one, str):
            yield one
        elif isinstance(one, dict):
            waiting += one.values()
            yield from (name for name in one if name not in _FIELDS)
        elif isinstance(one, list):
            waiting += one


class Rate:
    """How often signers are answered. Pure; time is an argument."""

    def __init__(self) -> None:
        self._last: OrderedDict[str, float] = OrderedDict()
        self._second, self._count = 0.0, 0

    def take(self, signer: str, now: float) -> bool:
        """Whether this signer is answered now; counts it if so."""
        last = self._last.get(signer)
        if last is not None and now - last < EVERY_S:
            return False
        if now - self._second >= EVERY_S:
            self._second, self._count = now, 0
        if self._count >= AT_ONCE_MAX:
            return False
        self._count += 1
        self._last[signer] = now
        self._last.move_to_end(signer)
        if len(self._last) > SIGNERS_MAX:
            self._last.popitem(last=False)
        return True


class Declines:
    """Says that announcements are refused."""

    def __init__(self, hub: Hub, log: Logger) -> None:
        self._hub, self._log = hub, log
        self._rate = Rate()
        self._saying: set[asyncio.Task[None]] = set()

    def say(self, message: Message, error: TaskInvalid | HubError | str) -> None:
        """Answers an announcement in the background, if its signer was not answered just now."""
        if not self._rate.take(message.sender, asyncio.get_running_loop().time()):
            return
        data = message.data
        named = data.get("task_id") if isinstance(data, dict) else None
        said = {"task_id": named if is_id(named) else message.id, "reason": reason_of(error, data)}
        task = asyncio.create_task(guard.alone(lambda: self._publish(said), "gossip"))
        self._saying.add(task)
        task.add_done_callback(self._saying.discard)

    async def _publish(self, said: dict[str, Any]) -> None:
        try:
            await self._hub.publish(COORDINATION, "task_decline", said)
        except HubError as error:
            self._log.debug("a refusal was not said", error=str(error))
