"""Benches of a mesh of three agents: a committed entry, a task end to end, a task's second command."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import docker

from bench.agents import Agent, hub_socket, in_state, propose
from bench.etcd import Etcd
from bench.figures import Comparison, figures
from bench.local import PAYLOAD_BYTES
from bench.processes import go_peers, numbers
from bench.timing import measured
from chorus.ctl.client import Client
from chorus.ctl.contexts import Endpoint, Target
from chorus.ctl.follow import follow
from chorus.hub import Hub
from chorus.wire.ids import new_id

# Ours and the peer's take turns, so that other work on the machine meets both.
ROUNDS = 5
ENTRIES = 100
TASKS = 6
EXECS = 6
# A task takes the one warm container of its image: the next comes when there is another.
REFILL_S = 1.0
# As many commands as a task may have, less the first.
MORE_COMMANDS = 63
IMAGE = "anthonyrawlins/chorus-base:latest"
CONTEXT = "bench"


@contextmanager
def mesh(environ: dict[str, str], count: int = 3) -> Iterator[list[Agent]]:
    """So many agents while the block runs."""
    command = [sys.executable, "-m", "chorus.ctl"]
    context = ["--context", CONTEXT]
    try:
        up = [*command, "up", *context, "-n", str(count), "--detach", "--json"]
        done = subprocess.run(up, env=environ, stdout=subprocess.PIPE, check=True)
        yield json.loads(done.stdout)["agents"]
    finally:
        subprocess.run([*command, "down", *context, "--purge"], env=environ, check=False)


async def entry(agents: list[Agent]) -> list[Comparison]:
    """An entry from a follower's Python to its own table, beside a put through a follower of etcd."""
    ours, peer = list[float](), list[float]()
    etcd = str(go_peers() / "etcd")
    hub_path = hub_socket(in_state(agents, "follower"))
    async with await Hub.connect(hub_path, "bench") as hub, Etcd() as cluster:
        url = await cluster.follower()
        for _ in range(ROUNDS):
            ours += await measured(ENTRIES, lambda _: propose(hub))
            peer += await numbers(etcd, "put", url, str(ENTRIES), str(PAYLOAD_BYTES))
    what = f"entry of {PAYLOAD_BYTES} B committed on 3 disks, through a follower"
    ours_figures = figures("chorus, applied to the table", ours)
    return [Comparison(what, ours_figures, figures("etcd, gRPC from Go", peer), 1.0)]


def tasks(agents: list[Agent]) -> list[Comparison]:
    """`true` from submission to its end as the submitter sees it, and what each further command adds."""
    token = Path(agents[0]["token_file"]).read_text().strip()
    one, many, execs = list[float](), list[float](), list[float]()
    with Client(Target((Endpoint(agents[0]["api"], token),))) as client, _container() as container:
        _task(client, 1)
        for _ in range(ROUNDS):
            one += [_task(client, 1) for _ in range(TASKS)]
            many.append(_task(client, 1 + MORE_COMMANDS))
            execs += [_docker_exec(container) for _ in range(EXECS)]
    base = figures("", one).p50
    further = [max(0.0, taken - base) / MORE_COMMANDS for taken in many]
    peer = figures("docker exec", execs)
    return [
        Comparison("task `true`, end to end over HTTP, 3 agents", figures("chorus", one), peer, 0.5),
        Comparison("second and later command of a task", figures("chorus", further), peer, 0.05),
    ]


def _task(client: Client, commands: int) -> float:
    time.sleep(REFILL_S)
    started = time.perf_counter_ns()
    task_id = new_id()
    client.submit({"task_id": task_id, "title": "bench", "commands": ["true"] * commands}, None)
    last = list(follow(client, task_id))[-1]
    taken = (time.perf_counter_ns() - started) / 1000
    if last.data.get("state") != "completed":
        raise RuntimeError(f"a task of the bench did not complete: {last}")
    return taken


@contextmanager
def _container() -> Iterator[str]:
    """A container that sleeps."""
    engine = docker.from_env()
    container = engine.containers.run(IMAGE, ["sleep", "3600"], detach=True, network_mode="none")
    try:
        yield str(container.id)
    finally:
        container.remove(force=True)
        engine.close()


def _docker_exec(container: str) -> float:
    started = time.perf_counter_ns()
    subprocess.run(["docker", "exec", container, "true"], check=True)
    return (time.perf_counter_ns() - started) / 1000
