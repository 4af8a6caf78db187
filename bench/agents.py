"""The agents of a bench as seen from outside: what they say of themselves, and what their processes take."""

from __future__ import annotations

import contextlib
import json
import os
import re
import time
from collections.abc import Iterable, Mapping, Sequence
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
_TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")
_PROGRAM: Final = re.compile(rb"\0chorus\.([a-z_.]+)\0")
# Programs that take less of a core are not named.
_NAMED_FROM: Final = 0.05


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


def processes(agent: Agent) -> dict[int, str]:
    """The pids of an agent's living processes, the parent's first, each with its program's name."""
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and (stat := _stat(int(folder.name))):
            children.setdefault(int(stat[1]), []).append(int(folder.name))
    found, left = dict[int, str](), [int(agent["pid"])]
    while left:
        pid = left.pop(0)
        with contextlib.suppress(OSError):
            named = _PROGRAM.search(Path(f"/proc/{pid}/cmdline").read_bytes())
            found[pid] = named[1].decode() if named else "parent and others"
        left += children.get(pid, ())
    return found


def _stat(pid: int) -> list[str]:
    """State, parent and what follows (proc(5), from the third field on); nothing of one that has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return []
    return [] if fields[0] == "Z" else fields


def memory_mb(pids: Iterable[int]) -> float:
    """The proportional set size of these processes together, in 10^6 bytes: shared pages counted once."""
    kilobytes = 0
    for pid in pids:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                kilobytes += int(line.split()[1])
    return kilobytes * 1024 / 1e6


class Processor:
    """What the agents' programs take of the processor from here on."""

    def __init__(self, agents: Sequence[Agent]) -> None:
        self._agents = agents
        self._before = self._used_s()
        self._began = time.monotonic()

    def shares(self) -> dict[str, float]:
        """How many cores each program took since then, in all agents together."""
        passed_s = time.monotonic() - self._began
        used = self._used_s()
        return {name: max(0.0, used[name] - self._before.get(name, 0.0)) / passed_s for name in used}

    def _used_s(self) -> dict[str, float]:
        used: dict[str, float] = {}
        for agent in self._agents:
            for pid, name in processes(agent).items():
                if stat := _stat(pid):
                    # utime and stime.
                    used[name] = used.get(name, 0.0) + (int(stat[11]) + int(stat[12])) / _TICKS_PER_S
        return used


def cores(rounds: Sequence[Mapping[str, float]]) -> str:
    """The mean of such shares in words, the largest first."""
    names = {name for shares in rounds for name in shares}
    mean = {name: sum(shares.get(name, 0.0) for shares in rounds) / len(rounds) for name in names}
    largest = sorted(mean.items(), key=lambda item: -item[1])
    named = [f"{name} {share:.2f}" for name, share in largest if share >= _NAMED_FROM]
    return f"{sum(mean.values()):.2f} of {os.cpu_count()} cores ({', '.join(named)})"
