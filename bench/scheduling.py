"""Bench of scheduling alone: tasks a second with an executor that runs nothing."""

from __future__ import annotations

import configparser
import os
import tempfile
import time
import xmlrpc.client
from contextlib import AsyncExitStack
from typing import Final

import uvloop
from supervisor.xmlrpc import SupervisorTransport

from bench.agents import Agent, hub_socket, run_dir
from bench.figures import Amounts
from bench.mesh import mesh
from bench.processes import module, running
from bench.submitter import Submitter
from bench.usage import Processor, cores

ROUNDS: Final = 5
ROUND_S: Final = 5.0
# Of one submitter a mesh takes a thousand open tasks.
AT_ONCE: Final = 300
MAX_TASKS: Final = 300
TARGET: Final = 2000


def scheduling() -> list[Amounts]:
    """Tasks a second, each submitted over HTTP, awarded, claimed, started, and ended at once.

    In each agent a process of the bench takes its executor's place. It writes no decision record.
    """
    with tempfile.TemporaryDirectory(prefix="chorus-bench-") as folder:
        environ = {
            **os.environ,
            "XDG_STATE_HOME": folder,
            "CHORUS_AGENT_MAX_TASKS": str(MAX_TASKS),
            # No containers come and go beside what is measured.
            "CHORUS_SANDBOX_WARM": "0",
        }
        with mesh(environ) as agents:
            return uvloop.run(_scheduling(agents))


async def _scheduling(agents: list[Agent]) -> list[Amounts]:
    rates, taken, own = list[float](), list[dict[str, float]](), list[float]()
    async with AsyncExitStack() as stack:
        for agent in agents:
            _stop_executor(agent)
            executor = module("stand_ins", "executor", str(hub_socket(agent)))
            await stack.enter_async_context(running(*executor))
        submitter = await stack.enter_async_context(Submitter(agents, {"commands": ["true"]}, AT_ONCE))
        for _ in range(ROUNDS):
            processor = Processor(*(agent["pid"] for agent in agents))
            began, used = time.monotonic(), time.process_time()
            rates.append(await submitter.rate(ROUND_S))
            taken.append(processor.shares())
            own.append((time.process_time() - used) / (time.monotonic() - began))
    note = f"the submitter took {sum(own) / ROUNDS:.2f} cores; the agents {cores(taken)}"
    what = f"tasks without a sandbox, 3 agents, {AT_ONCE} under way"
    return [Amounts(what, "tasks/s", rates, TARGET, at_least=True, note=note)]


def _stop_executor(agent: Agent) -> None:
    """Has supervisord end it; it stays so, as for an operator."""
    conf = configparser.RawConfigParser()
    conf.read(run_dir(agent) / "supervisord.conf")
    server = conf["unix_http_server"]
    transport = SupervisorTransport(server["username"], server["password"], f"unix://{server['file']}")
    with xmlrpc.client.ServerProxy("http://supervisor", transport=transport) as supervisord:
        supervisord.supervisor.stopProcess("executor")
