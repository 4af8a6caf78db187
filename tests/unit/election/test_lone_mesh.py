"""When a mesh counts as one that has only ever had this member: it may then give itself up for another."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from chorus.election.lone import is_lone
from chorus.hub import RaftStatus

ME, OTHER = "peer-me", "peer-other"


def lone(
    members: list[str], *, applied: int = 5, listed: int = 1, mesh: str = "m", recovers: tuple[str, ...] = ()
) -> bool:
    status = RaftStatus.from_head(
        {
            "mesh": "m",
            "commit": 5,
            "members": [{"raft_id": n, "peer": peer, "voter": True} for n, peer in enumerate(members, 1)],
            "founding": {"recovers": list(recovers)},
        }
    )
    reader: Any = SimpleNamespace(
        mesh=lambda: SimpleNamespace(mesh=mesh), applied=lambda: applied, ever_listed=lambda: listed
    )
    return is_lone(status, reader, ME)


def test_a_mesh_of_this_agent_alone() -> None:
    assert lone([ME])


@pytest.mark.parametrize(
    "facts",
    [
        {"members": [ME, OTHER]},
        # Just joined: its log does not have its own place yet.
        {"members": [OTHER]},
        {"members": []},
        {"members": [ME], "listed": 2},
        {"members": [ME], "applied": 4},
        {"members": [ME], "mesh": "an earlier one"},
        {"members": [ME], "recovers": ("m0",)},
    ],
    ids=str,
)
def test_every_other_one(facts: dict[str, Any]) -> None:
    assert not lone(**facts)
