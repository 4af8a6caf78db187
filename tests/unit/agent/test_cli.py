"""The command line: help, version, unknown arguments, and what they must not need."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from chorus.agent import cli
from chorus.agent.version import release
from chorus.config.variables import BY_NAME

VERSION = re.compile(r"CHORUS-agent \d+\.\d+\.\d+(-dev)? \(build: [0-9a-z]+, ([0-9-]{10}|unknown)\)")


@pytest.mark.parametrize("flag", ["--help", "-h", "help"])
def test_help(flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([flag]) == 0
    out = capsys.readouterr().out
    assert VERSION.fullmatch(out.splitlines()[0])
    for word in (
        "Usage:",
        "CHORUS_LICENSE_ID",
        "CHORUS_BOOTSTRAP_PEERS",
        "OLLAMA_ENDPOINT",
        "Example:",
        "Agent Features:",
    ):
        assert word in out


@pytest.mark.parametrize("flag", ["--version", "-v"])
def test_version(flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([flag]) == 0
    assert VERSION.fullmatch(capsys.readouterr().out.strip())


def test_an_unknown_argument(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--port", "1"]) == 2
    err = capsys.readouterr().err
    assert "--port" in err
    assert "--help" in err


def test_help_says_of_settings_what_their_declarations_say() -> None:
    # Written out in the help, which is to load nothing; this keeps the two alike.
    settings = re.search(r"Environment \(common\):\n(.*?)\n\n", cli.HELP, re.DOTALL)
    assert settings is not None
    said = [re.fullmatch(r"  ([A-Z0-9_]+) +\((.+)\)", line) for line in settings[1].splitlines()]
    assert {line[1]: line[2] for line in said if line} == {
        line[1]: BY_NAME[line[1]].brief for line in said if line
    }
    assert all(said)


def test_help_and_version_load_nothing_heavy() -> None:
    script = (
        "import sys; before = set(sys.modules)\n"
        "from chorus.agent.cli import main; main(['--version']); main(['--help'])\n"
        "heavy = {'pydantic', 'asyncio', 'docker', 'fastapi', 'prometheus_client', 'supervisor', 'uvloop'}\n"
        "sys.exit(' '.join(sorted(heavy & set(sys.modules) - before)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_releases() -> None:
    assert release("0.5.0.dev0") == "0.5.0-dev"
    assert release("0.5.0-dev") == "0.5.0-dev"
    assert release("1.0.0") == "1.0.0"
