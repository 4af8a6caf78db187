"""The examples of README and docs run as they stand, in a folder that has what they name."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from .conftest import GENEROUS_S, bare_environ
from .test_run import until

pytestmark = [pytest.mark.e2e, pytest.mark.heavy]
ROOT = Path(__file__).parents[2]
# Blocks that start an agent on the default ports, build, or install have tests of their own kind.
_BLOCK = re.compile(r"^```bash\n(.*?)^```", re.MULTILINE | re.DOTALL)


def block(document: str, beginning: str) -> str:
    """The example of a document that has this in its first line."""
    [found] = [
        text for text in _BLOCK.findall((ROOT / document).read_text()) if beginning in text.split("\n")[0]
    ]
    return str(found)


@dataclass
class Shell:
    """A user's shell in a folder, with chorusctl on its path."""

    folder: Path
    environ: dict[str, str]

    def run(self, script: str, **names: str) -> str:
        for name, value in names.items():
            script = script.replace(name, value)
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-x", "-c", script],
            cwd=self.folder,
            env=self.environ,
            capture_output=True,
            timeout=GENEROUS_S,
            check=False,
        )
        assert done.returncode == 0, f"{done.stdout.decode()}\n{done.stderr.decode()}"
        return done.stdout.decode()


@pytest.fixture(scope="module")
def shell(needs: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    folder, tools = tmp_path_factory.mktemp("project"), tmp_path_factory.mktemp("bin")
    (folder / "test_it.py").write_text("def test_it() -> None:\n    assert 6 * 7 == 42\n")
    (folder / "src").mkdir()
    (folder / "src" / "test_other.py").write_text("def test_it() -> None:\n    pass\n")
    (folder / "plan.md").write_text("# A plan\n")
    (folder / "notes.md").write_text("# Notes\n")
    chorusctl = tools / "chorusctl"
    chorusctl.write_text(f'#!/bin/sh\nexec {sys.executable} -m chorus.ctl "$@"\n')
    chorusctl.chmod(0o755)
    environ = bare_environ() | {
        "XDG_STATE_HOME": str(tmp_path_factory.mktemp("state")),
        "PATH": f"{tools}:{os.environ['PATH']}",
    }
    made = Shell(folder, environ)
    try:
        yield made
    finally:
        made.run("chorusctl down --purge || true")


def test_work_is_given_and_remembered(shell: Shell) -> None:
    said = shell.run(block("README.md", "chorusctl up"))
    for line in ("42", "2 passed", "a\nb", "the token is [REDACTED"):
        assert line in said, said
    shell.run("chorusctl up -n 3 --detach")
    found = json.loads(shell.run("chorusctl token --json"))
    shell.environ["API"] = found["url"]
    decisions = until(lambda: json.loads(shell.run("chorusctl decisions --json"))["items"])
    names = {"HASH": decisions[0]["hash"], "PEER_ID": decisions[0]["author"]}
    shell.run(block("README.md", "chorusctl decisions"), **names)
    shell.run(block("docs/records.md", "chorusctl decision show"), **names)
    for document in ("docs/api.md", "docs/ucxi.md"):
        shell.run(block(document, "api="), **{"http://127.0.0.1:8080 ": f"{found['url']} "})
    looks = block("docs/log.md", "chorusctl log").splitlines()
    stopped = [line for line in looks if "--dir" in line]
    follows = [line for line in looks if "-f" in line]
    shell.run("\n".join(line for line in looks if line not in stopped + follows))
    shell.run(f"timeout 5 {follows[0].partition('#')[0]} || test $? = 124")
    shell.run("chorusctl down")
    agent = next(Path(shell.environ["XDG_STATE_HOME"]).glob("chorus/contexts/*/agent-1"))
    shell.run(stopped[0], FOLDER=str(agent))
