"""Bench of the loop: a step beyond the model's own time, beside mini-swe-agent with the same script."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Final

from bench.figures import Comparison, figures
from bench.mesh import mesh
from chorus.ctl.client import Client
from chorus.ctl.contexts import Endpoint, Target
from chorus.ctl.follow import follow
from chorus.dev import Call, Conversation, ModelServer, Reply
from chorus.wire.ids import new_id

HERE: Final = Path(__file__).resolve().parent
MINI: Final = "mini-swe-agent==2.4.6"
INSTALL_TIMEOUT_S: Final = 1800
RUN_TIMEOUT_S: Final = 600
IMAGE: Final = "anthonyrawlins/chorus-base:latest"
# Ours and the peer's take turns, so that other work on the machine meets both.
ROUNDS: Final = 3
# Of each three steps two are short commands and one changes a file.
STEPS: Final = 30
GOAL: Final = "Thirty steps for a measurement"
_DONE: Final = "echo COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT"


class Script:
    """The same thirty steps in the words of either loop, and when each was asked for."""

    def __init__(self) -> None:
        self.asked_ns: list[int] = []

    def __call__(self, asked: Conversation) -> Reply:
        if asked.question != "step":
            return Reply(text="I will take thirty steps.")
        self.asked_ns.append(time.perf_counter_ns())
        place = sum(bool(message.calls) for message in asked.said)
        return _bash(place) if "bash" in asked.tools else _tools(place)

    def taken(self) -> list[float]:
        """Microseconds from each request for a step to the next one, and forgets them.

        The scripted model's own time, about a millisecond, is in them for both loops.
        """
        moments, self.asked_ns = self.asked_ns, []
        if len(moments) != STEPS + 1:
            raise RuntimeError(f"a run of the bench asked for {len(moments)} steps, not for {STEPS + 1}")
        return [(after - before) / 1000 for before, after in pairwise(moments)]


def _change(place: int) -> tuple[str, str]:
    return f"line {place // 3} is old", f"line {place // 3} is new"


def _command(place: int) -> str:
    # The text that is changed later has to be there.
    lines = "\\n".join(_change(3 * number)[0] for number in range(STEPS // 3))
    return f"printf '{lines}\\n' > notes.txt; ls" if place == 0 else f"echo step {place}; wc -l notes.txt"


def _tools(place: int) -> Reply:
    if place == STEPS:
        return Reply(calls=(Call(tool="finish", arguments={"summary": "Thirty steps."}),))
    if place % 3 != 2:
        return Reply(calls=(Call(tool="run", arguments={"command": _command(place)}),))
    old, new = _change(place)
    return Reply(calls=(Call(tool="edit", arguments={"path": "notes.txt", "old": old, "new": new}),))


def _bash(place: int) -> Reply:
    old, new = _change(place)
    command = f"sed -i 's/{old}/{new}/' notes.txt" if place % 3 == 2 else _command(place)
    return Reply(calls=(Call(tool="bash", arguments={"command": _DONE if place == STEPS else command}),))


def goals() -> list[Comparison]:
    """Seconds of a step beyond the model's own, of both."""
    ours, peer = list[float](), list[float]()
    python = mini()
    script = Script()
    script_path = str(HERE / "peers" / "mini.py")
    with (
        tempfile.TemporaryDirectory(prefix="chorus-bench-") as folder,
        ModelServer(script) as model,
        mesh(
            {
                **os.environ,
                "XDG_STATE_HOME": folder,
                "CHORUS_AI_PROVIDER": "ollama",
                "CHORUS_AI_MAX_STEPS": str(STEPS + 1),
                "OLLAMA_ENDPOINT": model.url,
                "OLLAMA_MODEL": model.model,
            },
            count=1,
        ) as agents,
    ):
        token = Path(agents[0]["token_file"]).read_text().strip()
        with Client(Target((Endpoint(agents[0]["api"], token),))) as client:
            for _ in range(ROUNDS):
                _goal(client)
                ours += script.taken()
                command = [
                    str(python),
                    script_path,
                    model.url,
                    model.model,
                    IMAGE,
                    str(RUN_TIMEOUT_S),
                    "-",
                    GOAL,
                ]
                subprocess.run(command, check=True, timeout=RUN_TIMEOUT_S, stdout=subprocess.DEVNULL)
                peer += script.taken()
    what = f"step of a goal beyond the model's own time, {STEPS} steps"
    return [Comparison(what, figures("chorus, 1 agent", ours), figures(MINI.replace("==", " "), peer), 0.25)]


def _goal(client: Client) -> None:
    task_id = new_id()
    client.submit({"task_id": task_id, "title": GOAL}, None)
    last = list(follow(client, task_id))[-1]
    if last.data.get("state") != "completed":
        raise RuntimeError(f"a goal of the bench was not reached: {last}")


def mini() -> Path:
    """The Python of an environment of its own with mini-swe-agent, made at the first call."""
    cache = Path(os.environ.get("CHORUS_CACHE") or Path.home() / ".cache" / "chorus")
    folder = cache / "bench-mini"
    mark = folder / "chorus.json"
    python = folder / "bin" / "python"
    if not mark.exists() or json.loads(mark.read_text()) != MINI:
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", MINI]
        subprocess.run(install, check=True, timeout=INSTALL_TIMEOUT_S)
        mark.write_text(json.dumps(MINI))
    return python
