"""What an agent takes: time to start, memory, and processor when it is idle. Without a container around it.

It runs from an environment as pip makes it of a wheel. These have targets and no peers. Other Pythons that
run on the machine share pages of the interpreter with it, so that its part of them shrinks.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import chorus
from bench import usage
from bench.figures import Amounts, aligned
from bench.probes import until
from bench.processes import free_ports
from chorus.ctl.agents import tail

STARTS: Final = 5
# What a start leaves to be done is done by then.
SETTLED_S: Final = 60.0
IDLE_S: Final = 60.0
# A drain without tasks takes a few seconds.
STOP_S: Final = 60.0


def start() -> list[Amounts]:
    """The rows of an agent on this machine."""
    with tempfile.TemporaryDirectory(prefix="chorus-bench-") as folder, ExitStack() as stack:
        python = _installed(Path(folder) / "environment")
        mesh = {"CHORUS_LICENSE_ID": f"dev-bench-{uuid.uuid4().hex}"}
        # As `chorusctl up` starts the first one: there is no mesh to look for.
        first = _Agent(python, Path(folder) / "1", {**mesh, "CHORUS_ELECTION_JOIN_WAIT": "0s"})
        mesh["CHORUS_BOOTSTRAP_PEERS"] = first.address
        others = [_Agent(python, Path(folder) / str(number), mesh) for number in (2, 3)]
        agents = [first, *others]
        for agent in agents:
            stack.callback(agent.stop)
        first.start()
        # Alone it does not become ready.
        first.until("/healthz")
        time.sleep(SETTLED_S)
        # With others of the same files it would share pages, and count only its part of them.
        memory = [usage.memory(pid) for pid in usage.tree(first.pid)]
        for other in others:
            other.start()
        for agent in agents:
            agent.until("/ready")
        live, ready = list[float](), list[float]()
        for _ in range(STARTS):
            # The same agent again: others would be new members beside those that are gone.
            others[1].stop()
            began = time.monotonic()
            others[1].start()
            others[1].until("/healthz")
            live.append(time.monotonic() - began)
            others[1].until("/ready")
            ready.append(time.monotonic() - began)
        time.sleep(SETTLED_S)
        idle = _processor(agents)
    where = "on the machine itself"
    whole = sum(process.pss for process in memory)
    return [
        Amounts(f"agent start to /healthz 200, {where}", "s", live, 2),
        Amounts(f"agent start to ready beside two others, {where}", "s", ready, 4),
        Amounts(
            f"memory of an idle agent, all processes (PSS), {where}", "MB", [whole], 160, note=_told(memory)
        ),
        Amounts(f"processor of an idle agent, mesh of 3, {where}", "% of a core", idle, 1),
    ]


def _installed(folder: Path) -> Path:
    """Makes an environment: the package compiled, in files of its own, and its requirements from the one that
    the bench runs in. Returns its Python.
    """
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    package = Path(chorus.__file__).parent
    shutil.copytree(package, packages / "chorus", ignore=shutil.ignore_patterns("__pycache__"))
    # What this brings in has no second `chorus`: .pth files in it are not followed.
    (required,) = Path(sys.prefix).glob("lib/python*/site-packages")
    (packages / "required.pth").write_text(f"{required}\n")
    python = folder / "bin" / "python"
    subprocess.run([str(python), "-m", "compileall", "-q", str(packages / "chorus")], check=True)
    return python


class _Agent:
    """An agent with a data folder and ports of its own, which it keeps from start to start."""

    def __init__(self, python: Path, folder: Path, settings: dict[str, str]) -> None:
        ports = dict(zip(("P2P", "API", "HEALTH"), free_ports(3), strict=True))
        self.address = f"/ip4/127.0.0.1/tcp/{ports['P2P']}"
        self._health = f"http://127.0.0.1:{ports['HEALTH']}"
        self._command = [str(python), "-P", "-m", "chorus.agent"]
        self._log = folder.with_suffix(".log")
        # Settings of whoever runs the bench would be measured too.
        outer = {name: value for name, value in os.environ.items() if not name.startswith("CHORUS_")}
        self._environ = {
            **outer,
            **{f"CHORUS_{name}_PORT": str(port) for name, port in ports.items()},
            "CHORUS_AGENT_ID": f"agent-{folder.name}",
            "CHORUS_DATA_DIR": str(folder),
            "CHORUS_AI_PROVIDER": "none",
            **settings,
        }
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Of its parent process, while it runs."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Starts it; it is not ready yet."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                env=self._environ,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # A Ctrl-C in the terminal is for the bench, which then stops it.
                start_new_session=True,
            )

    def until(self, path: str) -> None:
        """Waits until a probe answers 200."""
        try:
            until(lambda: f"{self._health}{path}")
        except RuntimeError as error:
            raise RuntimeError(f"{error}; the agent's log ends with\n{tail(self._log)}") from None

    def stop(self) -> None:
        """Ends it, with all its processes."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            # Its processes end when their parent does.
            self._process.kill()
            self._process.wait()
        self._process = None


def _processor(agents: list[_Agent]) -> list[float]:
    """The share of a core that each takes over a while, in percent."""
    measured = [usage.Processor(agent.pid) for agent in agents]
    time.sleep(IDLE_S)
    shares = [one.shares() for one in measured]
    return [100 * (sum(share.values()) - share[usage.IDLE]) for share in shares]


def _told(memory: list[usage.Memory]) -> str:
    lines = [("process", "MB", "written by it alone")]
    lines += [(one.name, f"{one.pss:.1f}", f"{one.own:.1f}") for one in memory]
    lines.append(("all", f"{sum(one.pss for one in memory):.1f}", f"{sum(one.own for one in memory):.1f}"))
    return f"process by process\n{aligned(lines, left=1)}"
