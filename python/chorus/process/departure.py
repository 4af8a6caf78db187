"""The note by which a process of this agent asks its parent to have the agent leave its mesh.

Who decides that is the election process; who does it is the parent, at its next start.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from chorus.config.files import sync_folder, write_private

# removed: the mesh removed this agent. merge: a mesh of one joins another. rejoin: it leaves its mesh for
# another. recovered: its mesh goes on as another one. recover: it founds that one.
Kind = Literal["removed", "merge", "rejoin", "recovered", "recover"]


class Departure(BaseModel):
    """Which mesh this agent leaves, which one it is bound for if that is known, and why, in a sentence."""

    model_config = ConfigDict(frozen=True, extra="ignore")

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
        return Departure.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"]))
        raise UnreadableDeparture(f"{field}: {first['msg']}" if field else first["msg"]) from None


def write_departure(path: Path, departure: Departure) -> None:
    """Writes the note in one step; on the disk when this returns. Raises OSError."""
    write_private(path, departure.model_dump_json() + "\n")
    sync_folder(path.parent)
