"""What a goal's run tells, as lines for people: plan, steps, what was said to it, what it has used. Pure.

What an event or a message says may be anything: it is a peer's, a model's or a task's.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from chorus.ctl.terminal import TAB_COLUMNS
from chorus.wire.counts import counted

LINE_MAX_CHARS: Final = 200
# Of what a tool said, and of what somebody said.
OUTPUT_LINES_MAX: Final = 5
WORDS_LINES_MAX: Final = 12
# What of a tool's arguments says what it does. Others show all of them.
_SHOWN: Final = {
    "run": "command",
    "read": "path",
    "write": "path",
    "edit": "path",
    "list": "path",
    "search": "pattern",
    "ask_peers": "question",
    "finish": "summary",
}

Kind = Literal["state", "plan", "talk", "call", "output", "good", "bad", "note"]
Data = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the story, not yet made safe for a terminal."""

    kind: Kind
    text: str


@dataclass(slots=True)
class Used:
    """What a run has used so far. `state` is the task's, `agent` who runs it."""

    state: str = "announced"
    agent: str = ""
    steps: int = 0
    tokens: int = 0
    usd: float = 0.0
    _counted: set[int] = field(default_factory=set)

    def add(self, event: str, data: Data) -> None:
        """Takes an event into account; one that comes again counts once."""
        if event == "state":
            self.state = str(data.get("state") or self.state)
            self.agent = str(data.get("agent_id") or self.agent)
            return
        reply = part_of(data, "reply") if event == "step" else None
        step = _number(data.get("step"))
        if reply is None or step in self._counted:
            return
        self._counted.add(int(step))
        self.steps = max(self.steps, int(step))
        self.tokens += int(_number(reply.get("tokens_in")) + _number(reply.get("tokens_out")))
        self.usd += _number(reply.get("usd"))


def event_lines(event: str, data: Data) -> Iterator[Line]:
    """The lines of one event; none for what is not shown here."""
    if event == "state":
        yield Line("state", f"{_text(data.get('state'))}{_reason(data)}")
    elif event == "gap":
        yield Line("bad", f"something was lost: {_text(data.get('detail'))}")
    elif event == "message":
        yield from _words(data)
    elif event == "step":
        yield from _step(data)


def talk_lines(item: Data) -> Iterator[Line]:
    """The lines of one thing of a goal's discussion: a message, a call for help, advice, an alert."""
    name, kind = name_of(item), item.get("kind")
    if kind == "record":
        return  # the account at the end names it
    if kind == "alert":
        yield from _block("bad", f"alert, {_text(item.get('rule'))}: ", item.get("reason"), OUTPUT_LINES_MAX)
        return
    how = {"help": "asks for help", "advice": "advises"}.get(str(kind)) or _text(item.get("intent") or "says")
    words = item.get("question") if kind == "help" else item.get("message")
    yield from _block("talk", f"{name}, {how}: ", words, WORDS_LINES_MAX)


def name_of(item: Data) -> str:
    """Who said a thing of a discussion: an agent, or a person through one."""
    said_by = item.get("from")
    who = said_by if isinstance(said_by, dict) else {}
    person = f"{_text(who['person'])} through " if who.get("person") else ""
    return f"{person}{_text(who.get('agent_id') or 'somebody')}"


def _step(data: Data) -> Iterator[Line]:
    number = data.get("step")
    where = f"step {number}" if type(number) is int and number else "plan"
    if (plan := part_of(data, "plan")) is not None:
        yield from _block("plan", "plan: ", plan.get("text"), WORDS_LINES_MAX)
    if (reply := part_of(data, "reply")) is not None:
        if reply.get("text"):
            yield from _block("plan", f"{where}: ", reply["text"], OUTPUT_LINES_MAX)
        if reply.get("unreadable"):
            yield Line("bad", f"{where}: the reply cannot be read: {_text(reply['unreadable'])}")
    if (call := part_of(data, "call")) is not None:
        yield Line("call", f"{where}: {_call(call)}")
    if (outcome := part_of(data, "outcome")) is not None:
        yield from _outcome(outcome)
    if (checks := part_of(data, "checks")) is not None:
        yield from check_lines(checks.get("commands") or checks.get("checks"))
    if (setup := part_of(data, "setup")) is not None:
        yield from check_lines(setup.get("commands"), "setup")
    if (note := part_of(data, "note")) is not None:
        yield from _block("note", "", note.get("text"), OUTPUT_LINES_MAX)


