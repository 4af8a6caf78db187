"""What every process does alike: settings, logs, the watch on the parent, signals, the hub, health.

A process body is a coroutine that is given a `Process` and returns when `stopping` is set.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

from chorus.config import Assignment, Settings, load_run_settings
from chorus.config.values import from_json
from chorus.hub import Handler, Hub, HubInvalid, Reply, Request, StreamHandler, guard
from chorus.process import alive, crashes, death, exit_codes, logs
from chorus.process.assignments import Assignments
from chorus.process.logs import Logger
from chorus.process.sentinel import scanner_of
from chorus.telemetry.operations import Operations

Main = Callable[["Process"], Awaitable[None]]


class Health:
    """What this process says about itself when asked."""

    def __init__(self) -> None:
        self.ok = True
        self.detail = "running"
        self.more: dict[str, Any] = {}

    def set(self, ok: bool, detail: str, **more: Any) -> None:
        """Replaces the answer."""
        self.ok, self.detail, self.more = ok, detail, more

    def answer(self) -> dict[str, Any]:
        """The head of the reply to `health`."""
        return {**self.more, "ok": self.ok, "detail": self.detail}


class Process:
    """One process of the agent, as its body sees it."""

    def __init__(self, name: str, settings: Settings, log: Logger) -> None:
        self.name = name
        self.settings = settings
        self.assignments = Assignments(_at_start(settings))
        self.log = log
        self.stopping = asyncio.Event()
        self.health = Health()
        # Whether the last life of this process was ended because it did not answer its parent.
        self.was_unresponsive = False
        self.metrics: Any = _metrics()
        # Followed by BACKBEAT, where it is on.
        self.operations = Operations(bool(settings.backbeat))
        self._handing_over: asyncio.Task[None] | None = None
        self._hub: Hub | None = None
        self._following: asyncio.Task[None] | None = None

    @property
    def hub(self) -> Hub:
        """The connection to the core, back by itself after a loss."""
        if self._hub is None:
            raise RuntimeError(f"{self.name} has not connected to the hub yet")
        return self._hub

    async def connect(self) -> Hub:
        """Connects to the hub, offers `health`, follows the assignment; done before the body runs, if it is
        not the hub's own.
        """
        if self._hub is None:
            self._hub = await Hub.connect(self.settings.paths.hub_socket, self.name)
            await self.offer({})
            self._following = asyncio.create_task(self._follow_assignments(self._hub))
            if self.settings.backbeat:
                work = self.operations.hand_over
                hub = self._hub
                self._handing_over = asyncio.create_task(guard.lasting(lambda: work(hub), "answer"))
        return self._hub

    async def offer(
        self, methods: Mapping[str, Handler], *, peers: bool = False, streams: StreamHandler | None = None
    ) -> None:
        """Serves these methods, and `health`, as the service of this process's name."""
        known: dict[str, Handler] = {"health": self._answer_health, **methods}

        async def serve(request: Request) -> Reply | dict[str, Any] | None:
            method = known.get(request.method)
            if method is None:
                raise HubInvalid(f"{self.name} has no method {request.method!r}")
            return await method(request)

        await self.hub.offer(self.name, serve, peers=peers, streams=streams)

    async def _follow_assignments(self, hub: Hub) -> None:
        await guard.lasting(lambda: self.assignments.follow(hub), "event")

    async def _answer_health(self, request: Request) -> dict[str, Any]:
        return self.health.answer()

    async def close(self) -> None:
        """Ends the connection to the hub."""
        if self._following is not None:
            self._following.cancel()
        if self._handing_over is not None:
            self._handing_over.cancel()
        if self._hub is not None:
            await self._hub.close()


def _at_start(settings: Settings) -> Assignment:
    """The assignment as the parent left it for processes that begin later than the agent did."""
    try:
        return from_json(Assignment, json.loads(settings.paths.assignment_json.read_bytes()))
    except (OSError, ValueError):
        return settings.assignment  # it has not changed since the start


def _metrics() -> Any:
    return importlib.import_module("chorus.process.metrics")


def load(run_dir: Path) -> None:
    """Loads and makes now what each process of this run directory would: for whoever forks processes, once
    all else is loaded that they are made of.
    """
    import uvloop  # noqa: F401

    from chorus.core import Scanner
    from chorus.wire import schema

    _metrics()
    Scanner(bytes(32))  # its rules are compiled once, whatever its key
    load_run_settings(run_dir)  # the types of its fields are read once
    schema.prepare()


def run(name: str, main: Main, *, hub: bool = True) -> NoReturn:
    """Runs `main` as the process `name` and exits: 0 after a stop that was asked for, 1 after an error.

    `hub=False` is for the process that serves the hub: it connects with `process.connect()` when it serves.
    """
    run_dir = Path(os.environ["CHORUS_RUN_DIR"])
    # First of all: until here the parent could be gone already.
    death.die_with_parent_process()
    alive.watch(Path(os.environ["CHORUS_ALIVE"]))
    settings = load_run_settings(run_dir)
    sentinel = scanner_of(settings)
    log = logs.configure(name, settings.agent_id, settings.log_level, settings.log_format, sentinel=sentinel)
    process = Process(name, settings, log)
    process.metrics.note_start(name)
    guard.count = process.metrics.note_handling_failure
    process.was_unresponsive = crashes.take_unresponsive(run_dir, name)
    if process.was_unresponsive:
        process.metrics.PROCESS_UNRESPONSIVE.labels(name).inc()
    sys.exit(_run_loop(process, main, hub))


def _run_loop(process: Process, main: Main, hub: bool) -> int:
    import uvloop

    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(_body(process, main, hub))
    except Exception:
        process.log.exception("ended by an error")
        return exit_codes.FAILED


async def _body(process: Process, main: Main, hub: bool) -> int:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, process.stopping.set)
    process.log.info("started", pid=os.getpid())
    # Absent where nobody watches.
    events = os.environ.get("CHORUS_EVENTS")
    signs = asyncio.create_task(alive.give_signs(Path(events), process.name)) if events else None
    try:
        if hub and not await _unless_stopping(process, process.connect()):
            return exit_codes.CLEAN
        await main(process)
    finally:
        await process.close()
        if signs is not None:
            signs.cancel()
    if not process.stopping.is_set():
        process.log.error("the body returned although nobody asked for a stop")
        return exit_codes.FAILED
    process.log.info("stopped")
    return exit_codes.CLEAN


async def _unless_stopping(process: Process, work: Any) -> bool:
    """Whether `work` was done before a stop was asked for; its error is raised."""
    stop = asyncio.create_task(process.stopping.wait())
    task = asyncio.ensure_future(work)
    try:
        await asyncio.wait((stop, task), return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            await task
            return True
        return False
    finally:
        stop.cancel()
        task.cancel()
