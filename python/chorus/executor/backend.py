"""What a sandbox backend offers, in words that know nothing of Docker, and what can go wrong with one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

Stream = Literal["stdout", "stderr"]
EndedBy = Literal["exit", "timeout", "cancel", "out_of_memory", "pids", "disk", "daemon", "lost"]
Kind = Literal["file", "directory", "link", "other"]


class SandboxError(Exception):
    """A sandbox could not do what was asked; `reason` is meant for people."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class BackendUnavailable(SandboxError):
    """The daemon does not answer or went away: the attempt is lost to the mesh, not failed by the task."""


class ImageUnavailable(SandboxError):
    """The image is neither here nor could it be pulled."""


class SandboxGone(SandboxError):
    """The sandbox ended from inside under a living daemon: its task killed its session, or used up its
    memory.
    """

    def __init__(self, reason: str, *, out_of_memory: bool = False) -> None:
        super().__init__(reason)
        self.out_of_memory = out_of_memory


class SandboxLost(SandboxError):
    """The sandbox was ended, paused or cut off from outside: the attempt is lost to the mesh, not failed by
    the task.
    """


class NoSpace(SandboxError):
    """What should go into the sandbox does not fit on its disk."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one sandbox may use. Its writable folders lie in memory, so the memory limit is memory + disk."""

    cpus: float
    memory_bytes: int
    pids: int
    disk_bytes: int


@dataclass(frozen=True, slots=True)
class CommandEnd:
    """How a command ended. `exit_code` is what its shell said; `limits` names limits it ran into."""

    exit_code: int
    ended_by: EndedBy
    duration_s: float
    note: str = ""


@dataclass(frozen=True, slots=True)
class GroupEnd:
    """How a command with a process group of its own ended. `size` is the bytes of its output, which are in
    `file` of the sandbox; `cut` is whether it was killed for writing too much, `ended_by` a stop of the
    sandbox, or a limit that its failure is laid to.
    """

    exit_code: int
    ended_by: EndedBy
    duration_s: float
    timed_out: bool
    cut: bool
    size: int
    file: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class FileEntry:
    """One thing below the workspace, as the sandbox lists it."""

    path: str
    kind: Kind
    size: int
    target: str = ""
    readable: bool = True


@dataclass(frozen=True, slots=True)
class Usage:
    """What a sandbox has used since its task began."""

    cpu_s: float
    memory_peak_bytes: int
    out_of_memory_kills: int
    process_limit_hits: int


@dataclass(frozen=True, slots=True)
class Sample:
    """One sample of what a sandbox uses now."""

    cpu_cores: float
    memory_bytes: int


class OutputSink(Protocol):
    """Takes what commands write. Called from a thread of the backend, in order for each stream; may block
    it.
    """

    def write(self, stream: Stream, command: int, data: bytes) -> None:
        """Takes bytes of a command."""

    def end(self, command: int) -> None:
        """All output of this command has been written."""


class Sandbox(Protocol):
    """One container's worth of isolation, for one task."""

    @property
    def image(self) -> str:
        """The image's name."""

    @property
    def image_digest(self) -> str:
        """The image's content id."""

    @property
    def protected(self) -> bool:
        """Whether the task is kept from forging its exit codes."""

    async def begin(self, labels: Mapping[str, str], env: Mapping[str, str], sink: OutputSink) -> None:
        """Makes the clean sandbox this task's. Environment values never show outside the sandbox."""

    async def put(self, archive: Path, directory: str = "/workspace") -> None:
        """Unpacks a tar archive that has been checked before."""

    async def run(
        self, number: int, command: str, *, workdir: str = "/workspace", stdin: str = "/dev/null"
    ) -> CommandEnd:
        """Runs one command by `sh -c`; its output goes to the sink.

        Raises SandboxGone when the task has ended its sandbox, SandboxLost when somebody else has.
        """

    async def run_group(
        self,
        number: int,
        command: str,
        take: Callable[[bytes], None],
        *,
        timeout_s: float,
        workdir: str = "/workspace",
        stdin: str = "/dev/null",
    ) -> GroupEnd:
        """Runs one command by `sh -c` in a process group of its own, which ends with it or at the time limit.

        What it left in other groups lives on, and its later output is dropped. `take` gets stdout and stderr
        in the order in which they were written, on a thread of the backend. Raises SandboxGone, SandboxLost.
        """

    async def forget(self, files: Sequence[str]) -> None:
        """Removes files with the output of commands."""

    async def stop(self, why: EndedBy) -> None:
        """Kills every process of the task; a running command ends with `why`. Files stay readable."""

    async def files(self, directory: str = "/workspace") -> list[FileEntry]:
        """Lists everything below a directory."""

    async def get(
        self, paths: Sequence[str], into: Path, directory: str = "/workspace", *, bytes_max: int
    ) -> None:
        """Writes a tar archive of these files, of so many bytes at most; what it holds is to be checked. What
        cannot be read is not in it.
        """

    async def usage(self) -> Usage:
        """What the task has used. Raises SandboxGone or SandboxLost when the sandbox does not answer."""

    def samples(self) -> AsyncIterator[Sample]:
        """Samples about once a second, until the sandbox ends."""

    async def close(self) -> None:
        """Removes the sandbox. Always works, may be called twice."""


@dataclass(frozen=True, slots=True)
class BackendState:
    """Whether sandboxes can be started now."""

    ok: bool
    detail: str


class Backend(Protocol):
    """Where sandboxes come from."""

    async def acquire(self, image: str, limits: Limits, lease_s: float) -> Sandbox:
        """A clean started sandbox, from the warm pool when one fits. Raises SandboxError."""

    async def state(self) -> BackendState:
        """Asks the daemon, with a deadline."""

    async def sweep(self) -> list[str]:
        """Removes the containers of an earlier boot of this agent; returns their task ids."""

    async def close(self) -> None:
        """Removes the warm sandboxes and closes connections."""
