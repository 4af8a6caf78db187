"""The agents of a bench as seen from outside: what they say of themselves, and where their hubs are."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import httpx

from bench.local import PAYLOAD_BYTES
from chorus.hub import Hub
from chorus.wire.ids import new_id

# As `chorusctl up --json` describes one.
Agent = dict[str, Any]

ELECTED_WITHIN_S: Final = 30.0
POLL_S: Final = 0.1


def bearer(agent: Agent) -> dict[str, str]:
    """The header that an agent's API asks for."""
    return {"Authorization": f"Bearer {Path(agent['token_file']).read_text().strip()}"}


def ask(agent: Agent, path: str) -> Any:
    """The JSON of an agent's answer; raises httpx.HTTPError."""
    answer = httpx.get(f"{agent['api']}{path}", headers=bearer(agent), timeout=10, trust_env=False)
    return answer.raise_for_status().json()


def in_state(agents: Sequence[Agent], state: str) -> Agent:
    """An agent that is in this state of the election: leader or follower. Waits for an election."""
    deadline = time.monotonic() + ELECTED_WITHIN_S
    while time.monotonic() < deadline:
        for agent in agents:
            if ask(agent, "/api/v1/election")["state"] == state:
                return agent
        time.sleep(POLL_S)
    raise RuntimeError(f"no agent of the mesh is {state}")


def run_dir(agent: Agent) -> Path:
    """Its run directory."""
    return Path(json.loads((Path(agent["data_dir"]) / "agent.json").read_text())["run_dir"])


def hub_socket(agent: Agent) -> Path:
    """Where its hub listens."""
    return run_dir(agent) / "hub.sock"


async def propose(hub: Hub) -> None:
    """Has an entry of PAYLOAD_BYTES committed and applied where the hub is.

    Cancelling a task that nobody knows: a real entry that sets nothing in motion.
    """
    head = {"task_id": new_id(), "by": "bench", "reason": "x" * (PAYLOAD_BYTES - 70)}
    await hub.call_service("coordinator", "table.cancel", head)