def check_lines(commands: object, what: str = "check") -> Iterator[Line]:
    """A line for each command that decides, with its exit code."""
    for one in commands if isinstance(commands, list) else ():
        if isinstance(one, dict):
            code = one.get("exit_code")
            passed = code == 0
            took = f" ({one['duration_s']:.1f} s)" if isinstance(one.get("duration_s"), int | float) else ""
            how = "passed" if passed else f"failed with exit code {_text(code)}"
            yield Line("good" if passed else "bad", f"{what} {how}{took}: {_text(one.get('command'))}")
            if not passed:
                yield from _ending(one.get("output"))


def _call(call: Data) -> str:
    tool = _text(call.get("tool"))
    given = call.get("arguments")
    if not isinstance(given, dict):
        return f"{tool} {_text(given or '')}".rstrip()
    name = _SHOWN.get(tool)
    if name is None or name not in given:
        return f"{tool} {_text(json.dumps(given, ensure_ascii=False)) if given else ''}".rstrip()
    where = f" in {_text(given['path'])}" if tool == "search" and given.get("path") else ""
    return f"{tool} {_text(given[name])}{where}"


def _outcome(outcome: Data) -> Iterator[Line]:
    yield from _ending(outcome.get("text"))
    code, ok = outcome.get("exit_code"), outcome.get("ok") is True
    if outcome.get("timed_out") is True:
        yield Line("bad", "  timed out")
    elif type(code) is int and code:
        yield Line("bad", f"  exit code {code}")
    elif not ok:
        yield Line("bad", "  failed")


def _words(data: Data) -> Iterator[Line]:
    """A person's or a peer's words to the run, or what the executor has to say."""
    who = data.get("from")
    if who is None:
        yield from _block("note", "", data.get("text"), OUTPUT_LINES_MAX)
        return
    name = f" {_text(data['name'])}" if data.get("name") else ""
    yield from _block("talk", f"{_text(who)}{name} says: ", data.get("text"), WORDS_LINES_MAX)


def _ending(text: object) -> Iterator[Line]:
    """The last lines of an output."""
    lines = [line for line in str(text or "").splitlines() if line.strip()]
    if len(lines) > OUTPUT_LINES_MAX:
        yield Line("output", f"  … {counted(len(lines) - OUTPUT_LINES_MAX, 'line')} before")
    for line in lines[-OUTPUT_LINES_MAX:]:
        yield Line("output", f"  {shortened(line.expandtabs(TAB_COLUMNS))}")


def _block(kind: Kind, before: str, text: object, most: int) -> Iterator[Line]:
    """Some lines of somebody's; those that follow stand in."""
    lines = [line for line in str(text or "").splitlines() if line.strip()] or [""]
    for number, line in enumerate(lines[:most]):
        words = shortened(line.expandtabs(TAB_COLUMNS))
        yield Line(kind, f"{before if number == 0 else '  '}{words}")
    if len(lines) > most:
        yield Line(kind, f"  … {counted(len(lines) - most, 'line')} more")


def part_of(data: Data, name: str) -> Data | None:
    """What an event says of one thing, whether in a part of its own or as words alone."""
    value = data.get(name)
    if isinstance(value, dict):
        return value
    return {"text": value} if isinstance(value, str) and value else None


def _reason(data: Data) -> str:
    return f": {_text(data['reason'])}" if data.get("reason") else ""


def _text(value: object) -> str:
    """The first line of it, shortened, with a word of how many follow."""
    first, _, rest = str(value).strip().partition("\n")
    more = f" (+{counted(rest.count(chr(10)) + 1, 'line')})" if rest else ""
    return f"{shortened(first)}{more}"


def shortened(line: str) -> str:
    """The line, cut so that nobody's is endless."""
    return line if len(line) <= LINE_MAX_CHARS else f"{line[:LINE_MAX_CHARS]}…"


def _number(value: object) -> float:
    usable = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1e15
    return float(value) if usable and isinstance(value, int | float) else 0.0
