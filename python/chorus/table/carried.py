"""The carry file: what an agent takes along from one mesh to another, through a change of all its state.

Its first line is a header, `{"origin": mesh id, "recovers": bool}`. Each line after it is an entry to
propose, `{"id", "type", "body"}`; those about one subject are in the order that they need.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import orjson

from chorus.wire.ids import is_id

# A header is far shorter.
HEADER_MAX_BYTES: Final = 4096
# The field that names what an entry is about; a vote is about its decision.
_SUBJECT = {
    "import_part": "of",
    "import_task": "task_id",
    "import_ballot": "hash",
    "import_decision": "hash",
    "import_version": "address",
    "import_member": "peer",
    "import_goal": "task_id",
}


@dataclass(frozen=True, slots=True)
class Header:
    """Where the lines come from; `recovers`: this agent's new mesh was founded to go on from it."""

    origin: str
    recovers: bool

    def encode(self) -> bytes:
        """The header as a line."""
        return orjson.dumps({"origin": self.origin, "recovers": self.recovers}) + b"\n"


@dataclass(frozen=True, slots=True)
class Line:
    """An entry to propose."""

    id: str
    type: str
    body: dict[str, Any]

    def encode(self) -> bytes:
        """The entry as a line."""
        return orjson.dumps({"id": self.id, "type": self.type, "body": self.body}) + b"\n"

    @property
    def subject(self) -> str:
        """What the entry is about: those of one subject are proposed one after the other."""
        return str(self.body.get(_SUBJECT.get(self.type, "")))


def read_header(line: bytes) -> Header:
    """Raises ValueError for what is no header."""
    said = orjson.loads(line)
    if not isinstance(said, dict) or not isinstance(origin := said.get("origin"), str):
        raise ValueError("not the header of a carry file")
    return Header(origin, said.get("recovers") is True)


def header_of(path: Path) -> Header | None:
    """The header of a carry file; None when there is none. Raises OSError."""
    try:
        with path.open("rb") as file:
            return read_header(file.readline(HEADER_MAX_BYTES))
    except (FileNotFoundError, ValueError):
        return None


def read_line(line: bytes) -> Line:
    """Raises ValueError for what is no line of a carry file."""
    said = orjson.loads(line)
    if not isinstance(said, dict):
        raise ValueError("not a line of a carry file")
    ident, type, body = said.get("id"), said.get("type"), said.get("body")
    if not is_id(ident) or not isinstance(type, str) or not isinstance(body, dict):
        raise ValueError("not a line of a carry file")
    return Line(str(ident), type, body)
