"""What an agent says of its health on `chorus/health`."""

from __future__ import annotations

import time

from .conftest import Surface, attempt_row


async def test_health_is_told_at_each_change_and_every_half_minute(surface: Surface) -> None:
    observer = surface.observer

    async def look() -> int:
        await observer.observe()
        await observer._announce()
        return len([topic for _, topic, _, _ in surface.mesh.published if topic == "chorus/health"])

    assert await look() == 1
    assert await look() == 1
    surface.table.running_on = lambda peer: [attempt_row(1), attempt_row(2)]  # type: ignore[method-assign]
    assert await look() == 2
    _, _, type, data = surface.mesh.published[-1]
    assert (type, data["active"]) == ("health_status", 2)
    assert await look() == 2
    observer._announce_next = time.monotonic()
    assert await look() == 3
