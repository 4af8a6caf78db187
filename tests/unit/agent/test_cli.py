"""The command line: help, version, unknown arguments, and what they must not need."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from chorus.agent import cli, version
from chorus.agent.version import release
from chorus.config.variables import BY_NAME

# The contract's text after the line of the version.
HELP_LINES = """\
Usage:
chorus-agent [--help] [--version]
CHORUS Autonomous Agent - P2P Task Coordination
This binary runs autonomous AI agents that participate in P2P task coordination,
collaborative reasoning via HMMM, and distributed decision making.
Environment (common):
CHORUS_LICENSE_ID (required)
CHORUS_AGENT_ID (optional; auto-generated if empty)
CHORUS_P2P_PORT (default 9000)
CHORUS_API_PORT (default 8080)
CHORUS_HEALTH_PORT (default 8081)
CHORUS_DHT_ENABLED (default true)
CHORUS_BOOTSTRAP_PEERS (comma-separated multiaddrs)
OLLAMA_ENDPOINT (default http://localhost:11434)
Example:
CHORUS_LICENSE_ID=dev-123 \\
CHORUS_AGENT_ID=chorus-agent-1 \\
CHORUS_P2P_PORT=9000 CHORUS_API_PORT=8080 ./chorus-agent
Agent Features:
- Autonomous task execution
- P2P mesh networking
- HMMM collaborative reasoning
- DHT encrypted storage
- UCXL context addressing
- Democratic leader election
- Health monitoring
""".splitlines()
VERSION = re.compile(r"CHORUS-agent \d+\.\d+\.\d+(-dev)? \(build: [0-9a-z]+, ([0-9-]{10}|unknown)\)")


@pytest.mark.parametrize("flag", ["--help", "-h", "help"])
def test_help(flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([flag]) == 0
    out = capsys.readouterr().out
    assert VERSION.fullmatch(out.splitlines()[0])
    # Indents and the width of columns are for readers alone.
    assert [" ".join(line.split()) for line in out.splitlines()[1:] if line.strip()] == HELP_LINES


@pytest.mark.parametrize("flag", ["--version", "-v"])
def test_version(flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([flag]) == 0
    assert VERSION.fullmatch(capsys.readouterr().out.strip())


def test_the_line_names_version_commit_and_date_of_the_build(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(version, "build_info", lambda: ("0.5.0-dev", "abc123", "2025-09-30"))
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == "CHORUS-agent 0.5.0-dev (build: abc123, 2025-09-30)\n"


def test_the_build_is_the_cores() -> None:
    core = pytest.importorskip("chorus._core")
    assert version.build_info() == (release(core.__version__), core.BUILD_COMMIT, core.BUILD_DATE)


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
