"""Times on the wire: RFC 3339 for people and HTTP, whole milliseconds since 1970 in entries."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

# 1970 to 9998: such a time can be written in UTC, whatever the offset it was given with.
TIME_MAX_MS: Final = int(datetime(9999, 1, 1, tzinfo=UTC).timestamp()) * 1000 - 1
# The last moment that `datetime` can write.
_LAST_MS: Final = int(datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC).timestamp()) * 1000 + 999
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND: Final = timedelta(milliseconds=1)


def rfc3339(stamp_ms: int) -> str:
    """A time as the API writes it: RFC 3339, UTC, milliseconds. What cannot be written so is shown as the
    nearest that can.
    """
    stamp_ms = min(max(stamp_ms, 0), _LAST_MS)
    moment = datetime.fromtimestamp(stamp_ms // 1000, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{stamp_ms % 1000:03d}Z"


def rfc3339_of(seconds: float | None) -> str | None:
    """A time in seconds since 1970 as the API writes it; None for none."""
    return None if seconds is None else rfc3339(round(seconds * 1000))


def stamp_of(moment: datetime) -> int:
    """An aware time in milliseconds since 1970, without a detour over floats."""
    return (moment - _EPOCH) // _MILLISECOND
