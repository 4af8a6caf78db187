"""Counts in texts: "1 file", "2 files". Pure."""

from __future__ import annotations


def counted(number: object, one: str, many: str = "") -> str:
    """A number and what it counts; `many` is the plural where it is not `one` with an s.

    A number of a peer's may be anything: it is shown as it is.
    """
    return f"{number} {one if type(number) is int and number == 1 else many or one + 's'}"
