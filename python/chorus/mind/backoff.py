"""How long to wait before the next try. Pure: chance is an argument."""

from __future__ import annotations

from typing import Final

TRIES_MAX: Final = 4
WAIT_FIRST_S: Final = 0.5
WAIT_MAX_S: Final = 8.0
# A server that asks for more than this is not waited for in one call.
RETRY_AFTER_WAIT_MAX_S: Final = 60.0


def wait_s(failures: int, chance: float, retry_after_s: float | None = None) -> float | None:
    """Seconds to wait after so many failures in a row (1: the first); None: give up for now.

    `chance` is between 0 and 1 and spreads the tries of many agents that failed together.
    """
    if failures >= TRIES_MAX or (retry_after_s or 0.0) > RETRY_AFTER_WAIT_MAX_S:
        return None
    most = min(WAIT_FIRST_S * 2.0 ** (failures - 1), WAIT_MAX_S)
    waited: float = most * (0.5 + 0.5 * chance)
    return waited if retry_after_s is None else max(waited, retry_after_s * (1 + 0.1 * chance))
