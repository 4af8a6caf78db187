"""The assignment: what an agent is good for and whom it turns to. It is the one part of the settings that may
change while the agent runs; everything else stands from the start.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Final

from chorus.config import forms
from chorus.config.setting import Group, Setting

TASKS_MAX: Final = 1_000


@dataclass(frozen=True, kw_only=True)
class Assignment(Group):
    """One assignment, whole. Field names are those of WHOOSH's documents too."""

    title = "Assignment"

    role: Annotated[
        str,
        Setting(
            "CHORUS_AGENT_ROLE",
            forms.A_NAME,
            help="The agent's role, such as admin, developer or reviewer: which tasks ask for it, and which "
            "sealed contents it can read.",
        ),
    ] = ""
    expertise: Annotated[
        tuple[str, ...],
        Setting("CHORUS_AGENT_EXPERTISE", forms.WORDS, help="What the agent knows about, such as rust,go."),
    ] = ()
    specialization: Annotated[
        str,
        Setting("CHORUS_AGENT_SPECIALIZATION", forms.A_WORD, "general", "The kind of tasks it is meant for."),
    ] = "general"
    reports_to: Annotated[
        str,
        Setting("CHORUS_AGENT_REPORTS_TO", forms.AGENT_ID, help="The agent that supervises this one."),
    ] = ""
    max_tasks: Annotated[
        int,
        Setting(
            "CHORUS_AGENT_MAX_TASKS",
            forms.whole(1, TASKS_MAX),
            "3",
            "How many tasks it takes at once.",
        ),
    ] = 3
    bootstrap_peers: Annotated[
        tuple[str, ...],
        Setting(
            "CHORUS_BOOTSTRAP_PEERS",
            forms.MULTIADDRS,
            help="Agents beyond this network that are dialled.",
        ),
    ] = ()
