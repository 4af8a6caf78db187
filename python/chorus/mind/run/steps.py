"""The steps of a run as the journal tells them: each a reply of the model with its calls and their outcomes.

Pure.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from chorus.mind.run.records import items_of, number_of, text_of
from chorus.mind.run.tools import CallWrong, checked

# Figures that differ each time although nothing else does: durations, times of day, addresses in memory.
_FLEETING: Final = re.compile(
    r"\b\d+(?:\.\d+)?\s?(?:ns|µs|us|ms|s|sec|secs|seconds?|minutes?)\b|\b\d\d:\d\d(?::\d\d)?\b|0x[0-9a-fA-F]+"
)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a call. `same` is equal for outcomes that say the same."""

    ok: bool
    text: str
    exit_code: int | None
    timed_out: bool
    same: str


@dataclass(slots=True)
class Act:
    """One call. `wrong` says why it cannot be done; "" where it can."""

    call: int
    tool: str
    arguments: dict[str, Any]
    wrong: str
    same: str
    outcome: Outcome | None = None
    # How many characters of its texts are still shown; None: all.
    kept: int | None = None


@dataclass(frozen=True, slots=True)
class Said:
    """Words that came in after a step: a person's, another agent's, or this program's."""

    who: Literal["person", "peer", "program"]
    name: str
    text: str


@dataclass(slots=True)
class Step:
    """One reply of the model."""

    number: int
    text: str
    acts: list[Act]
    unreadable: str
    cut: bool
    provider: str
    # Whether its calls were written into its text, by a model that could have called tools.
    written: bool = False
    said: list[Said] = field(default_factory=list)
    kept: int | None = None

    @property
    def idle(self) -> bool:
        """Whether nothing of it can be done."""
        return all(act.wrong for act in self.acts)

    @property
    def without_call(self) -> bool:
        """Whether it is whole and readable, and calls nothing."""
        return not (self.acts or self.unreadable or self.cut)

    @property
    def format_wrong(self) -> bool:
        """Whether it cannot be read as an action, although it is whole and was meant as one."""
        return self.idle and not self.cut and bool(self.acts or self.unreadable)

    def open(self) -> Act | None:
        """The first call that has no outcome yet."""
        return next((act for act in self.acts if act.outcome is None and not act.wrong), None)


def step_of(record: dict[str, Any]) -> Step:
    """The step that a `reply` record tells."""
    acts = [_act(call, place) for place, call in enumerate(items_of(record, "calls"), 1)]
    return Step(
        number=number_of(record, "step"),
        text=text_of(record, "text"),
        acts=acts,
        unreadable=text_of(record, "unreadable"),
        cut=record.get("finish") == "length",
        provider=text_of(record, "provider"),
        written=record.get("written") is True,
    )


def _act(call: object, place: int) -> Act:
    said = call if isinstance(call, dict) else {}
    tool, given = text_of(said, "tool"), said.get("arguments")
    wrong = ""
    try:
        arguments = checked(tool, given)
    except CallWrong as error:
        arguments, wrong = given if isinstance(given, dict) else {}, str(error)
    return Act(number_of(said, "call") or place, tool, arguments, wrong, _digest([tool, arguments]))


def outcome_of(record: dict[str, Any]) -> Outcome:
    """What an `outcome` record tells."""
    code = record.get("exit_code")
    exit_code = code if isinstance(code, int) and not isinstance(code, bool) else None
    ok, text = record.get("ok") is True, text_of(record, "text")
    same = _digest([ok, exit_code, _FLEETING.sub("…", text)])
    return Outcome(ok, text, exit_code, record.get("timed_out") is True, same)


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def shortened(text: str, kept: int | None) -> str:
    """Head and tail of a text, `kept` characters in all, with a word on what was left out."""
    if kept is None or len(text) <= kept:
        return text
    if kept == 0:
        return f"[{len(text)} characters left out to save room]"
    half = kept // 2
    return f"{text[:half]}\n[… {len(text) - 2 * half} characters left out …]\n{text[-half:]}"
