"""What the programs that a session's shell starts are given of it: nothing that a task could read there."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

from chorus.executor.docker import sandbox as docker_sandbox

SESSION = Path(docker_sandbox.__file__).with_name("session.sh").read_text()
# Of the session: the requests, and its two streams.
DESCRIPTORS = (5, 7, 8)
# Notes which descriptors it has, and does what it is to do.
SPY = """#!/bin/bash
for number in {numbers}; do [ -e /proc/$$/fd/$number ] && echo {name} $number >>{found}; done
exec {real} "$@"
"""


def function(name: str) -> str:
    """Of the session."""
    body = re.search(rf"^{name}\(\) \{{\n.*?^\}}", SESSION, re.MULTILINE | re.DOTALL)
    assert body is not None
    return body[0]


def test_no_program_beside_a_goals_command_holds_the_session(tmp_path: Path) -> None:
    group = "\n".join(map(function, ("short", "group"))).replace("/tmp/.chorus", str(tmp_path / "outputs"))
    programs, found = tmp_path / "bin", tmp_path / "found"
    programs.mkdir()
    for name in ("stat", "mkdir"):
        numbers = " ".join(map(str, DESCRIPTORS))
        spy = SPY.format(numbers=numbers, name=name, found=found, real=shutil.which(name))
        (programs / name).write_text(spy)
        (programs / name).chmod(0o755)
    script = f"""
    mark() {{ printf '%s\\n' "$*" >&7; }}
    limits_hit() {{ oom=0 full=0; }}
    set -m; first='' short_bytes=4
    {group}
    group 1 won lost begun / /dev/null "$1" 'echo hello' 5</dev/null 8>/dev/null 7>&1
    """
    output = tmp_path / "outputs" / "1"
    ran = subprocess.run(
        ["bash", "-c", script, "session", output],
        env={"PATH": f"{programs}:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert ran.stdout.splitlines()[-1] == "won end 1 0 0 0 6", ran.stderr
    assert output.read_text() == "hello\n"
    assert not found.exists(), found.read_text()
