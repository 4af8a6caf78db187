"""The types of entries in an agent's signed log. What each of them carries stands in docs/log.md."""

from __future__ import annotations

from typing import Final, Literal, get_args

LogType = Literal[
    # The agent and its settings
    "agent_started",
    "agent_stopped",
    "node_restarted",
    "configuration",
    "license_checked",
    "license_changed",
    "assignment",
    # Peers and the mesh's leadership, as this agent sees them
    "peer_up",
    "peer_down",
    "leader_changed",
    "leader_stepped_down",
    "events_skipped",
    # Tasks that this agent took in, ran or decided on
    "task_submitted",
    "task_cancelled",
    "task_retried",
    "task_started",
    "task_released",
    "task_completed",
    "decision_published",
    "decision_vote",
    # Discussions of plans
    "hmmm_message",
    "hmmm_concluded",
]

LOG_TYPES: Final[tuple[str, ...]] = get_args(LogType)
