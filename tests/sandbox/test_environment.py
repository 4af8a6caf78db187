"""Whatever the API takes as the environment of a task arrives at its commands, byte for byte."""

from __future__ import annotations

import asyncio
import random
import string
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from chorus.executor.backend import Limits, Sandbox
from chorus.executor.docker.backend import DockerBackend
from chorus.testing.sandbox_contract import SMALL, bench, tar_of
from chorus.wire.task import ENV_MAX_NAMES, TaskInvalid, parse_task

pytestmark = pytest.mark.docker

Acquire = Callable[[Limits], Awaitable[Sandbox]]

# What bash and the POSIX shell keep for themselves, in any version.
OWNED = """
    _ BASH BASHOPTS BASHPID BASH_ALIASES BASH_ARGC BASH_ARGV BASH_ARGV0 BASH_CMDS BASH_COMMAND
    BASH_ENV BASH_EXECUTION_STRING BASH_LINENO BASH_LOADABLES_PATH BASH_MONOSECONDS BASH_REMATCH
    BASH_SOURCE BASH_SUBSHELL BASH_TRAPSIG BASH_VERSINFO BASH_VERSION BASH_XTRACEFD CDPATH COLUMNS
    COMP_WORDBREAKS COPROC DIRSTACK ENV EPOCHREALTIME EPOCHSECONDS EUID EXECIGNORE FCEDIT FIGNORE
    FUNCNAME FUNCNEST GLOBIGNORE GLOBSORT GROUPS HISTCMD HISTFILE HISTSIZE HOME HOSTNAME HOSTTYPE
    IFS IGNOREEOF INPUTRC LANG LC_ALL LINENO LINES MACHTYPE MAIL MAILPATH MAPFILE OLDPWD OPTARG
    OPTERR OSTYPE PIPESTATUS POSIXLY_CORRECT PPID PROMPT_COMMAND PS0 PS1 PS2 PS3 PS4 PWD RANDOM
    READLINE_LINE REPLY SECONDS SHELL SHELLOPTS SHLVL SRANDOM TERM TIMEFORMAT TMOUT TMPDIR UID
""".split()  # noqa: SIM905
# The session's own.
INNER = "first line rest nonce current failure worker_id lease cgroup environment protection a".split()  # noqa: SIM905
AWKWARD = [
    "",
    " ",
    "\n",
    "7 a:b",
    "'",
    '"',
    "\\",
    "\\'\\n",
    "$HOME `id` $(id) ${x}",
    "\u0081\u0088é€😀\U0010ffff",
    "a\nb\r\tc\x01\x7f\x1b[0m",
    "-n",
    "=x=",
    "*",
    "~",
    "!!",
    "x" * 4000,
]


def value(rng: random.Random) -> str:
    """Any text but NUL and surrogates, most of it awkward."""
    if rng.random() < 0.6:
        return rng.choice(AWKWARD)
    ranges = [(1, 0x7F), (0x80, 0xFF), (0x100, 0xD7FF), (0xE000, 0x10FFFF)]
    return "".join(chr(rng.randint(*rng.choice(ranges))) for _ in range(rng.randint(0, 60)))


def name(rng: random.Random) -> str:
    """A name as the API takes it."""
    first = rng.choice(string.ascii_letters + "_")
    return first + "".join(rng.choices(string.ascii_letters + string.digits + "_", k=rng.randint(0, 30)))


def batches(seed: int) -> list[dict[str, str]]:
    """The shells' own names, each with two values, and names as they come."""
    rng = random.Random(seed)
    names = [*OWNED, *INNER, *(name(rng) for _ in range(60))] * 2
    rng.shuffle(names)
    size = ENV_MAX_NAMES // 2
    return [
        {one: value(rng) for one in names[start : start + size]} | {"OPTIND": str(rng.randint(0, 10**9 - 1))}
        for start in range(0, len(names), size)
    ]


async def test_every_name_arrives_with_every_value(acquire: Acquire) -> None:
    for env in batches(seed=20240607):
        env = dict(parse_task({"title": "t", "commands": ["true"], "env": env}).env)
        box = await bench(acquire, SMALL, env)
        end = await box.run("/usr/bin/env -0")
        raw = box.sink.take().decode("utf-8")
        assert end.exit_code == 0, box.sink.take("stderr")
        arrived = dict(item.split("=", 1) for item in raw.split("\0") if item)
        assert {one: arrived.get(one) for one in env} == env
        # Nothing beside it but what every sandbox has.
        assert set(arrived) - set(env) <= {
            "HOME",
            "TMPDIR",
            "LANG",
            "TERM",
            "PATH",
            "PWD",
            "HOSTNAME",
            "SHLVL",
            "OLDPWD",
            "_",
        }
        assert (await box.run("exit 3")).exit_code == 3
        await asyncio.shield(box.sandbox.close())


def test_a_value_that_would_end_the_shell_is_refused() -> None:
    for bad in ("", "x", "7 a", "-1", "9" * 20):
        with pytest.raises(TaskInvalid, match="OPTIND"):
            parse_task({"title": "t", "commands": ["true"], "env": {"OPTIND": bad}})


SERVER = """
import socket, socketserver, threading, urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

class Say(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers(); self.wfile.write(b"ok")
    log_message = print

class Six(ThreadingHTTPServer):
    address_family = socket.AF_INET6

for kind, host, at in (
    (ThreadingHTTPServer, "localhost", "localhost"),
    (ThreadingHTTPServer, socket.gethostname(), socket.gethostname()),
    (Six, "::1", "localhost"),
    (Six, "::", "127.0.0.1"),
):
    server = kind((host, 0), Say)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(urllib.request.urlopen(f"http://{at}:{server.server_port}/", timeout=30).read().decode())
"""


async def test_a_local_server_is_reached_by_every_name(
    backend: DockerBackend, python_image: str, tmp_path: Path
) -> None:
    sandbox = await backend.acquire(python_image, SMALL, 30.0)

    async def same(limits: Limits) -> Sandbox:
        return sandbox

    box = await bench(same)
    await sandbox.put(tar_of(tmp_path, {"server.py": SERVER.encode()}))
    end = await box.run("python3 server.py")
    assert (end.exit_code, box.sink.take().count(b"ok\n")) == (0, 4), box.sink.take("stderr")
    await sandbox.close()
