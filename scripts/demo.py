#!/usr/bin/env python3
"""`make demo`: three agents run the tests of three published packages, and one of them reaches a goal with a
scripted model; what they decided is then looked up, followed through its versions, and proven; and a planted
secret arrives redacted. With CHORUS_DEMO_MODEL=1 a real model works on the goal.

Starts a mesh of its own with chorusctl, fetches the packages with pip, and leaves nothing behind. Without a
network it takes the projects under examples/ and says so.
"""

from __future__ import annotations

import json
import os
import random
import re
import string
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import demo_goal

from chorus.ctl.client import Client
from chorus.ctl.contexts import Endpoint, Target
from chorus.ctl.follow import follow
from chorus.ctl.pack import pack
from chorus.ctl.problems import CtlError
from chorus.ctl.tree import walk
from chorus.decisions import verify
from chorus.wire.ids import new_id

# Pure Python, with their tests in the published source, which need nothing but pytest.
PACKAGES: Final = ("six==1.17.0", "toolz==1.0.0", "idna==3.10")
EXAMPLES: Final = Path(__file__).resolve().parent.parent / "examples" / "projects"
FETCH_TIMEOUT_S: Final = 300
TASK_TIMEOUT_S: Final = 900
CONTEXT: Final = "demo"
COMMAND: Final = "python3 -m pytest -q -p no:cacheprovider"
# Where the demo's own report is kept, one version by each of two agents.
REPORT: Final = "ucxl://demo:agent@chorus:suites/*^/report.txt"
_PASSED: Final = re.compile(r"(\d+) passed")


@dataclass(slots=True)
class Suite:
    """One package's test suite on its way through the mesh."""

    name: str
    folder: Path
    task_id: str = field(default_factory=new_id)
    output: list[str] = field(default_factory=list)
    task: dict[str, Any] = field(default_factory=dict)

    @property
    def passed(self) -> str:
        """What pytest counted."""
        found = _PASSED.findall("\n".join(self.output))
        return found[-1] if found else "none"


def main() -> int:
    """Runs the demo; 0 when every suite passed and the record is genuine."""
    with tempfile.TemporaryDirectory(prefix="chorus-demo-") as folder:
        # The mesh's data lies in the temporary folder: no trace in the user's own.
        os.environ["XDG_STATE_HOME"] = folder
        for name in ("CHORUS_API_URL", "CHORUS_CONTEXT", "CHORUS_DATA_DIR", "CHORUS_AGENT_ID"):
            os.environ.pop(name, None)
        try:
            with demo_goal.model(say) as settings:
                os.environ.update(settings)
                saved = demo(Path(folder))
        except CtlError as error:
            print(f"demo: {error}", file=sys.stderr)
            return 1
        finally:
            if (Path(folder) / "chorus" / "contexts" / CONTEXT).exists():
                say("stopping the agents and removing their data")
                chorusctl("down", "--purge")
        return 0 if saved is not None and check_offline(*saved) else 1


def demo(folder: Path) -> tuple[Path, str] | None:
    """From nothing to a decision in a file, and its author; None when something did not come as it should."""
    say("starting three agents, and fetching the packages meanwhile")
    with ThreadPoolExecutor() as pool:
        fetching = pool.submit(fetch_all, folder / "packages")
        agents = json.loads(chorusctl("up", "-n", "3", "--detach", "--json"))["agents"]
        suites = fetching.result()
    for agent in agents:
        say(f"{agent['agent_id']} is ready: {agent['api']}")
    endpoints = [Endpoint(a["api"], Path(a["token_file"]).read_text().strip(), a["agent_id"]) for a in agents]
    started = time.monotonic()
    with ThreadPoolExecutor() as pool:
        # Each suite goes to another agent; the mesh's leader decides who runs it.
        list(pool.map(run_suite, suites, endpoints))
    say(f"all three ended after {time.monotonic() - started:.1f} s")
    table(suites)
    done = all(suite.task["state"] == "completed" for suite in suites)
    reached = demo_goal.reach(folder, endpoints, shown, say)
    saved = prove(suites[0], endpoints, folder / "decision.json")
    remembered = remember(suites, endpoints)
    return saved if done and reached and remembered and redacts(endpoints) else None


