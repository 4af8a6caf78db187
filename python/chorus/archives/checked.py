"""Checks archives where tasks come in, a few at once; what was well once is not read again."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from pathlib import Path

from chorus.archives import confined
from chorus.archives.errors import ArchiveTooLarge

# Each takes a core and up to the child's memory.
_AT_ONCE = 2
# Sources that are sent with one task after the other; 100 bytes each.
_REMEMBERED_MAX = 1024


class CheckedArchives:
    """One per process. Archives are named by the hash of their bytes."""

    def __init__(self) -> None:
        self._gate = asyncio.Semaphore(_AT_ONCE)
        self._sizes: OrderedDict[str, int] = OrderedDict()

    async def check(self, sha256: str, path: Path, *, bytes_max: int) -> None:
        """Returns when a sandbox with so large a disk may have it.

        Raises ArchiveRefused, ArchiveTooLarge, OSError.
        """
        size = self._sizes.get(sha256)
        if size is None:
            async with self._gate:
                size = await confined.check(path, bytes_max=bytes_max)
            self._sizes[sha256] = size
            while len(self._sizes) > _REMEMBERED_MAX:
                self._sizes.popitem(last=False)
        elif size > bytes_max:
            raise ArchiveTooLarge(f"it holds {size} bytes unpacked")
