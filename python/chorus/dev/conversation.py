"""What a client of the scripted model asks, the same for both wires. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

Role = Literal["system", "user", "assistant", "tool"]
Question = Literal["step", "plan", "discuss", "advise", "summary"]

# The words of `mind` in the last turn by which a question that is not a step of a run is told. Only a request
# without tools is looked at: a step offers tools, unless its model has none.
_ASKED: Final[tuple[tuple[Question, str], ...]] = (
    ("discuss", '{"intent":'),
    ("advise", "asks for your advice"),
    ("summary", "Write a summary of"),
    ("plan", "write your plan"),
)


@dataclass(frozen=True, slots=True)
class Message:
    """One turn. `calls` are the tools that an assistant's turn called, by name."""

    role: Role
    text: str
    calls: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Conversation:
    """All turns of a request, and the names of the tools that it offers."""

    messages: tuple[Message, ...]
    tools: tuple[str, ...] = ()

    @property
    def opening(self) -> str:
        """The turns before the model's first one: what the conversation is about."""
        texts = []
        for message in self.messages:
            if message.role == "assistant":
                break
            texts.append(message.text)
        return "\n\n".join(texts)

    @property
    def text(self) -> str:
        """All turns."""
        return "\n\n".join(message.text for message in self.messages)

    @property
    def said(self) -> tuple[Message, ...]:
        """The model's own turns."""
        return tuple(message for message in self.messages if message.role == "assistant")

    @property
    def question(self) -> Question:
        """What kind of answer is wanted: the next step of a run, or one of the other questions."""
        if self.tools:
            return "step"
        last = next((m.text for m in reversed(self.messages) if m.role == "user"), "")
        return next((kind for kind, words in _ASKED if words in last), "step")
