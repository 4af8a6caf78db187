"""Full text over what lies at UCXL addresses: asks the curator's index, where this agent has one."""

from __future__ import annotations

import asyncio
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from chorus.api.ucxi_answers import Code, Refusal

# Where the curator keeps its index, in the data directory.
INDEX_FILE: Final = "curator.sqlite"
# As many hits are asked for as are looked through for those that fit the pattern.
HITS_MAX: Final = 1_000
_PACKAGE: Final = "chorus.curator"


class Texts:
    """Searches the index at `path`."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @property
    def available(self) -> bool:
        """Whether there is an index to search."""
        return find_spec(_PACKAGE) is not None and self._path.exists()

    async def search(self, text: str) -> list[Any]:
        """Hits, best first, each with address, version, score and snippet."""
        if not self.available:
            raise Refusal(
                Code.SERVICE_UNAVAILABLE,
                "this agent has no full-text index; query by address alone",
                details={"index": "absent"},
            )
        reader = import_module(f"{_PACKAGE}.index").IndexReader(self._path)
        hits: list[Any] = await asyncio.to_thread(reader.search, text, limit=HITS_MAX)
        return hits
