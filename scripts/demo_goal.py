"""The demo's goal: a failing test, a plan that another agent objects to, steps, checks and patch."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from chorus.ctl.client import Client
from chorus.ctl.contexts import Endpoint, Target
from chorus.ctl.problems import CtlError
from chorus.decisions import verify
from chorus.dev import ModelServer, load_scripts, policy

ROOT: Final = Path(__file__).resolve().parent.parent
EXAMPLE: Final = ROOT / "examples" / "goal"
GOAL: Final = "Some invoices are a cent too low. Mend the project so that its test passes."
CHECK: Final = "python3 -m pytest -q -p no:cacheprovider"
# Set, a real model works on the goal instead of the scripted one.
REAL: Final = "CHORUS_DEMO_MODEL"
# Two cores read ten tokens of a prompt in a second.
REAL_TIMEOUT: Final = "15m"

Say = Callable[[str], None]


@contextmanager
def model(say: Say) -> Iterator[dict[str, str]]:
    """The settings of a model that answers while the block runs: the scripted one, or a real one."""
    if not os.environ.get(REAL):
        with ModelServer(policy("oracle", load_scripts(EXAMPLE / "script.yaml"))) as server:
            say(f"a scripted model answers at {server.url}; {REAL}=1 takes a real one")
            yield _settings(server.url, server.model)
        return
    say("making a real model ready: the first time that takes 8 minutes of two cores, and 1.1 GB")
    command = [str(ROOT / "scripts" / "model.sh"), "serve", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as serving:
        assert serving.stdout is not None
        try:
            words = dict(word.split("=", 1) for word in serving.stdout.readline().split())
            if not words:
                raise CtlError("the real model cannot be served")
            say(f"{words['OLLAMA_MODEL']} answers at {words['OLLAMA_ENDPOINT']}")
            settings = _settings(words["OLLAMA_ENDPOINT"], words["OLLAMA_MODEL"])
            yield settings | {"CHORUS_AI_TIMEOUT": REAL_TIMEOUT}
        finally:
            serving.terminate()


def _settings(endpoint: str, name: str) -> dict[str, str]:
    return {"CHORUS_AI_PROVIDER": "ollama", "OLLAMA_ENDPOINT": endpoint, "OLLAMA_MODEL": name}


def reach(folder: Path, endpoints: list[Endpoint], ask: Callable[..., int], say: Say) -> bool:
    """Has the mesh reach the goal, and says what came of it; whether all of it is as it should be.

    `ask` runs chorusctl with these words, shows what it prints, and returns its exit code.
    """
    project = folder / "invoices"
    shutil.copytree(EXAMPLE / "project", project)
    say(f"the goal: {GOAL}")
    say(f"before: {_tested(project)}")
    words = ["--dir", str(project), "--language", "python", "--check", CHECK, "--protect", "test_*.py"]
    code = ask("ask", GOAL, *words, "--apply", at=endpoints[0])
    with Client(Target(tuple(endpoints))) as client:
        [task] = client.get("/api/v1/tasks", limit=1)["items"]
        task = client.get(f"/api/v1/tasks/{task['task_id']}")
        _discussed(client, task, say)
    _tell(task, say)
    after = _tested(project)
    say(f"after the patch was applied here: {after}")
    recorded = _recorded(task, endpoints, say)
    if os.environ.get(REAL):
        return True  # a small model may fail, and the demo has shown how
    return code == 0 and after.endswith("passed") and recorded


def _tested(project: Path) -> str:
    """The last line of the project's test, run on this machine."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(project)]
    environ = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [*command, str(project)], cwd=project, env=environ, capture_output=True, text=True, check=False
    )
    last = (done.stdout.strip().splitlines() or ["no output"])[-1]
    return last.partition(" in ")[0]


def _discussed(client: Client, task: dict[str, Any], say: Say) -> None:
    """What other agents said of the plan, and what became of it."""
    for found in client.get("/api/v1/hmmm/sessions", task_id=task["task_id"])["items"]:
        session = client.get(f"/api/v1/hmmm/sessions/{found['session_id']}")
        for item in session["items"]:
            if item["kind"] == "message" and item["intent"] in ("proposal", "objection", "agreement"):
                say(f"  {item['from']['agent_id']}, {item['intent']}: {_line(item['message'])}")
        say(f"  the discussion ended as {session['outcome']}: {session['reason']}")


def _line(text: str) -> str:
    return " ".join(text.split())


def _tell(task: dict[str, Any], say: Say) -> None:
    """The result in plain words."""
    result = task["result"]
    if result is None:
        say(f"it ended as {task['state']} without a result: {task['reason']}")
        return
    report = result["goal"]
    say(
        f"{task['agent_id']} ended it by {result['ended_by']} after {report['steps']} steps with "
        f"{report['provider']}/{report['model']}: {report['tokens_in']} tokens in, {report['tokens_out']} out"
    )
    for check in report["checks"]:
        say(f"  check, in a fresh sandbox: {check['command']}: exit code {check['exit_code']}")
    if patch := report["patch"]:
        say(f"  patch: {patch['files']} file, {patch['size']} bytes, SHA-256 {patch['sha256']}")


def _recorded(task: dict[str, Any], endpoints: list[Endpoint], say: Say) -> bool:
    """Reads the records of discussion and result from an agent that ran neither, and checks them."""
    reader = next(endpoint for endpoint in endpoints if endpoint.agent_id != task["agent_id"])
    kinds = []
    with Client(Target((reader,))) as client:
        for item in client.get("/api/v1/decisions", task_id=task["task_id"])["items"]:
            encoded = client.get_bytes(f"/api/v1/decisions/{item['hash']}").content
            record = verify(encoded, expected_hash=item["hash"])
            kinds.append(str(record.record["kind"]))
            say(f"record, read from {reader.agent_id}: {_line(record.record['summary'])}")
            say(f"  signature of {record.author} is genuine; SHA-256 {record.hash}")
    return "task_result" in kinds and "hmmm_outcome" in kinds
