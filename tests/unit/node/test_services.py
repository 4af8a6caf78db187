"""The table of services: what the agent's processes offer is in it, and peers reach nothing else."""

from __future__ import annotations

import ast
from pathlib import Path

import orjson
import pytest

import chorus
from chorus.core.config import core_config
from chorus.hub import HubError
from chorus.hub.services import SERVICES
from chorus.testing.fake_hub import FakeMesh

PACKAGE = Path(chorus.__file__).parent
# Names that are not literals where a service is offered.
NAMED = {
    "SERVICE": {"coordinator": "coordinator", "election": "election"},
    "PEER_SERVICE": {"election": "mesh"},
}


def offered(process: str) -> set[str]:
    """The services that the code of a process offers: those by name, and the one of its own name."""
    found = {process}
    for path in (PACKAGE / process).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr == "offer"
                and node.args
            ):
                continue
            first = node.args[0]
            if isinstance(first, ast.Constant):
                found.add(str(first.value))
            elif isinstance(first, ast.Name):
                found.add(NAMED[first.id][process])
    return found


@pytest.mark.parametrize("process", ["node", "api", "election", "coordinator", "executor"])
def test_what_a_process_offers_is_its_own_in_the_table(process: str) -> None:
    assert offered(process) == {name for name, service in SERVICES.items() if service.process == process}


def test_the_core_is_given_the_table() -> None:
    text = core_config(
        data_dir=Path("/d"), hub=Path("/h"), cluster_secret=b"s" * 32, members_only=True, services=SERVICES
    )
    config = orjson.loads(text)
    assert config["members_only"] is True
    methods = ["challenge", "info", "join", "last", "lease", "remove", "standing"]
    assert config["services"]["mesh"] == {"process": "election", "peers": methods}
    assert config["services"]["election"]["peers"] == []


@pytest.mark.parametrize(
    ("service", "method"),
    [
        ("coordinator", "drain"),
        ("coordinator", "table.submit"),
        ("executor", "release"),
        ("election", "transfer"),
    ],
)
async def test_a_peer_does_not_reach_what_is_for_the_agents_own_processes(service: str, method: str) -> None:
    mesh = FakeMesh()
    answered = []

    async def answer(request: object) -> dict[str, object]:
        answered.append(request)
        return {}

    await mesh.hub("a", service).offer(service, answer, peers=True)
    with pytest.raises(HubError) as refused:
        await mesh.hub("b", "api").request(mesh.agent("a").peer_id, service, method)
    assert (refused.value.code, answered) == ("not_permitted", [])
    await mesh.hub("a", "api").call_service(service, method)
    assert len(answered) == 1
