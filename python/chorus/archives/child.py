"""The child that reads archives: run by path in a bare interpreter, with limits that it sets for itself.

A request comes as JSON on standard input, the answer goes as JSON to standard output. Whatever an archive
does to it, nothing but this process is lost.
"""

from __future__ import annotations

import json
import resource
import sys
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    # By path and without site packages it starts in a few milliseconds; what it needs lies beside it.
    sys.path.insert(0, str(Path(__file__).parents[2]))

from chorus.archives import clean
from chorus.archives.answers import CPU_MAX_S, MEMORY_MAX_BYTES
from chorus.archives.errors import ArchiveRefused, ArchiveTooLarge
from chorus.archives.index import index
from chorus.process.death import die_with_parent_process

_FILES_MAX = 32
# A clean archive has a header of its own for a long name, where another had it in the member's.
_GROWTH_MAX = 3
_ENDS_BYTES = 1024 * 1024


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """Does what is asked; `refused` and `too_large` say why an archive is not taken."""
    bytes_max = int(request["bytes_max"])
    try:
        with Path(request["source"]).open("rb") as source:
            if request["action"] == "take":
                folder = Path(request["folder"])
                stored, broken = clean.take(source, set(request["wanted"]), folder, bytes_max=bytes_max)
                return {"stored": stored, "broken": broken}
            if request["action"] == "index":
                return {"files": index(source, bytes_max=bytes_max)}
            into = Path(request["into"]) if request["action"] == "clean" else None
            return {"size": clean.sanitize(source, into, bytes_max=bytes_max)}
    except ArchiveTooLarge as error:
        return {"too_large": str(error)}
    except ArchiveRefused as error:
        return {"refused": str(error)}
    except MemoryError:
        return {"refused": f"reading it takes more than {MEMORY_MAX_BYTES >> 20} MiB of memory"}
    except OSError as error:
        return {"disk": [error.errno, error.strerror]}


def _limit(file_bytes: int) -> None:
    # The parent's end must not leave it behind.
    die_with_parent_process()
    for what, limit in (
        (resource.RLIMIT_AS, MEMORY_MAX_BYTES),
        (resource.RLIMIT_CPU, CPU_MAX_S),
        (resource.RLIMIT_FSIZE, file_bytes),
        (resource.RLIMIT_NOFILE, _FILES_MAX),
        (resource.RLIMIT_CORE, 0),
    ):
        # The hard limit stays: it is what tells an end by the processor's time from other kills.
        hard = resource.getrlimit(what)[1]
        resource.setrlimit(what, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))


def main() -> None:
    """One request, one answer."""
    request = json.load(sys.stdin)
    _limit(_GROWTH_MAX * int(request["bytes_max"]) + _ENDS_BYTES)
    json.dump(answer(request), sys.stdout)


if __name__ == "__main__":
    main()
