"""Benches of a mesh of three agents: a committed entry, a task end to end, a task's second command."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import docker
import httpx

from bench.figures import Comparison, figures
from bench.local import PAYLOAD_BYTES
from bench.processes import free_ports, go_peers, times
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
def mesh(environ: dict[str, str], count: int = 3) -> Iterator[list[dict[str, Any]]]:
    """So many agents while the block runs."""
    command = [sys.executable, "-m", "chorus.ctl"]
    context = ["--context", CONTEXT]
    try:
        up = [*command, "up", *context, "-n", str(count), "--detach", "--json"]
        done = subprocess.run(up, env=environ, stdout=subprocess.PIPE, check=True)
        yield json.loads(done.stdout)["agents"]
    finally:
        subprocess.run([*command, "down", *context, "--purge"], env=environ, check=False)


async def entry(agents: list[dict[str, Any]]) -> list[Comparison]:
    """An entry from a follower's Python to its own table, beside a put through a follower of etcd."""
    follower = _follower(agents)
    run_dir = json.loads((Path(follower["data_dir"]) / "agent.json").read_text())["run_dir"]

    ours, peer = list[float](), list[float]()
    etcd = str(go_peers() / "etcd")
    async with await Hub.connect(Path(run_dir) / "hub.sock", "bench") as hub, _etcd() as follower_url:
        # Cancelling a task that nobody knows: a real entry that sets nothing in motion.
        async def once(_: int) -> None:
            head = {"task_id": new_id(), "by": "bench", "reason": "x" * (PAYLOAD_BYTES - 70)}
            await hub.call_service("coordinator", "table.cancel", head)

        for _ in range(ROUNDS):
            ours += await measured(ENTRIES, once)
            peer += await times(etcd, follower_url, str(ENTRIES), str(PAYLOAD_BYTES))
    what = f"entry of {PAYLOAD_BYTES} B committed on 3 disks, through a follower"
    ours_figures = figures("chorus, applied to the table", ours)
    return [Comparison(what, ours_figures, figures("etcd, gRPC from Go", peer), 1.0)]


def _follower(agents: list[dict[str, Any]]) -> dict[str, Any]:
    for agent in agents:
        token = Path(agent["token_file"]).read_text().strip()
        url = f"{agent['api']}/api/v1/election"
        if httpx.get(url, headers={"Authorization": f"Bearer {token}"}).json()["state"] == "follower":
            return agent
    raise RuntimeError("no agent of the mesh follows")


@asynccontextmanager
async def _etcd() -> AsyncIterator[str]:
    """Three etcd members on loopback; yields the client URL of one that follows."""
    ports = free_ports(6)
    members = [f"m{i}=http://127.0.0.1:{ports[i]}" for i in range(3)]
    folder = tempfile.mkdtemp(prefix="chorus-bench-etcd-")
    async with AsyncExitStack() as stack:
        stack.callback(shutil.rmtree, folder, True)
        for i in range(3):
            client, peer = f"http://127.0.0.1:{ports[3 + i]}", f"http://127.0.0.1:{ports[i]}"
            process = await asyncio.create_subprocess_exec(
                "etcd", "--name", f"m{i}", "--data-dir", f"{folder}/m{i}",
                "--initial-cluster", ",".join(members),
                "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer,
                "--listen-client-urls", client, "--advertise-client-urls", client,
                "--log-level", "error", stderr=subprocess.DEVNULL,
            )  # fmt: skip
            stack.push_async_callback(_end, process)
        yield await _etcd_follower([f"http://127.0.0.1:{port}" for port in ports[3:]])


async def _etcd_follower(urls: list[str]) -> str:
    async with asyncio.timeout(60), httpx.AsyncClient(trust_env=False) as http:
        while True:
            for url in urls:
                try:
                    status = (await http.post(f"{url}/v3/maintenance/status", json={})).json()
                except (httpx.HTTPError, ValueError):
                    continue
                if status.get("leader", "0") not in ("0", status["header"]["member_id"]):
                    return url
            await asyncio.sleep(0.1)


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.terminate()
    await process.wait()


def tasks(agents: list[dict[str, Any]]) -> list[Comparison]:
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
