"""The note by which a process of this agent asks its parent to have the agent leave its mesh.

Who decides that is the election process; who does it is the parent, at its next start.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from chorus.config.files import sync_folder, write_private
from chorus.config.values import as_json, from_json

# removed: the mesh removed this agent. merge: a mesh of one joins another. rejoin: it leaves its mesh for
# another. recovered: its mesh goes on as another one. recover: it founds that one.
Kind = Literal["removed", "merge", "rejoin", "recovered", "recover"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Departure:
    """Which mesh this agent leaves, which one it is bound for if that is known, and why, in a sentence."""

    kind: Kind
    mesh: str
    to: str | None = None
    why: str = ""

    @property
    def takes_along(self) -> bool:
        """Whether what the table holds comes along into the next mesh."""
        return self.kind in ("merge", "recover")


class UnreadableDeparture(Exception):
    """The note does not say what to do."""


def read_departure(path: Path) -> Departure | None:
    """The note, if there is one. Raises UnreadableDeparture, and OSError for the disk."""
    try:
        return _departure(json.loads(path.read_bytes()))
    except FileNotFoundError:
        return None
    except (ValueError, RecursionError) as error:
        raise UnreadableDeparture(str(error)) from None


def _departure(said: Any) -> Departure:
    if isinstance(said, dict):
        # What another version says besides is passed over.
        said = {field.name: said[field.name] for field in fields(Departure) if field.name in said}
    return from_json(Departure, said)


def write_departure(path: Path, departure: Departure) -> None:
    """Writes the note in one step; on the disk when this returns. Raises OSError."""
    write_private(path, json.dumps(as_json(departure)) + "\n")
    sync_folder(path.parent)
