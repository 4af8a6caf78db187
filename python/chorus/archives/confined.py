"""Has archives read by a child process: it alone is lost to whatever they hold, by memory, time or disk."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Any

from chorus.archives.answers import CPU_MAX_S, Listed, Stored
from chorus.archives.errors import ArchiveRefused, ArchiveTooLarge

# The child's processor time is bounded by itself; this is for a machine that has none for it, or a disk that
# hangs.
DEADLINE_S = 600.0
# Run, and not imported: what it reads archives with stays out of this process.
CHILD = Path(__file__).with_name("child.py")


async def check(source: Path, *, bytes_max: int) -> int:
    """The size of an archive unpacked, when a sandbox may have it.

    Raises ArchiveRefused, ArchiveTooLarge beyond `bytes_max`, OSError.
    """
    answer = await _ask({"action": "check", "source": str(source), "bytes_max": bytes_max})
    return int(answer["size"])


async def clean(source: Path, into: Path, *, bytes_max: int) -> None:
    """Writes a clean tar of a tar or tar.gz. Raises ArchiveRefused, ArchiveTooLarge, OSError."""
    await _ask({"action": "clean", "source": str(source), "into": str(into), "bytes_max": bytes_max})


async def take(
    source: Path, wanted: Collection[str], folder: Path, *, bytes_max: int
) -> tuple[dict[str, Stored], str]:
    """Stores the wanted files of an archive under numbers, by their paths; beside them, in words, what kept
    the rest from being read.

    Raises ArchiveRefused, OSError when nothing can be said of any of them.
    """
    request = {"action": "take", "source": str(source), "wanted": list(wanted), "folder": str(folder)}
    answer = await _ask({**request, "bytes_max": bytes_max})
    return {path: tuple(stored) for path, stored in answer["stored"].items()}, str(answer["broken"])


async def index(source: Path) -> dict[str, Listed]:
    """The files and links of a plain tar, by their paths. Raises ArchiveRefused, ArchiveTooLarge, OSError."""
    size = (await asyncio.to_thread(source.stat)).st_size
    answer = await _ask({"action": "index", "source": str(source), "bytes_max": size})
    return {path: tuple(listed) for path, listed in answer["files"].items()}


async def _ask(request: dict[str, Any]) -> dict[str, Any]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-I", "-S", str(CHILD)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        cwd="/",
        env={},
    )
    try:
        async with asyncio.timeout(DEADLINE_S):
            said, _ = await process.communicate(json.dumps(request).encode())
    except TimeoutError:
        raise ArchiveRefused(f"reading it takes longer than {DEADLINE_S:g} s") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode == -signal.SIGXCPU:
        raise ArchiveRefused(f"reading it takes more than {CPU_MAX_S} s of a processor")
    if process.returncode != 0:
        raise ArchiveRefused(f"reading it failed with {process.returncode}")
    answer: dict[str, Any] = json.loads(said)
    if (why := answer.get("too_large")) is not None:
        raise ArchiveTooLarge(why)
    if (why := answer.get("refused")) is not None:
        raise ArchiveRefused(why)
    if (disk := answer.get("disk")) is not None:
        raise OSError(*disk)
    return answer
