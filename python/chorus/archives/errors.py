"""Why an archive is not taken."""

from __future__ import annotations

# What is quoted of an archive's own names.
_TOLD_CHARS_MAX = 200


class ArchiveRefused(Exception):
    """The archive is malformed or names something it must not; the message says what."""


class ArchiveTooLarge(ArchiveRefused):
    """Unpacked it would be larger than allowed."""


def told(name: str) -> str:
    """A name out of an archive as a message may hold it: short, and without control characters."""
    clean = "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in name[:_TOLD_CHARS_MAX])
    return clean if len(name) <= _TOLD_CHARS_MAX else f"{clean}…"
