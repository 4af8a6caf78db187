"""Full text over what lies at UCXL addresses: asks the curator's index, which the coordinator keeps."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

from chorus.api.ucxi_answers import Code, Refusal
from chorus.curator.index import Hit, IndexReader


class Texts:
    """Searches the index at `path`; without a path there is none."""

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._reader = IndexReader(path) if path is not None else None

    @property
    def available(self) -> bool:
        """Whether there is an index to search."""
        return self._path is not None and self._path.exists()

    async def search(
        self, text: str, *, limit: int, pattern: str | None = None, kinds: Sequence[str] = ()
    ) -> list[Hit]:
        """Texts with all the words at addresses of a pattern, best first."""
        if self._reader is None or not self.available:
            raise Refusal(
                Code.SERVICE_UNAVAILABLE,
                "this agent has no full-text index yet; query by address alone",
                details={"index": "absent"},
                headers={"Retry-After": "1"},
            )
        # A search may look at many texts: the loop has others to serve.
        return await asyncio.to_thread(self._reader.search, text, limit=limit, pattern=pattern, kinds=kinds)
