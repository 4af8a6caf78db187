"""What the checks of `/health` mean to who reads them."""

from __future__ import annotations

from typing import Final

# Told by a check, and nobody's work waits for them.
DECIDE_NOTHING: Final = frozenset({"clock", "dht", "backbeat"})
