"""Where an agent's files lie when nobody says: data directory, and run directory short enough for sockets."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

# sockaddr_un holds 108 bytes with the final NUL.
SOCKET_PATH_MAX_BYTES = 107
# The longest name of a socket made in there; supervisord binds it under this name and its pid first.
_LONGEST_SOCKET = "supervisor.sock.4194304"


def default_data_dir(environ: Mapping[str, str], agent_id: str, p2p_port: int) -> Path:
    """`$XDG_STATE_HOME/chorus/<agent id, or p2p-PORT>`."""
    base = environ.get("XDG_STATE_HOME", "")
    home = environ.get("HOME") or "/"
    state = Path(base) if base.startswith("/") else Path(home) / ".local" / "state"
    return state / "chorus" / (agent_id or f"p2p-{p2p_port}")


def default_run_dir(environ: Mapping[str, str], data_dir: Path) -> Path:
    """A folder named after the data directory: a new start finds and cleans what a dead agent left."""
    name = f"chorus-{hashlib.sha256(os.fsencode(data_dir)).hexdigest()[:10]}"
    candidates = [Path("/run/chorus"), Path("/run")] if os.access("/run", os.W_OK) else [Path("/run/chorus")]
    runtime = environ.get("XDG_RUNTIME_DIR", "")
    if runtime.startswith("/"):
        candidates.insert(0, Path(runtime))
    for base in candidates:
        if base.is_dir() and os.access(base, os.W_OK | os.X_OK) and not socket_path_problem(base / name):
            return base / name
    return Path(tempfile.gettempdir() if len(tempfile.gettempdir()) < 40 else "/tmp") / name


def socket_path_problem(run_dir: Path) -> str:
    """Why the sockets of an agent cannot be made in this folder; empty when they can."""
    length = len(os.fsencode(run_dir / _LONGEST_SOCKET))
    if length <= SOCKET_PATH_MAX_BYTES:
        return ""
    most = SOCKET_PATH_MAX_BYTES - len(_LONGEST_SOCKET) - 1
    return (
        f"expected a folder whose path is at most {most} bytes long, as a Unix socket's path is limited to "
        f"{SOCKET_PATH_MAX_BYTES}; {run_dir} has {len(os.fsencode(run_dir))}"
    )