def fetch_all(folder: Path) -> list[Suite]:
    """The published sources, or the project's own examples when there is no network."""
    folder.mkdir()
    with ThreadPoolExecutor() as pool:
        fetched = list(pool.map(lambda package: fetch(package, folder), PACKAGES))
    suites = [suite for suite in fetched if suite is not None]
    if len(suites) == len(PACKAGES):
        return suites
    say(f"no network: the packages could not be fetched; taking the projects in {EXAMPLES} instead")
    return [Suite(path.name, path) for path in sorted(EXAMPLES.iterdir()) if path.is_dir()]


def fetch(package: str, folder: Path) -> Suite | None:
    """One source distribution by pip, with whatever index this machine is set up for."""
    name, _, version = package.partition("==")
    into = folder / name
    into.mkdir()
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--retries", "1", "--no-binary", name, "--dest", str(into), package]
    try:
        subprocess.run(command, check=True, capture_output=True, timeout=FETCH_TIMEOUT_S)
        [archive] = into.glob("*.tar.gz")
    except (subprocess.SubprocessError, OSError, ValueError):
        return None
    with tarfile.open(archive) as tar:
        tar.extractall(into, filter="data")
    archive.unlink()
    [root] = into.iterdir()
    say(f"fetched {name} {version}")
    return Suite(f"{name} {version}", root)


def run_suite(suite: Suite, endpoint: Endpoint) -> None:
    """Submits one suite and follows it to its end."""
    task = {
        "task_id": suite.task_id,
        "title": f"the tests of {suite.name}",
        "language": "python",
        "commands": [COMMAND],
        "env": {"PYTHONPATH": "src:.", "PYTHONDONTWRITEBYTECODE": "1"},
        "timeout_s": TASK_TIMEOUT_S,
    }
    with Client(Target((endpoint,))) as client, tempfile.TemporaryFile() as archive:
        tree = walk(suite.folder)
        pack(tree.root, [*tree.folders, *tree.files], archive)
        client.submit(task, archive)
        printer = Printer(suite)
        for event in follow(client, suite.task_id):
            if event.event == "output":
                printer.feed(event.output())
            elif event.event == "state":
                printer.line(f"· {event.data['state']} {event.data.get('reason') or ''}".rstrip())
        printer.finish()
        suite.task = client.get(f"/api/v1/tasks/{suite.task_id}")


class Printer:
    """Prints whole lines with the suite's name in front, so that three streams stay readable."""

    _lock: Final = threading.Lock()

    def __init__(self, suite: Suite) -> None:
        self._suite = suite
        self._rest = b""

    def feed(self, data: bytes) -> None:
        """Takes output as it comes."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self.line(line.decode(errors="replace"))

    def finish(self) -> None:
        """Prints what had no newline."""
        if self._rest:
            self.line(self._rest.decode(errors="replace"))

    def line(self, text: str) -> None:
        """One line."""
        self._suite.output.append(text)
        with self._lock:
            print(f"{self._suite.name:>14} | {text}", flush=True)


def table(suites: list[Suite]) -> None:
    """What came of it."""
    rows = [("package", "agent", "tests passed", "time", "decision")]
    for suite in suites:
        task = suite.task
        result = task["result"] or {}
        seconds = "-" if task["running_s"] is None else f"{task['running_s']:.1f} s"
        rows.append((suite.name, str(task["agent_id"]), suite.passed, seconds, str(result.get("decision"))))
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    print()
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    print(flush=True)


def prove(suite: Suite, endpoints: list[Endpoint], file: Path) -> tuple[Path, str] | None:
    """Reads a suite's decision from an agent that did not run it, and checks it without trusting anybody."""
    reader = next(endpoint for endpoint in endpoints if endpoint.agent_id != suite.task["agent_id"])
    with Client(Target((reader,))) as client:
        deadline = time.monotonic() + 30
        while not (items := client.get("/api/v1/decisions", task_id=suite.task_id)["items"]):
            if time.monotonic() > deadline:
                say(f"{reader.agent_id} knows no decision about {suite.name}")
                return None
            time.sleep(0.1)
        encoded = client.get_bytes(f"/api/v1/decisions/{items[0]['hash']}").content
    record = verify(encoded, expected_hash=items[0]["hash"])
    say(f"decision about {suite.name}, run by {suite.task['agent_id']}, read from {reader.agent_id}:")
    say(f"  {record.record['summary']}")
    say(f"  signature of {record.author} is genuine; SHA-256 {record.hash}")
    file.write_bytes(encoded)
    return file, record.author


