"""What all schemas of foreign words have in common: of messages, bodies, entries, files."""

from __future__ import annotations

from typing import Final

from pydantic import BaseModel, ConfigDict


class Schema(BaseModel):
    """Frozen. Its check is made when it is first needed, or by `prepare`: a process knows many more schemas
    than it ever meets words for, and a check that is ready takes memory.
    """

    model_config = ConfigDict(frozen=True, defer_build=True)


# The same for a TypeAdapter, which takes it as its `config`.
DEFERRED: Final = ConfigDict(defer_build=True)


def prepare() -> None:
    """Makes the checks of all schemas that are loaded: for whoever forks processes, which then share them."""
    waiting: list[type[BaseModel]] = [Schema]
    while waiting:
        schema = waiting.pop()
        waiting += schema.__subclasses__()
        schema.model_rebuild()
