"""The units for hosts: systemd's as systemd reads it, supervisord's with a real supervisord and agent."""

from __future__ import annotations

import configparser
import contextlib
import json
import os
import pwd
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from chorus.agent.programs import programs_of, stop_seconds
from chorus.agent.service import STOP_SLACK_S
from chorus.config.variables import BY_NAME

from .conftest import DEPLOY, SOCKET, run, until

pytestmark = pytest.mark.deploy

UNIT = DEPLOY / "systemd" / "chorus-agent.service"
PROGRAM = DEPLOY / "supervisor" / "chorus-agent.conf"
CONTAINER = DEPLOY / "supervisor" / "container.conf"
BIN = Path(sys.prefix) / "bin"
INSTALLED = "/opt/chorus/bin"
# What systemd calls OK, on its scale from 0 to 10, times ten.
EXPOSURE_MAX = 20


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    """The unit with this checkout's agent, which exists."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("no systemd-analyze: apt-get install systemd")
    text = UNIT.read_text()
    assert f"ExecStart={INSTALLED}/chorus-agent\n" in text
    path = tmp_path / UNIT.name
    path.write_text(text.replace(INSTALLED, str(BIN)))
    return path


def test_systemd_takes_the_unit_as_it_is(unit: Path) -> None:
    said = run("systemd-analyze", "verify", "--man=no", str(unit))
    assert (said.stdout, said.stderr) == ("", "")
    unit.write_text(unit.read_text() + "Typo=yes\n[Service]\nKillMod=mixed\n")
    assert "'KillMod' in section" in run("systemd-analyze", "verify", str(unit), check=False).stderr


def test_systemd_finds_it_well_sandboxed(unit: Path) -> None:
    words = ("systemd-analyze", "security", "--offline=true", f"--threshold={EXPOSURE_MAX}", "--no-pager")
    assert "Overall exposure level" in run(*words, str(unit)).stdout
    unit.write_text(unit.read_text().replace("NoNewPrivileges=yes", "").replace("SystemCallFilter=", "#"))
    assert run(*words, str(unit), check=False).returncode != 0


def test_systemd_waits_for_the_drain(unit: Path) -> None:
    """Tasks in flight and processes have their time, and the first process alone is told to stop."""
    lines = unit.read_text().splitlines()
    assert "KillMode=mixed" in lines
    (seconds,) = [
        line.removeprefix("TimeoutStopSec=") for line in lines if line.startswith("TimeoutStopSec=")
    ]
    assert float(seconds.removesuffix("s")) >= drain_s()


def drain_s() -> float:
    """How long a stop may take with the settings' defaults."""
    timeout = BY_NAME["CHORUS_SHUTDOWN_TIMEOUT"]
    return float(timeout.unset) + stop_seconds(programs_of("ollama")) + STOP_SLACK_S


# ---- supervisord -----------------------------------------------------------------------------------


class Supervised:
    """A supervisord with the container's configuration and the agent's program."""

    def __init__(self, folder: Path, environ: dict[str, str], *changes: tuple[str, str]) -> None:
        self.data_dir = folder / "data"
        self.data_dir.mkdir(mode=0o700)
        self.log = folder / "log"
        self.conf = folder / "supervisord.conf"
        (folder / "conf.d").mkdir()
        user = pwd.getpwuid(os.getuid()).pw_name
        program = changed(
            PROGRAM.read_text(),
            (INSTALLED, str(BIN)),
            ("user=chorus", f"user={user}"),
            ("/var/lib/chorus", str(self.data_dir)),
            *changes,
        )
        (folder / "conf.d" / "agent.conf").write_text(program)
        places = (("/etc/supervisor", str(folder)), ("/run/", f"{folder}/"), ("user=root", f"user={user}"))
        self.conf.write_text(changed(CONTAINER.read_text(), *places))
        kept = {name: value for name, value in os.environ.items() if not name.startswith("CHORUS_")}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [str(BIN / "supervisord"), "-c", str(self.conf)], env=kept | environ, stdout=log, stderr=log
            )

    def ctl(self, *words: str) -> str:
        return run(str(BIN / "supervisorctl"), "-c", str(self.conf), *words, check=False).stdout

    def agent(self) -> dict[str, Any]:
        """What the agent says of itself; empty while it starts."""
        with contextlib.suppress(OSError, ValueError):
            return dict(json.loads((self.data_dir / "agent.json").read_text()))
        assert self.process.poll() is None, self.log.read_text()
        return {}


def changed(text: str, *changes: tuple[str, str]) -> str:
    for before, after in changes:
        assert before in text
        text = text.replace(before, after)
    return text


@contextmanager
def supervised(*arguments: Any) -> Iterator[Supervised]:
    made = Supervised(*arguments)
    try:
        yield made
    finally:
        made.process.kill()
        made.process.wait()


def test_supervisord_runs_the_agent_and_stops_it_gently(short_dir: Path) -> None:
    if not SOCKET.exists():
        pytest.skip(f"no Docker at {SOCKET}: make setup")
    ports = {f"CHORUS_{name}_PORT": "0" for name in ("P2P", "API", "HEALTH")}
    environ = {"CHORUS_LICENSE_ID": "dev-supervised", "CHORUS_AI_PROVIDER": "none", **ports}
    with supervised(short_dir, environ) as here:
        pid = int(until(here.agent)["pid"])
        assert f"pid {pid}" in until(
            lambda: "RUNNING" in (said := here.ctl("status", "chorus-agent")) and said
        )
        here.ctl("signal", "HUP", "chorus-agent")
        until(lambda: "SIGHUP" in here.log.read_text())
        here.process.send_signal(signal.SIGTERM)
        assert here.process.wait(drain_s()) == 0
        assert "stopped: chorus-agent (exit status 0)" in here.log.read_text()
        assert not Path(f"/proc/{pid}").exists()


def test_a_container_ends_with_an_agent_that_does_not_come_up(short_dir: Path) -> None:
    with supervised(short_dir, {}, ("startretries=5", "startretries=0")) as here:
        assert here.process.wait(drain_s()) == 0
        said = here.log.read_text()
        assert "CHORUS_LICENSE_ID" in said
        assert "gave up: chorus-agent entered FATAL state" in said


def test_supervisord_waits_for_the_drain() -> None:
    program = configparser.RawConfigParser(inline_comment_prefixes=(";",))
    program.read(PROGRAM)
    section = program["program:chorus-agent"]
    assert section.getfloat("stopwaitsecs") >= drain_s()
    assert (section["stopsignal"], section["stopasgroup"]) == ("TERM", "false")
