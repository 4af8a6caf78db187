"""How many of five small goals a real model reaches in ten minutes each, here and with mini-swe-agent.

By hand, after `scripts/model.sh`: `bench/run --only model`. It takes up to two hours, and measures no speed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import yaml

from bench.goals import mini
from bench.mesh import CONTEXT, mesh

ROOT: Final = Path(__file__).resolve().parent.parent
GOALS: Final = ROOT / "tests" / "goals"
GOAL_S: Final = 600
# A reply of a model of this size takes minutes on two cores.
CALL_S: Final = 300
IMAGE: Final = "anthonyrawlins/chorus-python-dev:latest"


def real_model() -> str:
    """Runs the goals with both; a table of what came of each."""
    python = mini()
    lines = [("goal", "chorus", "mini-swe-agent")]
    solved = [0, 0]
    with _served() as (url, name), tempfile.TemporaryDirectory(prefix="chorus-bench-") as folder:
        environ = {
            **os.environ,
            "XDG_STATE_HOME": folder,
            "CHORUS_AI_PROVIDER": "ollama",
            "CHORUS_AI_TIMEOUT": f"{CALL_S}s",
            "OLLAMA_ENDPOINT": url,
            "OLLAMA_MODEL": name,
        }
        with mesh(environ, count=1):
            for goal, said in _small():
                ours = _ours(goal, said, Path(folder) / f"ours-{goal}", environ)
                peers = _peers(goal, said, Path(folder) / f"peer-{goal}", [str(python), url, name])
                solved[0] += ours[0]
                solved[1] += peers[0]
                lines.append((goal, _told(*ours), _told(*peers)))
                print(*lines[-1], sep="  ", file=sys.stderr, flush=True)
    lines.append(("reached", f"{solved[0]} of {len(lines) - 1}", f"{solved[1]} of {len(lines) - 1}"))
    widths = [max(len(line[column]) for line in lines) for column in range(3)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def _small() -> Iterator[tuple[str, dict[str, Any]]]:
    for file in sorted(GOALS.glob("*/goal.yaml")):
        said = yaml.safe_load(file.read_text(encoding="utf-8"))
        if said.get("small"):
            yield file.parent.name, said


def _told(solved: bool, seconds: float) -> str:
    return f"{'reached' if solved else 'not reached'} ({seconds:.0f} s)"


def _ours(goal: str, said: dict[str, Any], folder: Path, environ: dict[str, str]) -> tuple[bool, float]:
    """Asks the agent, which runs the checks itself."""
    shutil.copytree(GOALS / goal / "files", folder)
    command = [sys.executable, "-m", "chorus.ctl", "ask", said["goal"], "--context", CONTEXT]
    command += ["--dir", str(folder), "--language", said["language"], "--timeout", str(GOAL_S), "--apply"]
    for option, field in (("--check", "checks"), ("--protect", "protected")):
        for value in said.get(field, ()):
            command += [option, value]
    started = time.monotonic()
    subprocess.run(command, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
    return _passes(goal, said, folder), time.monotonic() - started


def _peers(goal: str, said: dict[str, Any], folder: Path, words: list[str]) -> tuple[bool, float]:
    """Asks mini-swe-agent, tells it the checks, and runs them on what it leaves."""
    shutil.copytree(GOALS / goal / "files", folder)
    python, url, name = words
    task = f"{said['goal']}\nThese commands have to pass: {'; '.join(said['checks'])}"
    script = str(ROOT / "bench" / "peers" / "mini.py")
    command = [python, script, url, name, IMAGE, str(GOAL_S), str(folder), task]
    started = time.monotonic()
    subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=2 * GOAL_S)
    return _passes(goal, said, folder), time.monotonic() - started


def _passes(goal: str, said: dict[str, Any], folder: Path) -> bool:
    """Whether the checks pass with the protected files as they were."""
    for pattern in said.get("protected", ()):
        for file in (GOALS / goal / "files").glob(pattern):
            shutil.copy(file, folder / file.name)
    commands = said["checks"]
    return all(
        subprocess.run(["sh", "-c", c], cwd=folder, capture_output=True).returncode == 0 for c in commands
    )


@contextmanager
def _served() -> Iterator[tuple[str, str]]:
    """The real model's address and name while the block runs."""
    command = [str(ROOT / "scripts" / "model.sh"), "serve", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as serving:
        assert serving.stdout is not None
        try:
            words = dict(word.split("=", 1) for word in serving.stdout.readline().split())
            yield words["OLLAMA_ENDPOINT"], words["OLLAMA_MODEL"]
        finally:
            serving.terminate()
