"""The moments of the last calls of a provider with a limit, kept over restarts in a private file."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Final

from pydantic import Field, TypeAdapter, ValidationError

from chorus.config.files import write_private
from chorus.mind.rate import RESETDATA_CALLS_PER_MINUTE

_FILE_MAX_BYTES: Final = 16 * 1024
_FORM: Final = TypeAdapter(list[Annotated[float, Field(allow_inf_nan=False)]])


class KeptCalls:
    """The file. `clock` gives seconds since the epoch."""

    def __init__(self, path: Path, clock: Callable[[], float] = time.time) -> None:
        self._path = path
        self._clock = clock

    def ages(self) -> list[float]:
        """How many seconds ago each call was made, the oldest first.

        As if the whole limit had been used just now where the file cannot be read.
        """
        try:
            with self._path.open("rb") as file:
                moments = _FORM.validate_json(file.read(_FILE_MAX_BYTES))
        except FileNotFoundError:
            return []
        except (OSError, ValidationError):
            return [0.0] * RESETDATA_CALLS_PER_MINUTE
        now = self._clock()
        # A clock that was set back since makes no call one of the future.
        return sorted((max(0.0, now - moment) for moment in moments), reverse=True)

    def write(self, ages: Sequence[float]) -> None:
        """Keeps them, before the newest call is made."""
        now = self._clock()
        # On a full disk they are forgotten at a restart, which is better than no call at all.
        with contextlib.suppress(OSError):
            write_private(self._path, _FORM.dump_json([now - age for age in ages]).decode() + "\n")
