"""Bench of output: when its first byte is at the submitter, how fast much of it comes, and what it takes."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, Self

from bench.agents import Agent
from bench.figures import Amounts
from bench.mesh import REFILL_S
from bench.usage import Processor, cores, memory, tree
from chorus.ctl.client import Client
from chorus.ctl.contexts import Endpoint, Target
from chorus.ctl.follow import follow
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
    """Output of a task at its submitter, who follows its events at another agent than the one that runs it.

    Of an attempt's output 64 MiB are kept and sent, and the rest is read and counted: the time of all of it
    is that of the task.
    """
    first, kept, whole, growth, kept_mb = (list[float]() for _ in range(5))
    taken = list[dict[str, float]]()
    with _Submitter(agents[0]) as submitter:
        # What the first task of an agent loads is not the output's.
        submitter.much()
        # Tasks that come alone go to the same agent.
        other = next(agent for agent in agents if agent["agent_id"] not in submitter.ran_by)
    with _Submitter(other) as submitter:
        submitter.much()
        for _ in range(ROUNDS):
            first += submitter.first()
            processor = Processor(*(agent["pid"] for agent in agents))
            with _growth(agents, growth):
                seen_mb, seen_s, whole_s = submitter.much()
            taken.append(processor.shares())
            kept_mb.append(seen_mb)
            kept.append(seen_mb / seen_s)
            whole.append(MUCH_BYTES / 1e6 / whole_s)
        away = sum(agent_id != other["agent_id"] for agent_id in submitter.ran_by)
        away_note = (
            f"{away} of {len(submitter.ran_by)} tasks ran at another agent than the one that was asked"
        )
    much = f"{MUCH_BYTES / 1e9:g} GB of output"
    kept_what = f"output at the submitter, as much of {much} as is kept"
    kept_note = f"{kept_mb[-1]:.1f} MB are kept of each attempt"
    whole_what = f"{much} to the task's end at the submitter"
    whole_note = f"the agents took {cores(taken)}"
    return [
        Amounts("a line at the submitter, after its write", "ms", first, FIRST_TARGET_MS, note=away_note),
        Amounts(kept_what, "MB/s", kept, RATE_TARGET, at_least=True, note=kept_note),
        Amounts(whole_what, "MB/s", whole, RATE_TARGET, at_least=True, note=whole_note),
        Amounts(f"growth of all agents' memory (PSS) meanwhile, {much}", "MB", growth, MEMORY_TARGET_MB),
    ]


class _Submitter:
    """Submits tasks to an agent and follows their output there. A context manager."""

    def __init__(self, agent: Agent) -> None:
        token = Path(agent["token_file"]).read_text().strip()
        self._client = Client(Target((Endpoint(agent["api"], token),)))
        # The agents that ran the tasks.
        self.ran_by: list[str] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def first(self) -> list[float]:
        """Milliseconds from each line's write to its arrival."""
        taken, rest = list[float](), b""
        for output in self._outputs(CLOCK):
            now = time.time()
            *lines, rest = (rest + output).split(b"\n")
            taken += [(now - float(line)) * 1000 for line in lines]
        if len(taken) != LINES:
            raise RuntimeError(f"{len(taken)} lines came of {LINES}")
        return taken

    def much(self) -> tuple[float, float, float]:
        """10^6 bytes that came, seconds between the first and the last of them, and those to the end."""
        began = last = 0.0
        seen = 0
        for output in self._outputs(MUCH):
            last = time.monotonic()
            began = began or last
            seen += len(output)
        return seen / 1e6, last - began, time.monotonic() - began

    def _outputs(self, command: str) -> Iterator[bytes]:
        """The output of a task with this command, as it comes."""
        # The next warm container is there.
        time.sleep(REFILL_S)
        task_id = new_id()
        self._client.submit({"task_id": task_id, "title": "bench", "commands": [command]}, None)
        for event in follow(self._client, task_id):
            if event.event == "output":
                yield event.output()
        if event.data.get("state") != "completed":
            raise RuntimeError(f"a task of the bench did not complete: {event}")
        self.ran_by.append(event.data["agent_id"])


@contextmanager
def _growth(agents: list[Agent], growth: list[float]) -> Iterator[None]:
    """Adds by how much the agents' memory grew at most while the block ran."""
    pids = [pid for agent in agents for pid in tree(agent["pid"])]

    def now_mb() -> float:
        held = 0.0
        for pid in pids:
            with suppress(FileNotFoundError, ProcessLookupError):
                held += memory(pid).pss
        return held

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
