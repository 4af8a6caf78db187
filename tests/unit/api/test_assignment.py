"""What the HTTP surface says of the agent, and what it may read, follow its assignment."""

from __future__ import annotations

from chorus.config import Assignment

from .conftest import Surface


async def test_status_and_keys_are_of_the_present_assignment(surface: Surface) -> None:
    surface.context.assignments.take(Assignment(role="architect", expertise=("rust",), max_tasks=9))
    said = (await surface.api.get("/api/v1/status")).json()
    assert (said["role"], said["expertise"], said["tasks"]["max"]) == ("architect", ["rust"], 9)
    surface.context.assignments.take(Assignment(role="tester"))
    assert (await surface.api.get("/api/v1/status")).json()["role"] == "tester"
    # The core is given another role's keys before anybody hears of the assignment.
    assert set(surface.context.role_keys().roles) == {"member", "tester"}
