"""The agent's two folders on disk: the data directory, locked while the agent lives, and the private run
directory.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import json
import os
import secrets
import shutil
import stat
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from chorus.agent.problems import INITIALIZE, StartupError
from chorus.config import Paths, Settings
from chorus.config.files import PRIVATE_FILE_MODE, sync_folder, write_private

PRIVATE_FOLDER_MODE = 0o700
API_TOKEN_BYTES = 32
RUN_LOCK = "run.lock"


class Lock:
    """A lock on a file, held until closed or until this process ends."""

    def __init__(self, path: Path) -> None:
        self._handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, PRIVATE_FILE_MODE)
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self.holder = os.read(self._handle, 32).decode("ascii", "replace").strip()
            os.close(self._handle)
            raise BlockingIOError(self.holder) from None
        os.ftruncate(self._handle, 0)
        os.write(self._handle, f"{os.getpid()}\n".encode())

    def close(self) -> None:
        """Lets go."""
        os.close(self._handle)


def open_data_dir(path: Path) -> Lock:
    """Makes the data directory if need be and takes its lock; refuses when a living agent has it."""
    try:
        path.mkdir(parents=True, exist_ok=True, mode=PRIVATE_FOLDER_MODE)
        return Lock(path / "agent.lock")
    except BlockingIOError as held:
        raise StartupError(
            f"{INITIALIZE}: data directory {path} is in use by a living agent (pid {held}). "
            "Give this one its own (CHORUS_DATA_DIR, CHORUS_AGENT_ID or CHORUS_P2P_PORT), or stop that one"
        ) from None
    except OSError as error:
        raise StartupError(
            f"{INITIALIZE}: data directory {path}: {error.strerror}. "
            "Set CHORUS_DATA_DIR to a folder that this user can write"
        ) from None


def open_run_dir(paths: Paths) -> Lock:
    """Makes the run directory, or takes over an older one and removes what a dead agent left in it."""
    path = paths.run
    try:
        path.mkdir(parents=True, exist_ok=True, mode=PRIVATE_FOLDER_MODE)
        found = path.lstat()
        if (
            not stat.S_ISDIR(found.st_mode)
            or found.st_uid != os.getuid()
            or stat.S_IMODE(found.st_mode) & 0o077
        ):
            raise StartupError(
                f"{INITIALIZE}: run directory {path} is not a private folder of this user (mode 0700). "
                "Remove it, or set CHORUS_RUN_DIR to another one"
            )
        lock = Lock(path / RUN_LOCK)
    except BlockingIOError as held:
        raise StartupError(
            f"{INITIALIZE}: run directory {path} is in use by a living agent (pid {held}). "
            "Set CHORUS_RUN_DIR to give this agent its own, or leave it unset"
        ) from None
    except OSError as error:
        raise StartupError(
            f"{INITIALIZE}: run directory {path}: {error.strerror}. "
            "Set CHORUS_RUN_DIR to a folder that this user can write"
        ) from None
    clear_run_dir(paths)
    # prometheus_client's folder: wiped when the agent starts, so that counters are whole since then.
    paths.metrics_dir.mkdir(mode=PRIVATE_FOLDER_MODE)
    return lock


def clear_run_dir(paths: Paths) -> None:
    """Removes what agents make in a run directory, and nothing else: it may be a folder that the operator
    chose.
    """
    for pattern in (
        "settings.*",
        "assignment.*",
        "supervis*",
        "alive.*",
        "events.*",
        "crashes.*",
        "unresponsive.*",
        "journal.*",
        "license.*",
        "hub.sock*",
    ):
        for path in paths.run.glob(pattern):
            path.unlink(missing_ok=True)
    shutil.rmtree(paths.metrics_dir, ignore_errors=True)


def remove_run_dir(paths: Paths) -> None:
    """Removes the run directory at a clean end; what others put into it stays."""
    clear_run_dir(paths)
    (paths.run / RUN_LOCK).unlink(missing_ok=True)
    # Not empty, or a mount: it may stay.
    with contextlib.suppress(OSError):
        paths.run.rmdir()


def api_token(path: Path) -> str:
    """The token of this data directory, made once."""
    try:
        token = path.read_text(encoding="ascii").strip()
        if token:
            return token
    except FileNotFoundError:
        pass
    token = secrets.token_urlsafe(API_TOKEN_BYTES)
    write_private(path, token + "\n")
    return token


def move_aside(paths: Paths, names: Sequence[str], asked: Path) -> Path:
    """Moves what is there of the named files into a folder below `replaced/`; returns that folder.

    It is named after the time at which the file `asked` was written, so that a start that repeats this after
    a crash goes on in the same folder. Nothing that is there already is written over.
    """
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(asked.stat().st_mtime))
    for number in itertools.count(1):
        kept = paths.replaced / (stamp if number == 1 else f"{stamp}-{number}")
        if not any((paths.data / name).exists() and (kept / name).exists() for name in names):
            break
    for folder in (paths.replaced, kept):
        folder.mkdir(mode=PRIVATE_FOLDER_MODE, exist_ok=True)
    for name in names:
        source, target = paths.data / name, kept / name
        if source.exists():
            target.parent.mkdir(mode=PRIVATE_FOLDER_MODE, exist_ok=True)
            source.rename(target)
            # Held by its new name before the next one moves.
            sync_folder(target.parent)
            sync_folder(source.parent)
    return kept


def write_agent_json(settings: Settings, multiaddrs: list[str]) -> None:
    """Says where this agent can be reached, for programs on the same machine."""
    content: dict[str, Any] = {
        "agent_id": settings.agent_id,
        "peer_id": settings.peer_id,
        "pid": os.getpid(),
        "version": settings.version,
        "ports": {"p2p": settings.p2p_port, "api": settings.api_port, "health": settings.health_port},
        "api_host": settings.api_host,
        "multiaddrs": multiaddrs,
        "run_dir": str(settings.run_dir),
    }
    write_private(settings.paths.agent_json, json.dumps(content, indent=2) + "\n")
