"""What the loop wants done next. Plain values; `driving` does them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from chorus.mind.thinking import ToolSpec, Turn


@dataclass(frozen=True, slots=True)
class Plan:
    """Ask the model for a plan, without tools, and journal it."""

    turns: tuple[Turn, ...]
    deadline_s: float


@dataclass(frozen=True, slots=True)
class Discuss:
    """Talk the plan over with other agents, and journal what came of it."""

    plan: str
    wait_s: float


@dataclass(frozen=True, slots=True)
class Ask:
    """Ask the model for step number `step`, and journal its reply.

    With `written` a command that it writes into a reply without a call is a call too.
    """

    step: int
    turns: tuple[Turn, ...]
    tools: tuple[ToolSpec, ...]
    deadline_s: float
    written: bool = False


@dataclass(frozen=True, slots=True)
class Call:
    """Have the executor do one call of a reply; its arguments fit the tool."""

    step: int
    call: int
    tool: str
    arguments: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Help:
    """Ask other agents a question, and journal a note `id` with their advice.

    `step` and `call` are 0 where the loop asks by itself, because the run is stuck.
    """

    id: str
    question: str
    step: int = 0
    call: int = 0


@dataclass(frozen=True, slots=True)
class Summarise:
    """Ask the model to sum up the steps up to `upto`, and journal that as a note; `plain` if it fails."""

    upto: int
    turns: tuple[Turn, ...]
    plain: str
    deadline_s: float


@dataclass(frozen=True, slots=True)
class Note:
    """Journal this note."""

    record: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Finish:
    """Have the executor end the run. With `ended_by` "finished" it runs the checks first, and may not accept.

    `text` is the model's summary then, and the reason otherwise. `call` is 0 where the loop itself ends it.
    """

    ended_by: str
    text: str
    step: int
    call: int


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing to do: the run has not begun, has ended, or its time is over."""

    over: bool


Action = Plan | Discuss | Ask | Call | Help | Summarise | Note | Finish | Wait
