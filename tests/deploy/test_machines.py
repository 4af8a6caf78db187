"""The machines of a Swarm's test go without a trace, however the test ends."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import GENEROUS_S, ROOT, until
from .machines import missing

pytestmark = pytest.mark.deploy

TEST = """
import os, signal
from tests.deploy.machines import Machines
with Machines() as machines:
    first, second = machines.add("first"), machines.add("second")
    first.wait()
    second.wait()
    print(first.socket.parent.parent, flush=True)
    {end}
"""


@pytest.mark.parametrize(
    ("end", "code"),
    [
        ("pass", 0),
        ("raise ValueError", 1),
        ("os.kill(os.getpid(), signal.SIGINT)", -2),
        ("os.kill(os.getpid(), signal.SIGKILL)", -9),
    ],
    ids=["well", "failed", "interrupted", "killed"],
)
def test_nothing_of_them_is_left(end: str, code: int) -> None:
    if why := missing():
        pytest.skip(f"no machines can be made here: {why}")
    words = (sys.executable, "-c", TEST.format(end=end))
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=GENEROUS_S)
    assert done.returncode == code, done.stderr
    folder = Path(done.stdout.strip())
    assert folder.name.startswith("chorus-swarm-")
    until(lambda: not folder.exists() and not list(Path("/sys/fs/cgroup").glob(f"*/{folder.name}")))
    listed = subprocess.run(("ps", "-e", "-o", "args"), capture_output=True, text=True, check=True).stdout
    assert str(folder) not in listed
