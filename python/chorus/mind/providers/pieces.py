"""What a model's stream is made of, whichever the wire, and how much of it one reply may hold. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from chorus.mind.thinking import CALLS_MAX, CALLS_MAX_BYTES, TEXT_MAX_BYTES


@dataclass(frozen=True, slots=True)
class Text:
    """Some more text."""

    text: str


@dataclass(frozen=True, slots=True)
class Call:
    """A tool call, or a part of one: parts of one call have the same index, the first has the name.

    `arguments` is JSON text or a part of it.
    """

    index: int
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class End:
    """The server says that the reply is over, and what it took; 0 tokens: it did not say."""

    finish: Literal["stop", "length"] | None = None
    tokens_in: int = 0
    tokens_out: int = 0


Piece = Text | Call | End


class Bounds:
    """Counts one reply's pieces."""

    def __init__(self) -> None:
        self._text_bytes = 0
        self._calls_bytes = 0
        self._calls: set[int] = set()

    def take(self, piece: Piece) -> Piece | None:
        """The piece, cut to what there is room for; None when the reply is full and has to end here."""
        if isinstance(piece, Text):
            room = TEXT_MAX_BYTES - self._text_bytes
            encoded = piece.text.encode()
            self._text_bytes += len(encoded)
            if len(encoded) > room:
                cut = encoded[:room].decode(errors="ignore")
                return Text(cut) if cut else None
        elif isinstance(piece, Call):
            self._calls.add(piece.index)
            # Pieces of a name are put together too.
            self._calls_bytes += len(piece.name.encode()) + len(piece.arguments.encode())
            if len(self._calls) > CALLS_MAX or self._calls_bytes > CALLS_MAX_BYTES:
                return None
        return piece

    @property
    def full(self) -> bool:
        """Whether something was left out."""
        return (
            self._text_bytes > TEXT_MAX_BYTES
            or self._calls_bytes > CALLS_MAX_BYTES
            or len(self._calls) > CALLS_MAX
        )
