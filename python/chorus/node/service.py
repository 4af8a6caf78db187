"""The node's body: starts the core out of the settings, logs its lines, exports its counters, notes what
happens to it, stops it last of all.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import orjson

from chorus._core import Core, CoreError
from chorus.config import Assignment, Settings
from chorus.core import core_lines
from chorus.core.config import core_config, multiaddr
from chorus.hub import guard
from chorus.hub.services import SERVICES
from chorus.node.bootstrap import Bootstrap
from chorus.node.journal import Journal
from chorus.node.metrics import CoreMetrics
from chorus.node.role import METHOD, role_method
from chorus.node.starting import follow
from chorus.process import Process
from chorus.table.entry_types import PROPOSABLE
from chorus.telemetry.operations import Operation

# Counters are seen outside at most this late.
METRICS_INTERVAL_S = 2.0


def config_of(settings: Settings, assignment: Assignment) -> str:
    """The core's configuration for these settings and the assignment that counts now."""
    return core_config(
        data_dir=settings.data_dir,
        hub=settings.paths.hub_socket,
        cluster_secret=settings.cluster_secret.get_secret_value(),
        listen=[multiaddr(host, settings.p2p_port) for host in settings.p2p_hosts],
        bootstrap=assignment.bootstrap_peers,
        mdns=settings.mdns_enabled,
        dht=settings.dht_enabled,
        dht_cache_bytes=settings.dht_cache_bytes,
        agent_id=settings.agent_id,
        role=assignment.role,
        role_keys_file=settings.role_keys_file,
        role_grants=settings.role_grants,
        shhh_rules=settings.shhh_rules,
        entry_types=PROPOSABLE,
        members_only=True,
        services=SERVICES,
    )


async def main(process: Process) -> None:
    """Serves the core until the process is asked to stop."""
    p2p = process.operations.begin("p2p_start", "", "starting")
    with core_lines(process.settings.log_level):
        assignment = process.assignments.current
        core = await asyncio.to_thread(Core.start, config_of(process.settings, assignment))
        try:
            await process.connect()
            await process.offer({METHOD: role_method(core, process.log)})
            process.log.info("core started", **orjson.loads(core.info()))
            journal = Journal(process)
            noting = asyncio.create_task(journal.run())
            bootstrap = Bootstrap(process, assignment.bootstrap_peers)
            dialling = asyncio.create_task(guard.lasting(bootstrap.run, "event"))
            starting = asyncio.create_task(_follow_start(process, p2p))
            try:
                await _export(process, core)
            finally:
                following = (noting, dialling, starting)
                for task in following:
                    task.cancel()
                await asyncio.gather(*following, return_exceptions=True)
                await journal.end()
        finally:
            await process.close()
            await asyncio.to_thread(core.stop)


async def _follow_start(process: Process, p2p: Operation) -> None:
    if process.settings.backbeat:
        await guard.alone(lambda: follow(process, p2p), "answer")


async def _export(process: Process, core: Core) -> None:
    exported = CoreMetrics()
    told = -1
    while not process.stopping.is_set():
        try:
            stats = orjson.loads(core.stats())
        except CoreError as error:
            process.health.set(False, f"the core does not answer: {error}")
            raise
        exported.update(stats)
        told = _tell_findings(process, stats, told)
        process.health.set(True, "running", peers=stats.get("peers_connected", 0))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(METRICS_INTERVAL_S):
                await process.stopping.wait()


def _tell_findings(process: Process, stats: dict[str, Any], told: int) -> int:
    """Writes down what the sentinel found since the finding of number `told`; gives the last one's number."""
    for found in stats.get("shhh_audit", ()):
        if found["seq"] > told:
            told = found.pop("seq")
            process.log.warning("a secret was found on its way out", **found)
    return told
