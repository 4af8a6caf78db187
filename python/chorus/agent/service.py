"""The parent's life: start, watch over supervisord, answer signals, drain, stop. It is process 1 in a
container.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import itertools
import os
import random
import signal
import sqlite3
import sys
import time
from collections.abc import Sequence

from chorus.agent import rpc
from chorus.agent.assigning import Assigning
from chorus.agent.drain import Drain, report
from chorus.agent.entries import Entries
from chorus.agent.folders import write_agent_json
from chorus.agent.generation import Generation
from chorus.agent.identity import load_peer_id
from chorus.agent.licensing import LicenceTeller
from chorus.agent.problems import StartupError, license_line
from chorus.agent.proctitle import claim_name
from chorus.agent.programs import Program, programs_of, stop_seconds
from chorus.agent.relay import Relay, stderr_writer
from chorus.agent.restarts import Restarts
from chorus.agent.startup import LoadPeerId, Prepared, prepare
from chorus.agent.watchdog import Patience, Watchdog
from chorus.config import MeshSettings, Paths, Settings
from chorus.hub import guard
from chorus.process import exit_codes, logs
from chorus.process.alive import SIGN
from chorus.process.departure import Departure, UnreadableDeparture, read_departure
from chorus.process.sentinel import scanner_of
from chorus.table.reader import TableReader

_PR_SET_CHILD_SUBREAPER = 36
# supervisord that ends by itself is started again: at once, then more slowly.
RESPAWN_FIRST_S = 0.1
RESPAWN_MAX_S = 10.0
WELL_AFTER_S = 60.0
# What supervisord may take beyond its programs' own times.
STOP_SLACK_S = 10.0
LOG_FLUSH_S = 2.0
# What a stop waits for its last entries in the agent's signed log.
ENTRIES_S = 2.0
_SUPERVISORD = "supervisord"
# It gives a sign every five seconds, one of which may be lost to its loop's second.
SUPERVISORD_SLACK_S = 10.0


def start(
    programs: Sequence[Program] | None = None,
    load_identity: LoadPeerId = load_peer_id,
    patience: Patience | None = None,
) -> int:
    """Starts the agent in the foreground; returns the exit code when it has ended. `programs`: others than
    those that its settings ask for.
    """
    claim_name()
    environ: dict[str, str] = dict(os.environ)
    stagger = 1
    while True:
        # Until the loop handles them, a signal means: stop, and there is nothing to clean up but folders.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, _stop_early)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        try:
            prepared = prepare(environ, load_identity)
        except StartupError as error:
            for line in error.lines:
                print(line, file=sys.stderr)
            return exit_codes.FAILED
        try:
            # A random share of it, so that a fleet does not come to the mesh in one moment.
            time.sleep(random.random() * stagger * prepared.assigned.stagger_s)
            stagger = 0
            agent = Agent(prepared, programs or programs_of(prepared.settings.ai.provider), patience)
            code = asyncio.run(agent.run())
        finally:
            prepared.close()
        if agent.unlicensed:
            print(license_line(agent.unlicensed), file=sys.stderr)
        if not agent.anew:
            return code
        # Those who know this agent's ports go on knowing them.
        settings = prepared.settings
        environ["CHORUS_P2P_PORT"] = str(settings.p2p_port)
        environ["CHORUS_API_PORT"] = str(settings.api_port)
        environ["CHORUS_HEALTH_PORT"] = str(settings.health_port)


def _stop_early(number: int, frame: object) -> None:
    raise SystemExit(exit_codes.CLEAN)


class Agent:
    """One running agent, as its parent process sees it."""

    def __init__(
        self, prepared: Prepared, programs: Sequence[Program], patience: Patience | None = None
    ) -> None:
        self._settings = prepared.settings
        self._notices = prepared.notices
        self._lease = prepared.lease
        self._programs = programs
        self._writer = stderr_writer()
        who, level, form = self._settings.agent_id, self._settings.log_level, self._settings.log_format
        self._scanner = scanner_of(self._settings)
        self._log = logs.configure(
            "agent", who, level, form, write=self._writer.write, sentinel=self._scanner
        )
        self._entries = Entries()
        self._assigning = Assigning(
            self._settings,
            prepared.assigned.environment,
            prepared.assigned.first,
            self._log,
            self._entries,
            named=prepared.assigned.named,
        )
        self._drain = Drain(self._settings, self._log)
        self._restarts = Restarts(self._settings.paths.crashes_json, self._log, self._start_program)
        self._watchdog = Watchdog(patience)
        self._generation: Generation | None = None
        self._supervisord_gone = asyncio.Event()
        self._stop_asked = asyncio.Event()
        self._stopping = asyncio.Event()
        # Why the licence holds no longer, so that this agent ends; "" while it holds.
        self.unlicensed = ""
        # Whether it ends only to begin anew, with a new identity or in another mesh.
        self.anew = False

    async def run(self) -> int:
        """Lives until a stop was asked for and done."""
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGCHLD, self._reap)
        loop.add_signal_handler(signal.SIGHUP, self._on_hangup)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_stop_signal, number)
        self._settings.paths.agent_json.unlink(missing_ok=True)
        self._log.info("starting", version=self._settings.version, data_dir=str(self._settings.data_dir))
        for notice in self._notices:
            self._log.warning(notice)
        own = Relay(self._writer, self._log.bind(source="supervisord"), self._scanner, supervisord=True)
        programs = Relay(self._writer, self._log, self._scanner, supervisord=False)
        for relay in (own, programs):
            relay.start(loop)
        keeper = asyncio.create_task(self._keep_supervisord(own.write_end, programs.write_end))
        reporter = asyncio.create_task(self._report())
        watching = asyncio.create_task(self._watch())
        assigning = asyncio.create_task(guard.lasting(self._assigning.run, "answer"))
        licensing = asyncio.create_task(self._keep_licence())
        entries = asyncio.create_task(
            guard.lasting(lambda: self._entries.run(self._settings.paths.hub_socket), "answer")
        )
        try:
            await self._until_stop_asked(keeper)
            await self._drain.run()
            await self._entries.settle(ENTRIES_S)
            watching.cancel()
            assigning.cancel()
            await self._stop(keeper)
        finally:
            for task in (reporter, watching, assigning, licensing, entries):
                task.cancel()
            await self._give_lease_back()
            for relay in (own, programs):
                relay.close(loop)
            self._log.info("stopped")
            self._writer.close(LOG_FLUSH_S)
        return exit_codes.FAILED if self.unlicensed else exit_codes.CLEAN

    async def _until_stop_asked(self, keeper: asyncio.Task[None]) -> None:
        asked = asyncio.create_task(self._stop_asked.wait())
        await asyncio.wait({asked, keeper}, return_when=asyncio.FIRST_COMPLETED)
        asked.cancel()
        if keeper.done():
            # It ends only by an error, such as a run directory that is gone.
            self._log.error("supervisord cannot be kept running", exc_info=keeper.exception())
            keeper.result()

    async def _keep_supervisord(self, stdout: int, stderr: int) -> None:
        loop = asyncio.get_running_loop()
        wait = RESPAWN_FIRST_S
        for number in itertools.count():
            self._generation = Generation(number, self._settings.paths, self._programs)
            self._supervisord_gone.clear()
            self._generation.start(os.environ, stdout, stderr)
            self._watchdog.started(_SUPERVISORD, self._generation.pid)
            self._generation.listen(loop, self._on_event)
            started = loop.time()
            waking = asyncio.create_task(self._generation.wake())
            await self._supervisord_gone.wait()
            waking.cancel()
            await self._generation.end(loop)
            self._restarts.new_generation()
            self._watchdog.clear()
            if self._stopping.is_set():
                return
            if loop.time() - started > WELL_AFTER_S:
                wait = RESPAWN_FIRST_S
            self._log.error(f"supervisord ended; it is started anew in {wait:g} s")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._stopping.wait()
                    return
            wait = min(wait * 2, RESPAWN_MAX_S)

    async def _stop(self, keeper: asyncio.Task[None]) -> None:
        self._stopping.set()
        self._restarts.stop()
        generation = self._generation
        if generation is not None:
            generation.signal(signal.SIGTERM)
        _, late = await asyncio.wait({keeper}, timeout=stop_seconds(self._programs) + STOP_SLACK_S)
        if late and generation is not None:
            self._log.error("supervisord did not end in time and is killed")
            generation.signal(signal.SIGKILL)
        await keeper

    async def _report(self) -> None:
        state = await report(self._settings)
        addresses = [str(address) for address in state["listen"]]
        write_agent_json(self._settings, addresses)
        host = self._settings.api_host
        host = f"[{host}]" if ":" in host else host
        self._log.info(
            "running",
            peer_id=self._settings.peer_id,
            p2p=addresses,
            api=f"http://{host}:{self._settings.api_port}",
            health=f"http://{host}:{self._settings.health_port}",
        )

    def _start_program(self, name: str) -> str:
        generation = self._generation
        if generation is None:
            return "supervisord is not running"
        return rpc.start_program(self._settings.paths.supervisor_socket, generation.password, name)

    def _on_event(self, event: str, fields: dict[str, str]) -> None:
        """What supervisord tells of its programs, and signs of life: theirs and its own."""
        name, pid = fields.get("processname", ""), fields.get("pid", "")
        if event == SIGN:
            if name and pid.isdecimal():
                self._watchdog.answered(name, int(pid))
            return
        if self._generation is not None:
            self._watchdog.answered(_SUPERVISORD, self._generation.pid, slack_s=SUPERVISORD_SLACK_S)
        if event == "PROCESS_STATE_RUNNING" and pid.isdecimal():
            if any(program.name == name for program in self._programs):
                self._watchdog.started(name, int(pid))
        elif event.startswith("PROCESS_STATE_"):
            self._watchdog.ended(name)
        self._restarts.on_event(event, fields)

    async def _watch(self) -> None:
        """Ends what lives and does not answer; supervisord, or `_keep_supervisord`, starts it again."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(self._watchdog.patience.look_every_s)
            if not self._stop_asked.is_set():
                self._begin_anew_if_asked()
            for name, pid in self._watchdog.look(loop.time()):
                if self._generation is None or not (name == _SUPERVISORD or self._generation.has(pid)):
                    continue
                self._log.error(f"{name} lives and does not answer; it is ended", program=name, pid=pid)
                if name == _SUPERVISORD:
                    self._restarts.unresponsive_supervisord(name)
                else:
                    self._restarts.unresponsive(name)
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    async def _keep_licence(self) -> None:
        """Renews the licence; when it holds no longer, has this agent drain and end."""
        if self._lease is None:
            return
        teller = LicenceTeller(self._settings.paths.license_status, self._log, self._entries)
        self._lease.tell = teller.tell
        teller.tell(self._lease.status)
        try:
            state = await self._lease.run()
            why = self._lease.why
        except Exception as error:
            # Fails closed: an agent that cannot check its licence has none.
            self._log.exception("the licence cannot be checked")
            state, why = None, f"it cannot be checked: {error!r}"
        if self._stop_asked.is_set() and not self.anew:
            return
        self.unlicensed, self.anew = why, False
        self._log.error(
            "the licence holds no longer: ending when tasks in flight are done",
            state="unknown" if state is None else state.name,
            reason=why,
        )
        self._stop_asked.set()

    async def _give_lease_back(self) -> None:
        if self._lease is not None and (why := await self._lease.give_back()):
            self._log.warning(
                "the lease was not given back; its seat is free when it has run out", reason=why
            )

    def _begin_anew_if_asked(self) -> None:
        """Ends this run for another one, when a process has left word that this agent needs a new identity or
        leaves its mesh: the next start sees to that.
        """
        paths = self._settings.paths
        if paths.identity_lost.exists():
            self._log.warning("beginning anew with a new identity")
            departure = None
        elif paths.departure.exists():
            departure = _departure(paths)
            why = "" if departure is None else departure.why
            self._log.warning("leaving the mesh, and beginning anew", reason=why)
        else:
            return
        if departure is not None and departure.kind == "merge":
            # Its own mesh still takes results: what ends within a lease need not run twice.
            self._drain.within(_lease_s(self._settings))
        else:
            # A mesh that does not count this agent waits for nothing of it.
            self._drain.hurry()
        self.anew = True
        self._stop_asked.set()

    def _reap(self) -> None:
        # Everything that ends below us ends here at last, as this process is a subreaper or process 1.
        with contextlib.suppress(ChildProcessError):
            while (pid := os.waitpid(-1, os.WNOHANG)[0]) != 0:
                if self._generation is not None and pid == self._generation.pid:
                    self._supervisord_gone.set()

    def _on_hangup(self) -> None:
        self._assigning.hangup()

    def _on_stop_signal(self, number: signal.Signals) -> None:
        name = signal.Signals(number).name
        if self.anew:
            # Told to stop while beginning anew: it stays stopped.
            self.anew = False
            self._log.info(f"{name}: stopping")
        elif not self._stop_asked.is_set():
            timeout = self._settings.shutdown_timeout_s
            self._log.info(
                f"{name}: stopping; tasks in flight have {timeout:g} s, a second signal gives them back"
            )
            self._stop_asked.set()
        elif not self._stopping.is_set():
            self._log.warning(f"{name} again: giving unfinished tasks back")
            self._drain.hurry()


def _departure(paths: Paths) -> Departure | None:
    try:
        return read_departure(paths.departure)
    except (OSError, UnreadableDeparture):
        return None  # the next start says so


def _lease_s(settings: Settings) -> float:
    """The mesh's lease, or this agent's own while the table does not tell."""
    try:
        reader = TableReader(settings.paths.table_db)
        try:
            mesh = reader.mesh()
        finally:
            reader.close()
    except (sqlite3.Error, ValueError):
        mesh = None
    return (MeshSettings.of_founder(settings) if mesh is None else mesh.settings).lease_s
