"""Keeps an eye on the sandbox backend and on the table, and acts when either says that attempts must end."""

from __future__ import annotations

import asyncio
import contextlib

from chorus.executor.backend import BackendState, SandboxError
from chorus.executor.desk import Desk
from chorus.executor.room import Room
from chorus.hub import HubError, Message, guard

# A daemon is asked this often, and this often again after it did not answer.
PING_S = 5.0
PING_SOON_S = 1.0
# One lost answer under load is not a lost daemon.
FAILURES_MAX = 2
# Besides every change told on `local/table`, in case one was missed.
SWEEP_TABLE_S = 2.0


class BackendWatch:
    """Whether sandboxes can be had. In-flight attempts go back to the mesh when they cannot."""

    def __init__(self, room: Room, desk: Desk) -> None:
        self._room = room
        self._desk = desk
        self._look = asyncio.Event()
        self._failures = 0
        self.state = BackendState(False, "docker: not asked yet")
        self.known = asyncio.Event()

    def suspect(self, reason: str) -> None:
        """Somebody met a daemon that did not answer."""
        self._failures = max(self._failures, FAILURES_MAX - 1)
        self._look.set()

    async def run(self) -> None:
        """Until cancelled."""
        swept = False
        while True:
            state = await self._room.backend.state()
            self._failures = 0 if state.ok else self._failures + 1
            if state.ok and not swept:
                swept = await self._sweep()
            if state.ok and self.state.ok:
                self.state = state  # its detail names images that were used since
            elif state.ok:
                await self._turn(state)
            elif not state.ok and (self._failures >= FAILURES_MAX or not self.known.is_set()):
                swept = False
                if self.state.ok or not self.known.is_set():
                    await self._turn(BackendState(False, f"docker: {state.detail}"))
            self.known.set()
            self._look.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(PING_S if state.ok else PING_SOON_S):
                    await self._look.wait()

    async def _turn(self, state: BackendState) -> None:
        self.state = state
        self._desk.backend_reason = "" if state.ok else state.detail
        log = self._room.log
        if state.ok:
            log.info("sandboxes can be started", detail=state.detail)
        else:
            log.error("sandboxes cannot be started; running tasks go back to the mesh", reason=state.detail)
            self._desk.stop_all("daemon", state.detail)
            self._room.images.forget()
            self._room.spawn(self._room.backend.forget_warm())
        with contextlib.suppress(HubError):
            await self._room.hub.call_service("coordinator", "profile.refresh", timeout=2.0)

    async def _sweep(self) -> bool:
        try:
            await self._room.backend.sweep()
        except SandboxError as error:
            self._room.log.warning("left-over sandboxes could not be removed", error=str(error))
            return False
        return True


async def watch_table(room: Room, desk: Desk) -> None:
    """Follows `local/table`: awards are seen, cancels reach their sandbox at once."""

    def changed(message: Message) -> None:
        desk.applied.set()
        said = message.data if isinstance(message.data, dict) else {}
        tasks = said.get("tasks")
        desk.check(None if message.gap or not isinstance(tasks, list) else {str(task) for task in tasks})

    async def sweep() -> None:
        while True:
            await asyncio.sleep(SWEEP_TABLE_S)
            with guard.handling("record"):
                desk.check(None)

    sweeping = asyncio.create_task(sweep())
    try:
        async with room.hub.subscribe("local/table") as messages:
            # What could not be read of the table now is looked at again by the next sweep: nothing about the
            # table is worth all that runs here.
            await guard.each(messages, changed, "event")
    finally:
        sweeping.cancel()
