"""How long a server asks to be left alone: the header Retry-After of RFC 9110."""

from __future__ import annotations

import time
from email.utils import parsedate_to_datetime
from typing import Final

# More is no advice to a running task.
RETRY_AFTER_MAX_S: Final = 24 * 3600.0


def retry_after_s(header: str | None, now: float | None = None) -> float | None:
    """Seconds from now; None where the header is missing or says nothing that can be used. `now` is in
    seconds since the epoch.
    """
    if header is None:
        return None
    text = header.strip()
    if text.isascii() and text.isdigit():
        return min(float(text[:12]), RETRY_AFTER_MAX_S)
    try:
        moment = parsedate_to_datetime(text).timestamp()
    except (ValueError, TypeError, OverflowError):
        return None
    return min(max(0.0, moment - (time.time() if now is None else now)), RETRY_AFTER_MAX_S)
