"""The event listener passes supervisord's events on, and outlives neither supervisord nor the parent."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from chorus.agent.programs import listener_command

GENEROUS_S = 60
PAYLOAD = b"processname:node groupname:node from_state:STARTING pid:7"
EVENT = b"ver:3.0 server:chorus serial:1 pool:watcher poolserial:1 eventname:PROCESS_STATE_RUNNING len:%d\n"


@pytest.fixture
def fifo(tmp_path: Path) -> Path:
    path = tmp_path / "events"
    os.mkfifo(path)
    return path


@pytest.fixture
def parent(fifo: Path) -> Iterator[int]:
    """The parent's end of the FIFO."""
    handle = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    yield handle
    os.close(handle)


def listen(fifo: Path, said: bytes) -> subprocess.CompletedProcess[bytes]:
    """Runs the listener to its end, with these events from a supervisord that is gone after them."""
    return subprocess.run(
        listener_command(fifo), input=said, capture_output=True, timeout=GENEROUS_S, check=True
    )


def test_an_event_reaches_the_parent_as_a_line(fifo: Path, parent: int) -> None:
    done = listen(fifo, EVENT % len(PAYLOAD) + PAYLOAD)
    assert os.read(parent, 4096) == b"PROCESS_STATE_RUNNING " + PAYLOAD + b"\n"
    assert done.stdout == b"READY\nRESULT 2\nOKREADY\n"


def test_it_ends_when_the_parent_was_killed_before_it_began(fifo: Path) -> None:
    assert listen(fifo, b"").stdout == b""
