"""What the parent tells of a licence that changes while the agent runs, and when its entries are written."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any

import pytest

from chorus.agent.entries import WAITING_MAX, Entries
from chorus.agent.licensing import LicenceTeller
from chorus.hub import HubError
from chorus.license.status import LicenceStatus, load
from chorus.process.logs import Logger
from chorus.testing.fake_hub import FakeMesh

DEADLINE_S = 20.0
LIMITS = {"max_agents": 10, "lease_ttl_s": 60.0, "permissions": ["agent:run"]}
CHECKED, UNTIL = 1_800_000_000.0, 1_800_086_400.0
VALID = LicenceStatus("valid", checked=CHECKED, limits=LIMITS)
GRACE = LicenceStatus("grace", "slow", "KACHING does not answer in time", CHECKED, UNTIL, limits=LIMITS)


def told(folder: Path, *statuses: LicenceStatus) -> list[dict[str, Any]]:
    entries = Entries()
    teller = LicenceTeller(folder / "license.json", Logger(logging.getLogger("test-licence")), entries)
    for status in statuses:
        teller.tell(status)
    assert load(folder / "license.json") == statuses[-1]
    assert {type for type, _ in entries.waiting} <= {"license_changed"}
    return [data for _, data in entries.waiting]


def test_a_renewal_that_changes_nothing_is_not_written(tmp_path: Path) -> None:
    later = LicenceStatus("valid", checked=CHECKED + 20, checks=2, limits=LIMITS)
    assert told(tmp_path, VALID, later, later) == []


def test_grace_and_its_end_are_written_once(tmp_path: Path) -> None:
    # Another reason of the same outage is no other state.
    other = LicenceStatus("grace", "garbage", "cannot be read", CHECKED, UNTIL, limits=LIMITS)
    grace, valid = told(tmp_path, VALID, GRACE, GRACE, other, VALID)
    assert (grace["state"], grace["before"], grace["reason"]) == ("grace", "valid", "slow")
    assert (grace["detail"], grace["until"]) == (GRACE.detail, "2027-01-16T08:00:00.000Z")
    assert (valid["state"], valid["before"], valid["reason"], valid["until"]) == ("valid", "grace", "", None)


def test_other_limits_are_named(tmp_path: Path) -> None:
    fewer = LicenceStatus("valid", checked=CHECKED, limits={**LIMITS, "max_agents": 2, "lease_ttl_s": 5.0})
    [said] = told(tmp_path, VALID, fewer, fewer)
    assert (said["state"], said["changed"]) == ("valid", ["lease_ttl_s", "max_agents"])
    assert said["limits"]["max_agents"] == 2


def test_a_suspension_and_a_start_in_grace_are_written(tmp_path: Path) -> None:
    suspended = LicenceStatus("suspended", "suspended", "have it resumed", CHECKED, limits=LIMITS)
    start, end = told(tmp_path, GRACE, suspended)
    assert (start["state"], start["before"]) == ("grace", None)
    assert (end["state"], end["before"], end["detail"]) == ("suspended", "grace", "have it resumed")


async def test_entries_wait_for_the_node_and_keep_their_order() -> None:
    mesh, entries = FakeMesh(), Entries()
    hub = mesh.hub("a", "agent")
    append, failures = hub.log_append, [HubError("the disk is full", code="internal")]

    async def failing(type: str, data: Any) -> int:
        if failures:
            raise failures.pop()
        return await append(type, data)

    hub.log_append = failing  # type: ignore[method-assign]
    # Nobody writes yet: the oldest of too many is left out.
    for number in range(WAITING_MAX + 1):
        entries.add("license_changed", {"number": number})
    await entries.settle(0.0)
    assert len(entries.waiting) == WAITING_MAX
    async with asyncio.timeout(DEADLINE_S):
        with pytest.raises(HubError):
            await entries._write(hub)
        writing = asyncio.create_task(entries._write(hub))
        await entries.settle(DEADLINE_S)
        entries.add("assignment", {"number": WAITING_MAX + 1})
        await entries.settle(DEADLINE_S)
    writing.cancel()
    written = [entry["data"]["number"] for entry in mesh.agent("a").log]
    assert written == list(range(1, WAITING_MAX + 2))
    assert entries.waiting == []
