"""The configuration of a sandbox's container. Pure: limits in, Docker's JSON out."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from importlib import resources
from typing import Any

from chorus.executor.backend import Limits

USER = "1000:1000"
WORKSPACE = "/workspace"
TEMPORARY = "/tmp"
SHARED_MEMORY = "/dev/shm"
HOST_NAME = "sandbox"
# Docker switches IPv6 off where no network has it, and with it the loopback address that /etc/hosts names.
IPV6_OFF = "net.ipv6.conf.all.disable_ipv6"
# A bash that its user may execute and not read; session.sh says what that is for.
SESSION_SHELL = "/usr/lib/chorus/session-bash"
# How the session's exec ends when its input does, or when nothing has come for a lease; session.sh says it.
SESSION_CUT_OFF = 75

LABEL_PEER = "chorus.peer"
LABEL_BOOT = "chorus.boot"
LABEL_TASK = "chorus.task"

# 100 ms, the kernel's own default.
_CPU_PERIOD_US = 100_000
# The kernel's default hard limit: a daemon that may not raise its own can still grant it.
_OPEN_FILES_MAX = 4096
# The shells of the session count too and are not the task's.
_SESSION_PROCESSES = 8
_SESSION_MEMORY_BYTES = 16 * 1024 * 1024
# An inode costs kernel memory; one for each 4 KiB is more than any source tree has.
_BYTES_PER_INODE = 4096

_FILES = resources.files("chorus.executor.docker")
_HOLD = _FILES.joinpath("hold.sh").read_text()
_SESSION = _FILES.joinpath("session.sh").read_text()
# In one line, as the filtering proxy expects it. It names no architecture for 32-bit programs, and so they
# are killed: their `socketcall` hides from a filter which kind of socket is asked for.
SECCOMP = json.dumps(json.loads(_FILES.joinpath("seccomp.json").read_text()), separators=(",", ":"))


def resource_limits(limits: Limits) -> dict[str, Any]:
    """The limits that a running container can still be given."""
    # What lies in the writable folders lies in memory, and counts.
    memory = limits.memory_bytes + limits.disk_bytes + _SESSION_MEMORY_BYTES
    return {
        "CpuPeriod": _CPU_PERIOD_US,
        "CpuQuota": max(1000, math.ceil(limits.cpus * _CPU_PERIOD_US)),
        "Memory": memory,
        "MemorySwap": memory,
        "PidsLimit": limits.pids + _SESSION_PROCESSES,
    }


def configuration(
    image: str, limits: Limits, labels: Mapping[str, str], *, ipv6: bool = True
) -> dict[str, Any]:
    """The whole configuration for creating a sandbox.

    With `ipv6` its loopback interface has ::1 too; a kernel without IPv6 starts no such container.
    """
    space = f"size={limits.disk_bytes},nr_inodes={max(1024, limits.disk_bytes // _BYTES_PER_INODE)}"
    return {
        "Image": image,
        "Entrypoint": ["/bin/bash", "-c", _HOLD],
        "Cmd": [],
        "User": USER,
        "WorkingDir": WORKSPACE,
        "Env": [f"HOME={TEMPORARY}", f"TMPDIR={TEMPORARY}", "LANG=C.UTF-8", "TERM=dumb"],
        "Labels": dict(labels),
        "AttachStdin": False,
        "AttachStdout": False,
        "AttachStderr": False,
        "OpenStdin": False,
        "Tty": False,
        "Hostname": HOST_NAME,
        "Healthcheck": {"Test": ["NONE"]},
        "HostConfig": {
            **resource_limits(limits),
            # Not `NetworkDisabled`, which would leave /etc/hosts empty: servers and their clients find each
            # other by `localhost` and by the host's name. A name server would be the host's, and unreachable.
            "NetworkMode": "none",
            "ExtraHosts": [f"{HOST_NAME}:127.0.0.1"],
            "Dns": ["127.0.0.1"],
            "DnsSearch": ["."],
            "Sysctls": {IPV6_OFF: "0"} if ipv6 else {},
            "ReadonlyRootfs": True,
            "Tmpfs": {
                WORKSPACE: f"rw,exec,nosuid,nodev,{space},mode=0755,uid=1000,gid=1000",
                TEMPORARY: f"rw,exec,nosuid,nodev,{space},mode=1777",
            },
            "CapDrop": ["ALL"],
            "SecurityOpt": ["no-new-privileges", f"seccomp={SECCOMP}"],
            "Privileged": False,
            # Process 1 is the one that hold.sh becomes, whatever the daemon's own default.
            "Init": False,
            "IpcMode": "private",
            # As large as the other two folders: like theirs, what lies in it counts as memory.
            "ShmSize": limits.disk_bytes,
            "Ulimits": [
                {"Name": "core", "Soft": 0, "Hard": 0},
                {"Name": "nofile", "Soft": _OPEN_FILES_MAX, "Hard": _OPEN_FILES_MAX},
            ],
            # Its output goes through the session; process 1 says nothing.
            "LogConfig": {"Type": "none", "Config": {}},
            "RestartPolicy": {"Name": "no"},
        },
    }


def session_command(lease_s: float) -> list[str]:
    """The exec that is the session."""
    return ["/bin/bash", "--norc", "--noprofile", "-c", _SESSION, "session", f"{lease_s:.3f}"]
