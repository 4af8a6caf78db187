"""What the loop knows of models: turns of a conversation go in, one reply comes out.

How a reply comes about (providers, retries, fallback, limits, money) is `providers`', `resilient`'s and their
neighbours'. This module knows nothing of the model library.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, Protocol

# What one reply may hold at most: more is no step of work but a model that runs on.
TEXT_MAX_BYTES: Final = 64 * 1024
CALLS_MAX: Final = 16
# Names and arguments of all calls; the largest file that a model writes in one is far below.
CALLS_MAX_BYTES: Final = 256 * 1024

Finish = Literal["stop", "length", "calls"]
Role = Literal["system", "user", "assistant", "tool"]


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A tool that the model wants used, with arguments that fit the tool's schema."""

    tool: str
    arguments: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Reply:
    """One reply of a model.

    `unreadable` says, for the model to read, what could not be understood; "" when all of it was. `usd` is
    None where the model has no price.
    """

    text: str
    calls: tuple[ToolCall, ...]
    finish: Finish
    unreadable: str
    provider: str
    model: str
    tokens_in: int
    tokens_out: int
    seconds: float
    usd: float | None


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn of the conversation. Turns of role `tool` answer the calls of the assistant's turn before
    them, in their order, and name the tool.
    """

    role: Role
    text: str
    calls: tuple[ToolCall, ...] = ()
    tool: str = ""


@dataclass(frozen=True, slots=True)
class ToolSpec:
    """A tool as it is offered to the model; `parameters` is the JSON schema of its arguments."""

    name: str
    description: str
    parameters: dict[str, Any] = field(default_factory=dict)


class ModelAway(Exception):
    """No model answers now: its server is away, overloaded or has no such model. Worth another try later."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class ModelRefused(Exception):
    """No answer, and trying the same again would not change that: the day's money is spent, the key is wrong,
    the request or the answer is not what the protocol asks for.

    `lasting`: nor would it another day.
    """

    def __init__(self, reason: str, *, lasting: bool = True) -> None:
        super().__init__(reason)
        self.reason = reason
        self.lasting = lasting


class ModelTooLong(ModelRefused):
    """No answer: the conversation is longer than the model's window. A shorter one may be answered."""


class Thinking(Protocol):
    """The model of this agent, whichever it is."""

    async def ask(
        self,
        turns: Sequence[Turn],
        tools: Sequence[ToolSpec],
        *,
        deadline_s: float,
        local_only: bool = False,
        on_text: Callable[[str], None] | None = None,
    ) -> Reply:
        """One reply. Raises ModelAway, ModelTooLong and ModelRefused.

        `deadline_s`: seconds from now after which nobody waits for it any more. `local_only`: nothing of it
        may go beyond loopback and private addresses. `on_text` gets the text piece by piece as it comes, from
        the beginning again after a try that failed half way.
        """
        ...

    def window(self) -> int:
        """How many tokens question and reply may have together."""
        ...

    def count(self, text: str) -> int:
        """How many tokens the text has, about."""
        ...

    def calls_tools(self) -> bool:
        """Whether the model calls tools by itself; if not, they are put into words for it."""
        ...