def remember(suites: list[Suite], endpoints: list[Endpoint]) -> bool:
    """Two agents write a report at one address; a third shows its history."""
    lines = [f"{suite.name}: {suite.passed} passed" for suite in suites]
    for endpoint, text in ((endpoints[0], lines[0]), (endpoints[1], "\n".join(lines))):
        chorusctl("ucxl", "put", REPORT, "--type", "text/plain", stdin=text + "\n", at=endpoint)
    say(f"the history of {REPORT}, written by two agents, read from {endpoints[2].agent_id}:")
    history = json.loads(chorusctl("ucxl", "history", REPORT, "--json", at=endpoints[2]))["items"]
    for item in history:
        say(f"  version {item['version']}: {item['size']} bytes by {item['agent_id']}, {item['created_at']}")
    newest = chorusctl("ucxl", "get", REPORT, at=endpoints[2])
    return [item["version"] for item in history] == [2, 1] and newest.splitlines() == lines


def redacts(endpoints: list[Endpoint]) -> bool:
    """A task prints a made-up token: what arrives names the rule, not the token."""
    planted = "ghp_" + "".join(random.choices(string.ascii_letters + string.digits, k=36))
    command = ("--", "sh", "-c", "echo the token is $LEAK")
    arrived = chorusctl("run", "--title", "a leak", "--env", f"LEAK={planted}", *command, at=endpoints[0])
    say(f"a task printed a planted token; what arrived: {arrived.strip()}")
    return planted not in arrived and "[REDACTED:" in arrived


def check_offline(file: Path, author: str) -> bool:
    """The saved record once more, with no agent left: the file and its author's public key are enough."""
    say(f"with all agents gone, {file.name} and the public key {author}:")
    said = chorusctl("decision", "verify", str(file), "--key", author)
    for line in said.strip().splitlines():
        say(f"  {line}")
    return bool(said)


def chorusctl(*words: str, stdin: str | None = None, at: Endpoint | None = None) -> str:
    """Runs chorusctl for the demo's mesh, `at` one agent; its progress goes to our stderr."""
    command, environ = call(words, at)
    done = subprocess.run(command, input=stdin, stdout=subprocess.PIPE, text=True, env=environ, check=False)
    if done.returncode:
        raise CtlError(f"chorusctl {' '.join(words)} ended with {done.returncode}")
    return done.stdout


def shown(*words: str, at: Endpoint) -> int:
    """Runs chorusctl and shows what it prints as it comes; its exit code."""
    command, environ = call(words, at)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environ) as running:
        assert running.stdout is not None
        for line in running.stdout:
            print(f"{f'chorusctl {words[0]}':>14} | {line}", end="", flush=True)
    return running.returncode


def call(words: tuple[str, ...], at: Endpoint | None) -> tuple[list[str], dict[str, str]]:
    """The command and the environment of a call of chorusctl."""
    command = [sys.executable, "-m", "chorus.ctl", words[0]]
    if at is None:
        return [*command, "--context", CONTEXT, *words[1:]], dict(os.environ)
    return [*command, *words[1:]], {**os.environ, "CHORUS_API_URL": at.url, "CHORUS_API_TOKEN": at.token}


def say(text: str) -> None:
    """One line about the demo itself."""
    print(f"demo: {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
