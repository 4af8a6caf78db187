"""Twenty small broken repositories, each with a goal, its checks, and a script that reaches the goal.

A folder holds `files`, the repository as it is sent, and `goal.yaml`.
"""

from __future__ import annotations

import io
import subprocess
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict

from chorus.dev import Call, Script

HERE = Path(__file__).resolve().parent
# Their sandbox images are not those that every checkout builds.
HEAVY_LANGUAGES = frozenset({"javascript", "go", "rust", "c"})
COMMAND_TIMEOUT_S = 300


class GoalFile(BaseModel):
    """What `goal.yaml` says."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    goal: str
    # Of the sandbox's image; empty: the base image.
    language: str = ""
    setup: tuple[str, ...] = ()
    checks: tuple[str, ...]
    protected: tuple[str, ...] = ()
    # Whether a small real model may reach it: one file, a prompt of less than 1,500 tokens.
    small: bool = False
    # How many times the script says that it is done too early.
    refused: int = 0
    script: Script


@dataclass(frozen=True)
class Repository:
    """One of them."""

    name: str
    said: GoalFile

    @property
    def files(self) -> Path:
        """The folder as it is sent."""
        return HERE / self.name / "files"

    @property
    def heavy(self) -> bool:
        """Whether its language's image is built for `make test-heavy` alone."""
        return self.said.language in HEAVY_LANGUAGES

    def archive(self, more: Mapping[str, bytes] | None = None) -> bytes:
        """The folder as a tar, with `more` files by name."""
        made = io.BytesIO()
        with tarfile.open(fileobj=made, mode="w") as tar:
            for path in sorted(self.files.rglob("*")):
                if "__pycache__" not in path.parts:
                    tar.add(path, str(path.relative_to(self.files)), recursive=False)
            for name, content in (more or {}).items():
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
        return made.getvalue()

    def task(self, task_id: str, **more: Any) -> dict[str, Any]:
        """The submission of its goal."""
        said = self.said
        task: dict[str, Any] = {
            "task_id": task_id,
            "title": self.name,
            "description": said.goal,
            "checks": list(said.checks),
        }
        for name, value in (
            ("language", said.language),
            ("setup", list(said.setup)),
            ("protected", list(said.protected)),
        ):
            if value:
                task[name] = value
        return task | more


REPOSITORIES = {
    path.parent.name: Repository(
        path.parent.name, GoalFile.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    )
    for path in sorted(HERE.glob("*/goal.yaml"))
}


def passes(repository: Repository, folder: Path) -> bool:
    """Whether setup and all checks pass in a folder on this machine."""
    return all(_runs(command, folder) for command in (*repository.said.setup, *repository.said.checks))


def play(repository: Repository, folder: Path) -> None:
    """Does what the script does to files. Raises ValueError for an edit whose text is not there just once."""
    for reply in repository.said.script.replies:
        for call in reply.calls:
            _do(call, folder)


def _do(call: Call, folder: Path) -> None:
    assert isinstance(call.arguments, dict)
    arguments = call.arguments
    if call.tool == "run":
        _runs(arguments["command"], folder)
    elif call.tool == "write":
        path = folder / arguments["path"]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(arguments["text"], encoding="utf-8")
    elif call.tool == "edit":
        path = folder / arguments["path"]
        text = path.read_text(encoding="utf-8")
        if text.count(arguments["old"]) != 1:
            raise ValueError(f"{path}: {arguments['old']!r} is there {text.count(arguments['old'])} times")
        path.write_text(text.replace(arguments["old"], arguments["new"]), encoding="utf-8")


def _runs(command: str, folder: Path) -> bool:
    shell = ["sh", "-c", command]
    return subprocess.run(shell, cwd=folder, capture_output=True, timeout=COMMAND_TIMEOUT_S).returncode == 0
