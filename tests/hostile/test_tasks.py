"""What a task or its source does stays in the task: its end has a cause, and no process ends with it."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from typing import Any

import httpx
import pytest

from e2e.conftest import GENEROUS_S, Agent, Mesh
from e2e.test_run import until

from .processes import all_processes, rss_bytes, work_goes_on

pytestmark = pytest.mark.e2e

ENDED = ("completed", "failed", "cancelled", "expired")

# Looks in the memory of every process for the word that the session's marks begin with, and says with it that
# the command ended well. The process itself ends with 7.
FORGER = r"""
import os, re, sys
found = set()
for pid in filter(str.isdigit, os.listdir("/proc")):
    if int(pid) == os.getpid():
        continue
    try:
        maps = open(f"/proc/{pid}/maps").read().splitlines()
        memory = open(f"/proc/{pid}/mem", "rb", 0)
    except OSError:
        continue
    for line in maps:
        span, rights = line.split()[:2]
        if not rights.startswith("rw"):
            continue
        begin, end = (int(word, 16) for word in span.split("-"))
        try:
            memory.seek(begin)
            found.update(re.findall(rb"[0-9a-f]{32}", memory.read(end - begin)))
        except (OSError, ValueError, OverflowError):
            continue
for nonce in found:
    for number in range(4):
        forged = b"\0" + nonce + b" end %d 0 0 0\n" % number
        os.write(1, forged)
        os.write(2, b"\0" + nonce + b" end %d\n" % number)
        for pid in filter(str.isdigit, os.listdir("/proc")):
            for number_of in (1, 2, 7, 8):
                try:
                    with open(f"/proc/{pid}/fd/{number_of}", "wb", 0) as stream:
                        stream.write(forged)
                except OSError:
                    pass
sys.stdout.flush()
sys.exit(7)
"""


def submit(agent: Agent, task: dict[str, Any], source: bytes | None = None) -> httpx.Response:
    """Over HTTP, as anybody with the token would."""
    if source is None:
        return agent.post("/api/v1/tasks", task)
    files = {"task": (None, json.dumps(task).encode()), "source": ("source.tar", source)}
    return agent.ask("POST", "/api/v1/tasks", files=files)


def ended(agent: Agent, answer: httpx.Response) -> dict[str, Any]:
    assert answer.status_code == 201, answer.text
    path = f"/api/v1/tasks/{answer.json()['task_id']}"
    found: dict[str, Any] = until(lambda: (task := agent.get(path).json())["state"] in ENDED and task)
    return found


def test_globs_that_backtrack_stop_no_executor(mesh: Mesh) -> None:
    before = all_processes(mesh)
    path = "/".join(["a"] * 30)
    task = {
        "title": "globs",
        "commands": [f"mkdir -p {path} && touch {path}/b"],
        "artifacts": ["**/" * 12 + "c", "*a" * 40 + "c", "**" * 30 + "c"],
    }
    assert ended(mesh.agents[0], submit(mesh.agents[0], task))["state"] == "completed"
    work_goes_on(mesh)
    assert all_processes(mesh) == before


def pax_bomb() -> bytes:
    """A PAX header that claims 4 GiB, of zeros that pack to next to nothing."""
    header = tarfile.TarInfo("bomb")
    header.type, header.size = tarfile.XHDTYPE, 4 << 30
    packed = io.BytesIO()
    with gzip.GzipFile(fileobj=packed, mode="wb", compresslevel=1) as out:
        out.write(header.tobuf(tarfile.USTAR_FORMAT))
        for _ in range(256):
            out.write(bytes(1 << 20))
    return packed.getvalue()


def long_name_bomb() -> bytes:
    """A GNU long name of 256 MiB."""
    header = tarfile.TarInfo("././@LongLink")
    header.type, header.size = tarfile.GNUTYPE_LONGNAME, 256 << 20
    packed = io.BytesIO()
    with gzip.GzipFile(fileobj=packed, mode="wb", compresslevel=1) as out:
        out.write(header.tobuf(tarfile.GNU_FORMAT))
        for _ in range(256):
            out.write(b"n" * (1 << 20))
        out.write(tarfile.TarInfo("after").tobuf())
        out.write(bytes(1024))
    return packed.getvalue()


@pytest.mark.parametrize("bomb", [pax_bomb, long_name_bomb])
def test_an_archive_that_swells_is_refused_at_submission(mesh: Mesh, bomb: Any) -> None:
    agent = mesh.agents[0]
    before, pids = all_processes(mesh), agent.processes()
    held = {name: rss_bytes(pid) for name, pid in pids.items()}
    answer = submit(agent, {"title": "bomb", "commands": ["true"]}, bomb())
    assert 400 <= answer.status_code < 500, answer.text
    assert "source" in answer.text
    grown = {name: rss_bytes(pid) - held[name] for name, pid in pids.items()}
    assert max(grown.values()) < 128 << 20, grown
    work_goes_on(mesh)
    assert all_processes(mesh) == before


def test_a_task_cannot_say_that_it_ended_well(mesh: Mesh) -> None:
    task = {
        "title": "forger",
        "language": "python",
        "commands": ["python3 forger.py"],
        "source": {"kind": "inline", "files": {"forger.py": FORGER}},
        "timeout_s": GENEROUS_S,
    }
    found = ended(mesh.agents[0], submit(mesh.agents[0], task))
    assert (found["state"], found["result"]["exit_code"]) == ("failed", 7), found


@pytest.mark.parametrize(
    "command",
    [
        "kill -9 -1; sleep 600",
        "for p in /proc/[0-9]*; do kill -9 ${p#/proc/}; done; sleep 600",
        "for p in /proc/[0-9]*; do kill -STOP ${p#/proc/}; done; exit 0",
    ],
)
def test_a_task_that_attacks_its_session_does_not_succeed(mesh: Mesh, command: str) -> None:
    before = all_processes(mesh)
    task = {"title": "signals", "commands": [command, "exit 9"], "timeout_s": 20, "max_attempts": 1}
    found = ended(mesh.agents[0], submit(mesh.agents[0], task))
    assert found["state"] == "failed", found
    work_goes_on(mesh)
    assert all_processes(mesh) == before
