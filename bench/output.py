"""Bench of output: when its first byte is at the submitter, how fast much of it comes, and what it takes."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from bench.agents import Agent, in_state
from bench.figures import Amounts
from bench.mesh import REFILL_S
from bench.usage import memory, tree
from chorus.ctl.client import Client
from chorus.ctl.contexts import Endpoint, Target
from chorus.ctl.follow import TaskEvent, follow
from chorus.wire.ids import new_id

ROUNDS: Final = 3
LINES: Final = 100
LINES_APART_S: Final = 0.05
# This shell takes the clock itself, right before it writes.
CLOCK: Final = f"bash -c 'for i in $(seq {LINES}); do echo $EPOCHREALTIME; sleep {LINES_APART_S}; done'"
MUCH_BYTES: Final = 1_000_000_000
MUCH: Final = f"yes {'x' * 99} | head -c {MUCH_BYTES}"
SAMPLE_S: Final = 0.2
FIRST_TARGET_MS: Final = 5
RATE_TARGET: Final = 100
# Flat: far less than the output, and than what of it is kept.
MEMORY_TARGET_MB: Final = 20


def output(agents: list[Agent]) -> list[Amounts]:
    """Output of a task at its submitter, who follows its events at an agent that follows the leader.

    A task that comes alone is run by the leader, so that its output comes from another agent. Of an attempt's
    output 64 MiB are kept and sent, and the rest is read and counted: the time of all of it is that of the
    task.
    """
    agent = in_state(agents, "follower")
    token = Path(agent["token_file"]).read_text().strip()
    first, kept, whole, growth, kept_mb = (list[float]() for _ in range(5))
    with Client(Target((Endpoint(agent["api"], token),))) as client:
        # What the first task of an agent loads is not the output's.
        _much(client)
        for _ in range(ROUNDS):
            first += _first(client)
            with _growth(agents, growth):
                seen_mb, seen_s, whole_s = _much(client)
            kept_mb.append(seen_mb)
            kept.append(seen_mb / seen_s)
            whole.append(MUCH_BYTES / 1e6 / whole_s)
    much = f"{MUCH_BYTES / 1e9:g} GB of output"
    return [
        Amounts("a line of output at the submitter, after its write", "ms", first, FIRST_TARGET_MS),
        Amounts(
            f"output at the submitter, as much of {much} as is kept",
            "MB/s",
            kept,
            RATE_TARGET,
            at_least=True,
            note=f"{kept_mb[-1]:.1f} MB are kept of each attempt",
        ),
        Amounts(f"{much} to the task's end at the submitter", "MB/s", whole, RATE_TARGET, at_least=True),
        Amounts(f"growth of all agents' memory (PSS) meanwhile, {much}", "MB", growth, MEMORY_TARGET_MB),
    ]


def _first(client: Client) -> list[float]:
    """Milliseconds from each line's write to its arrival."""
    taken, rest = list[float](), b""
    for event in _events(client, CLOCK):
        now = time.time()
        *lines, rest = (rest + event.output()).split(b"\n")
        taken += [(now - float(line)) * 1000 for line in lines]
    if len(taken) != LINES:
        raise RuntimeError(f"{len(taken)} lines came of {LINES}")
    return taken


def _much(client: Client) -> tuple[float, float, float]:
    """10^6 bytes that came, the seconds between the first and the last of them, and those to the end."""
    began = last = 0.0
    seen = 0
    for event in _events(client, MUCH):
        last = time.monotonic()
        began = began or last
        seen += len(event.output())
    return seen / 1e6, last - began, time.monotonic() - began


def _events(client: Client, command: str) -> Iterator[TaskEvent]:
    """The events `output` of a task with this command, as they come."""
    # The next warm container is there.
    time.sleep(REFILL_S)
    task_id = new_id()
    client.submit({"task_id": task_id, "title": "bench", "commands": [command]}, None)
    for event in follow(client, task_id):
        if event.event == "output":
            yield event
        last = event
    if last.data.get("state") != "completed":
        raise RuntimeError(f"a task of the bench did not complete: {last}")


@contextmanager
def _growth(agents: list[Agent], growth: list[float]) -> Iterator[None]:
    """Adds by how much the agents' memory grew at most while the block ran."""
    pids = [pid for agent in agents for pid in tree(agent["pid"])]

    def now_mb() -> float:
        return sum(memory(pid).pss for pid in pids)

    before = most = now_mb()
    over = threading.Event()

    def sample() -> None:
        nonlocal most
        while not over.wait(SAMPLE_S):
            most = max(most, now_mb())

    sampling = threading.Thread(target=sample)
    sampling.start()
    try:
        yield
    finally:
        over.set()
        sampling.join()
    growth.append(most - before)
