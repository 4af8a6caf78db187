"""Sizes (`100MB`), durations (`30s`, `5m`) and switches as people write them. Pure."""

from __future__ import annotations

import re

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?", re.IGNORECASE)
_DURATION_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)", re.IGNORECASE)
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
# Docker counts 2GB as 2 * 1024^3 bytes, with or without the "i"; sizes here mean the same.
_BYTES = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}

# Beyond it nothing counts bytes or seconds any more.
_MOST = float(1 << 63)

SWITCHES = {
    "true": True,
    "1": True,
    "yes": True,
    "on": True,
    "false": False,
    "0": False,
    "no": False,
    "off": False,
}

SIZE_FORM = "a size such as 100MB or 2GB"
DURATION_FORM = "a duration such as 500ms, 30s, 5m or 24h"
SWITCH_FORM = "true or false"


def parse_size(text: str) -> int:
    """Bytes; ValueError when the text is no size."""
    match = _SIZE.fullmatch(text.strip())
    if not match:
        raise ValueError(SIZE_FORM)
    size = float(match[1]) * _BYTES[match[2].upper()]
    if size >= _MOST:
        raise ValueError(SIZE_FORM)
    return int(size)


def parse_duration(text: str) -> float:
    """Seconds; parts may be joined (`1h30m`) and need their unit; ValueError when the text is no duration."""
    text = text.strip()
    seconds, position = 0.0, 0
    for part in _DURATION_PART.finditer(text):
        if part.start() != position:
            break
        seconds += float(part[1]) * _SECONDS[part[2].lower()]
        position = part.end()
    if not text or position != len(text) or seconds >= _MOST:
        raise ValueError(DURATION_FORM)
    return seconds


def parse_switch(text: str) -> bool:
    """True or False; ValueError when the text is neither."""
    value = SWITCHES.get(text.strip().lower())
    if value is None:
        raise ValueError(SWITCH_FORM)
    return value
