"""Settings of a mesh: elections, members, leases. A mesh goes by those of its founder (`MeshSettings`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Final, Literal

from chorus.config import forms
from chorus.config.setting import Group, Setting

# Five votes carry a mesh of a hundred; more only cost the leader.
VOTERS_MAX: Final = 31


@dataclass(frozen=True, kw_only=True)
class TimingSettings(Group):
    """How members of a mesh wait for each other, and how many vote."""

    title = "Mesh"

    heartbeat_s: Annotated[
        float,
        Setting("CHORUS_ELECTION_HEARTBEAT", forms.duration("100ms"), "5s", "How often the leader is heard."),
    ]
    election_timeout_s: Annotated[
        float,
        Setting(
            "CHORUS_ELECTION_TIMEOUT",
            forms.duration("300ms"),
            "15s",
            "Silence of the leader after which another one is elected; at least three heartbeats.",
        ),
    ]
    voters: Annotated[
        int,
        Setting("CHORUS_VOTERS", forms.whole(1, VOTERS_MAX), "5", "How many members vote at most."),
    ]
    member_absence_s: Annotated[
        float,
        Setting(
            "CHORUS_MEMBER_ABSENCE",
            forms.duration("1s"),
            "10m",
            "How long a member may be away before it is removed ([operations.md](operations.md)).",
        ),
    ]
    rejoin: Annotated[
        bool,
        Setting(
            "CHORUS_REJOIN",
            forms.SWITCH,
            "false",
            "Whether an agent whose mesh is gone joins another one that it meets; the image says true.",
        ),
    ]
    join_wait_s: Annotated[
        float,
        Setting(
            "CHORUS_ELECTION_JOIN_WAIT",
            forms.duration("0s"),
            "3s",
            "How long an agent looks for a mesh before it founds one.",
        ),
    ]
    leaderless: Annotated[
        Literal["run", "wait"],
        Setting(
            "CHORUS_LEADERLESS",
            forms.one_of("run", "wait"),
            "run",
            "Whether an agent runs tasks handed to it while the mesh has no leader.",
            later=True,
        ),
    ]
    task_lease_s: Annotated[
        float,
        Setting(
            "CHORUS_TASK_LEASE",
            forms.duration("600ms"),
            "30s",
            "How long an executor may be out of touch; at least twice the election timeout.",
        ),
    ]
