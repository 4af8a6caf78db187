"""What the HTTP surface says of the assignment, and how it is loaded anew."""

from __future__ import annotations

from typing import Any

import pytest

from chorus.api.checks import Answer
from chorus.hub import HubRefused, Request

from .conftest import Surface


class Parent:
    """The agent's parent, as far as it is asked."""

    def __init__(self, surface: Surface) -> None:
        self.hub = surface.mesh.hub("a", "agent")
        self.refusing = False
        self.ok = True

    async def answer(self, request: Request) -> dict[str, Any]:
        if self.refusing:
            raise HubRefused("there is no assignment to load: ASSIGN_URL is not set")
        if request.method == "health":
            return {"ok": self.ok, "detail": "no assignment yet, the environment speaks alone"}
        report = {"source": "server", "changed": ["role"], "kept": [], "refused": [], "error": ""}
        return report if request.method == "reload" else {"url": "http://h/a", "last_load": report}


async def test_a_reload_and_the_status(surface: Surface) -> None:
    parent = Parent(surface)
    # Before the parent serves, the status has the assignment alone.
    assert (await surface.api.get("/api/v1/status")).json()["assignment"]["max_tasks"] == 3
    await parent.hub.offer("agent", parent.answer)
    assert (await surface.api.post("/api/v1/reload")).json()["changed"] == ["role"]
    said = (await surface.api.get("/api/v1/status")).json()["assignment"]
    assert (said["url"], said["last_load"]["source"]) == ("http://h/a", "server")
    parent.refusing = True
    refused = await surface.api.post("/api/v1/reload")
    assert refused.status_code == 409
    assert "ASSIGN_URL" in refused.json()["detail"]


@pytest.mark.parametrize("more_environ", [{"ASSIGN_URL": "https://h/a.json"}])
async def test_without_its_assignment_an_agent_is_not_ready(surface: Surface) -> None:
    parent = Parent(surface)
    parent.ok = False
    await parent.hub.offer("agent", parent.answer)
    await surface.observer.observe()
    verdict = surface.observer.verdict
    assert verdict is not None
    check = next(each for each in verdict.checks if each.name == "assignment")
    assert (check.ok, check.critical) == (False, False)
    assert "environment" in check.detail
    assert not verdict.ready
    parent.ok = True
    assert await surface.observer._ask_parent() == Answer(True, check.detail)


async def test_where_nothing_is_to_be_loaded_nothing_is_checked(surface: Surface) -> None:
    await surface.observer.observe()
    assert surface.observer.verdict is not None
    assert "assignment" not in [each.name for each in surface.observer.verdict.checks]
