"""Which build this is: version, commit and date, as the core was built with them."""

from __future__ import annotations

import functools
import importlib
import re

from chorus import __version__

UNKNOWN = "unknown"


@functools.cache
def build_info() -> tuple[str, str, str]:
    """Version, short commit and build date; the last two are unknown where the core is not built."""
    try:
        _core = importlib.import_module("chorus._core")
    except ImportError:
        return release(__version__), UNKNOWN, UNKNOWN
    return (
        release(str(getattr(_core, "__version__", __version__))),
        str(getattr(_core, "BUILD_COMMIT", UNKNOWN)),
        str(getattr(_core, "BUILD_DATE", UNKNOWN)),
    )


def release(version: str) -> str:
    """`0.5.0.dev0`, as Python's packages write it, is `0.5.0-dev` to everybody else."""
    return re.sub(r"\.?dev0?$", "-dev", version).replace("--", "-")


def version_line() -> str:
    """The first line of help, and all of `--version`."""
    version, commit, date = build_info()
    return f"CHORUS-agent {version} (build: {commit}, {date})"
