"""What decides about a goal: its patch, and its checks in a fresh sandbox that holds the source with the
patch and nothing else.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from chorus.executor.backend import Sandbox, SandboxError
from chorus.executor.goal.inputs import Begun
from chorus.executor.goal.tools import Outcome, Tools
from chorus.executor.goal.trees import pack_changed, with_protected, workspace_tree
from chorus.executor.patch import LeftOut, Patch, apply_patch, make_patch

# Of each command's output that the model is told.
_OUTPUT_CHARS: Final = 6_000

# Makes the tools of a sandbox; the sandbox has the goal's environment and nothing else.
Fresh = Callable[[], Awaitable[tuple[Sandbox, Tools]]]


@dataclass(frozen=True, slots=True)
class Checked:
    """What checks came to: each command as the records have it, and whether it was of `setup`."""

    commands: list[dict[str, Any]]
    setups: int
    passed: bool

    @property
    def checks(self) -> list[dict[str, Any]]:
        """The checks themselves, as the result has them."""
        names = ("command", "exit_code", "duration_s")
        return [{name: one[name] for name in names} for one in self.commands[self.setups :]]

    def told(self) -> str:
        """What failed, for the model."""
        parts = []
        for number, one in enumerate(self.commands):
            what = "setup" if number < self.setups else "check"
            if one["exit_code"] == 0:
                parts.append(f"{what} passed: {one['command']}")
            else:
                parts.append(f"{what} failed with {one['exit_code']}: {one['command']}\n{one['output']}")
        return "\n".join(parts)


class Checking:
    """One goal's."""

    def __init__(self, begun: Begun, scratch: Path, fresh: Fresh) -> None:
        self._begun = begun
        self._scratch = scratch
        self._fresh = fresh
        self._first: bytes | None = None

    async def patch(self, sandbox: Sandbox) -> Patch:
        """The difference between the source as it was sent and the workspace now.

        Raises SandboxError, ArchiveRefused, OSError.
        """
        place = self._scratch / "workspace"
        try:
            after, missing = await workspace_tree(sandbox, self._begun.sent, place)
            patch = await asyncio.to_thread(make_patch, self._begun.sent, after)
        finally:
            await asyncio.to_thread(shutil.rmtree, place, True)
        if not missing:
            return patch
        left_out = (*patch.left_out, *(LeftOut(_shown(path), why) for path, why in missing))
        return replace(patch, left_out=left_out[:1000])

    async def changed(self, patch: Patch) -> bool:
        """Whether a patch has more than what the run began with. Raises OSError."""
        if self._first is None:
            first = await asyncio.to_thread(make_patch, self._begun.sent, self._begun.begun)
            self._first = first.text
        return patch.text != self._first

    async def check(self, patch: Patch) -> Checked:
        """Runs `setup`, and then each check, whatever the others came to.

        Raises SandboxError, TooMuchWork, OSError.
        """
        task = self._begun.task
        place = self._scratch / "checks"
        sandbox: Sandbox | None = None
        try:
            sandbox, tools = await self._fresh()
            await asyncio.to_thread(place.mkdir, parents=True, exist_ok=True)
            packed = place / "checked.tar"
            await asyncio.to_thread(self._pack, patch, packed)
            await sandbox.put(packed)
            commands: list[dict[str, Any]] = []
            for command in task.setup:
                commands.append(await run_command(tools, command))
                if commands[-1]["exit_code"] != 0:
                    return Checked(commands, len(commands), passed=False)
            for command in task.checks:
                commands.append(await run_command(tools, command))
            passed = all(one["exit_code"] == 0 for one in commands)
            return Checked(commands, len(task.setup), passed)
        finally:
            if sandbox is not None:
                with contextlib.suppress(SandboxError):
                    await asyncio.shield(sandbox.close())
            await asyncio.to_thread(shutil.rmtree, place, True)

    def _pack(self, patch: Patch, into: Path) -> None:
        sent = self._begun.sent
        after = with_protected(sent, apply_patch(sent, patch.text), self._begun.task.protected)
        pack_changed(self._begun.archive, sent, after, into)


async def run_command(tools: Tools, command: str) -> dict[str, Any]:
    """One command of `setup` or `checks`, as the records tell it. Raises SandboxGone, SandboxLost."""
    begun = time.monotonic()
    done: Outcome = await tools.run(command, max(0.1, tools.left_s()))
    output = done.text
    if len(output) > _OUTPUT_CHARS:
        half = _OUTPUT_CHARS // 2
        output = f"{output[:half]}\n[… {len(output) - 2 * half} characters left out …]\n{output[-half:]}"
    return {
        "command": command,
        "exit_code": done.exit_code,
        "duration_s": round(done.duration_s or time.monotonic() - begun, 3),
        "output": output,
    }


def _shown(path: str) -> str:
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")[:1000]
