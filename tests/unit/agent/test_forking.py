"""Programs that supervisord forks: what one finds when it begins, what it leaves behind, and what was loaded
before.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from chorus.agent.programs import module_of, programs_of
from chorus.config import save_run_settings
from chorus.config.load import load_settings

# Stands for supervisord: loads as the leash does, sets a handler of its own, and forks one program after
# the other.
SUPERVISORD = """
import os, signal, sys
from pathlib import Path
import chorus
chorus.__path__.append(sys.argv[1])
from chorus.agent.forking import fork_programs
fork_programs(["chorus.forked", "chorus.broken"], Path(sys.argv[2]))
from supervisor.options import ServerOptions
signal.signal(signal.SIGTERM, lambda *_: None)
kept = {"PATH": os.environ["PATH"], "PROMETHEUS_MULTIPROC_DIR": os.environ["PROMETHEUS_MULTIPROC_DIR"]}
for program in sys.argv[3:]:
    module, _, word = program.partition("=")
    command = [sys.executable, "-P", "-m", module] if module.startswith("chorus.") else [module, word]
    pid = os.fork()
    if pid == 0:
        os.closerange(3, 1024)
        ServerOptions.execve(ServerOptions(), command[0], command, {**kept, "WORD": word})
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""
FORKED = """
import json, os, signal, sys
from pathlib import Path
from chorus.process import metrics

def start():
    metrics.TASKS_COMPLETED.inc(2)
    if os.environ["WORD"] == "fail":
        raise ValueError("failed")
    print(json.dumps({
        "environment": dict(os.environ),
        "command": Path("/proc/self/cmdline").read_text(),
        "argv": sys.argv,
        "terminated by default": signal.getsignal(signal.SIGTERM) == signal.SIG_DFL,
        "interrupted as Python is": signal.getsignal(signal.SIGINT) == signal.default_int_handler,
        "counted": metrics.TASKS_COMPLETED._value.get(),
    }))
    sys.exit(int(os.environ["WORD"] or 0))
"""


class Forked:
    """What one run of SUPERVISORD said and left."""

    def __init__(self, folder: Path, *programs: str) -> None:
        self.metrics, self.run = folder / "metrics", folder / "run"
        for name, text in (("forked", FORKED), ("broken", "import missing_module")):
            (folder / "chorus" / name).mkdir(parents=True)
            (folder / "chorus" / name / "__init__.py").touch()
            (folder / "chorus" / name / "__main__.py").write_text(text)
        self.metrics.mkdir()
        self.run.mkdir()
        command = [sys.executable, "-c", SUPERVISORD, str(folder / "chorus"), str(self.run), *programs]
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(self.metrics), "SECRET": "not handed on"},
        )
        self.lines, self.errors = done.stdout.splitlines(), done.stderr


def test_a_forked_program_begins_as_one_that_was_started(tmp_path: Path) -> None:
    forked = Forked(tmp_path, "chorus.forked=")
    said: dict[str, Any] = json.loads(forked.lines[0])
    command = [sys.executable, "-P", "-m", "chorus.forked"]
    assert said["command"].rstrip("\0").split("\0") == command
    assert said["argv"] == ["chorus.forked"]
    assert said["environment"].keys() == {"PATH", "PROMETHEUS_MULTIPROC_DIR", "WORD"}
    assert said["terminated by default"]
    assert said["interrupted as Python is"]


def test_its_exit_code_is_the_programs(tmp_path: Path) -> None:
    forked = Forked(tmp_path, "chorus.forked=0", "chorus.forked=3", "chorus.forked=fail")
    assert [line for line in forked.lines if not line.startswith("{")] == ["0", "3", "1"]
    assert "ValueError: failed" in forked.errors


def test_each_counts_in_files_of_its_own(tmp_path: Path) -> None:
    forked = Forked(tmp_path, "chorus.forked=", "chorus.forked=")
    said = [json.loads(line) for line in forked.lines if line.startswith("{")]
    assert [one["counted"] for one in said] == [2, 2]
    assert len(list(forked.metrics.glob("counter_*.db"))) == 2, "of both, and none of supervisord"
    assert list(forked.run.iterdir()) == []


def test_other_commands_are_started_as_ever(tmp_path: Path) -> None:
    assert Forked(tmp_path, "/bin/echo=hello").lines == ["hello", "0"]


def test_a_module_that_cannot_be_loaded_says_so_itself(tmp_path: Path) -> None:
    forked = Forked(tmp_path, "chorus.broken=", "chorus.forked=")
    assert "missing_module" in forked.errors
    assert forked.lines[0] == "1"
    assert forked.lines[-1] == "0"


LOADED = """
import sys
from pathlib import Path
from chorus.agent.forking import fork_programs
fork_programs(sys.argv[2:], Path(sys.argv[1]))
print(*sorted(name for name in sys.modules if name.startswith("chorus")))
print(len(list(Path("/proc/self/task").iterdir())))
print(*(path.readlink() for path in Path("/proc/self/fd").iterdir() if int(path.name) > 2 and path.exists()))
from chorus.wire.schema import Schema
def schemas(of):
    return [of, *(found for one in of.__subclasses__() for found in schemas(one))]
print(len(schemas(Schema)), *(one.__name__ for one in schemas(Schema) if not one.__pydantic_complete__))
from chorus.config import load_run_settings, values
values.get_type_hints = None
print(load_run_settings(Path(sys.argv[1])).agent_id)
"""
# What a program loads when it needs it: few do, or it is large.
LATER = {"chorus.telemetry", "chorus.mind.providers", "chorus.archives.child", "chorus.table.export"}


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    modules = [module for program in programs_of("ollama") if (module := module_of(program.command))]
    folder = tmp_path_factory.mktemp("run")
    settings = {"CHORUS_LICENSE_ID": "dev-1", "CHORUS_AGENT_ID": "agent-1", "CHORUS_RUN_DIR": str(folder)}
    save_run_settings(load_settings(settings | {"HOME": str(folder)}))
    command = [sys.executable, "-c", LOADED, str(folder), *modules]
    environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(folder)}
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment)
    return done.stdout.splitlines()


def test_what_programs_are_made_of_is_loaded_before_they_begin(loaded: list[str]) -> None:
    import chorus

    root = Path(chorus.__file__).parent
    names = {
        ".".join(("chorus", *path.relative_to(root).with_suffix("").parts)).removesuffix(".__init__")
        for package in (
            "node",
            "election",
            "coordinator",
            "executor",
            "api",
            "mind",
            "table",
            "curator",
            "hmmm",
        )
        for path in (root / package).rglob("*.py")
    }
    missing = names - set(loaded[0].split())
    assert {name for name in missing if not name.startswith(tuple(LATER))} == set()


def test_nothing_that_is_loaded_has_a_thread_or_an_open_file(loaded: list[str]) -> None:
    # A fork has the thread that forked, and whatever locks others held. Files are closed in it, by number.
    assert loaded[1] == "1"
    assert loaded[2] == ""


def test_what_each_program_would_make_is_made_before_they_begin(loaded: list[str]) -> None:
    count, *unfinished = loaded[3].split()
    assert int(count) > 100
    assert unfinished == [], "schemas whose check is not made yet"
    assert loaded[4] == "agent-1", "settings, without reading the types of their fields again"
