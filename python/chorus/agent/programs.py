"""Which programs one agent is made of, and the supervisord configuration that runs them. Pure."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from chorus.config import Paths
from chorus.config.paths import METRICS_VARIABLE

LISTENER = "watcher"
# The last is supervisord's own sign of life, every five seconds.
EVENTS = (
    "PROCESS_STATE_RUNNING",
    "PROCESS_STATE_EXITED",
    "PROCESS_STATE_BACKOFF",
    "PROCESS_STATE_FATAL",
    "TICK_5",
)
# Longer than this a process counts as started; ending earlier is a failed start. supervisord looks once a
# second: with one second here, what dies at once would count as started every now and then.
START_SECONDS = 2
# supervisord's own quick attempts; then the program is FATAL and the parent takes over, more and more slowly.
START_RETRIES = 3


@dataclass(frozen=True, slots=True)
class Program:
    """One program. Lower priorities start earlier and stop later."""

    name: str
    command: tuple[str, ...]
    priority: int
    # What it is given to end by itself before it is killed.
    stop_wait_s: int = 10


def _module(name: str) -> tuple[str, ...]:
    # -P: modules come from the installation, never from the folder the agent happens to be started in.
    return (sys.executable, "-P", "-m", f"chorus.{name}")


def module_of(command: Sequence[str]) -> str | None:
    """The module that such a command starts, none for others."""
    name = command[-1].removeprefix("chorus.")
    return command[-1] if tuple(command) == _module(name) else None


# Stopped from the last to the first: work ends, then goodbye and the close of P2P and its cache, and HTTP at
# last.
_ALWAYS: tuple[Program, ...] = (
    Program("api", _module("api"), 10),
    Program("node", _module("node"), 20, stop_wait_s=15),
    Program("election", _module("election"), 30),
    Program("coordinator", _module("coordinator"), 40),
    Program("executor", _module("executor"), 50, stop_wait_s=15),
)
# After the executor, whose goals it works on; it has nothing to finish by itself then.
_MIND = Program("mind", _module("mind"), 45, stop_wait_s=5)


def programs_of(provider: str) -> tuple[Program, ...]:
    """The programs of an agent: `mind` is one of them where there is a provider of models."""
    return _ALWAYS if provider == "none" else (*_ALWAYS, _MIND)


def listener_command(events: Path) -> tuple[str, ...]:
    """The event listener: a script on its own, as a Python without site packages starts in a few
    milliseconds.
    """
    return (sys.executable, "-I", "-S", str(Path(__file__).with_name("listener.py")), str(events))


def stop_seconds(programs: Sequence[Program]) -> int:
    """How long supervisord may take to stop them one after the other."""
    return sum(program.stop_wait_s for program in programs)


def environment(paths: Paths, alive: Path, events: Path) -> dict[str, str]:
    """What processes find in their environment; all else stands in the run directory's settings."""
    return {
        "CHORUS_RUN_DIR": str(paths.run),
        "CHORUS_ALIVE": str(alive),
        "CHORUS_EVENTS": str(events),
        METRICS_VARIABLE: str(paths.metrics_dir),
    }


def supervisord_conf(
    programs: Sequence[Program], paths: Paths, events: Path, password: str, *, as_root: bool
) -> str:
    """The configuration of one generation of processes."""
    sections = [
        _section(
            "supervisord",
            {
                "nodaemon": "true",
                "logfile": "/dev/null",
                "logfile_maxbytes": "0",
                "pidfile": str(paths.run / "supervisord.pid"),
                "loglevel": "info",
                "umask": "077",
                "identifier": "chorus",
                **({"user": "root"} if as_root else {}),
            },
        ),
        _section(
            "unix_http_server",
            {
                "file": str(paths.supervisor_socket),
                "chmod": "0600",
                "username": "agent",
                "password": password,
            },
        ),
        _section(
            "rpcinterface:supervisor",
            {"supervisor.rpcinterface_factory": "supervisor.rpcinterface:make_main_rpcinterface"},
        ),
        _section(
            f"eventlistener:{LISTENER}",
            {
                "command": _command(listener_command(events)),
                "events": ",".join(EVENTS),
                "priority": "1",
                "autorestart": "true",
                "startsecs": "0",
                "stderr_logfile": "/dev/stderr",
                "stderr_logfile_maxbytes": "0",
            },
        ),
    ]
    for program in programs:
        sections.append(
            _section(
                f"program:{program.name}",
                {
                    "command": _command(program.command),
                    "priority": str(program.priority),
                    "autostart": "true",
                    "autorestart": "true",
                    "startsecs": str(START_SECONDS),
                    "startretries": str(START_RETRIES),
                    "stopsignal": "TERM",
                    "stopwaitsecs": str(program.stop_wait_s),
                    "stopasgroup": "false",
                    "killasgroup": "true",
                    "redirect_stderr": "false",
                    "stdout_logfile": "/dev/stderr",
                    "stdout_logfile_maxbytes": "0",
                    "stderr_logfile": "/dev/stderr",
                    "stderr_logfile_maxbytes": "0",
                },
            )
        )
    return "\n".join(sections)


def _section(name: str, options: Mapping[str, str]) -> str:
    # supervisord expands %(NAME)s in every value.
    lines = (f"{key}={value.replace('%', '%%')}\n" for key, value in options.items())
    return f"[{name}]\n" + "".join(lines)


def _command(command: Sequence[str]) -> str:
    # supervisord splits it like a shell.
    return " ".join(_quoted(word) for word in command)


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
