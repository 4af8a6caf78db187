"""Artifacts as chorusctl saves them: each that can be, under its name and with its mode; the others named."""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from chorus.ctl import client as client_module
from chorus.ctl.cli import main

TASK = "01J00000000000000000000001"
BASE = f"/api/v1/tasks/{TASK}"
LONG = "n" * 255
FILES = {
    "a.txt": b"a" * 100_000,
    f"out/{LONG}": b"long",
    "out/run.sh": b"#!/bin/sh",
    "two\nlines é%2F": b"odd",
}


def item(path: str, content: bytes) -> dict[str, Any]:
    mode = "0750" if path.endswith(".sh") else "0644"
    sha256 = hashlib.sha256(content).hexdigest()
    return {"path": path, "size": len(content), "sha256": sha256, "mode": mode}


def tar_of(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for path, content in files.items():
            member = tarfile.TarInfo(path)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return out.getvalue()


class Agent:
    """Answers as the API does."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files = files
        self.items = [item(path, content) for path, content in files.items()]
        self.left_out: list[dict[str, str]] = []
        self.tar = tar_of(files)
        self.asked: list[str] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path
        self.asked.append(path)
        if request.method == "POST":
            return httpx.Response(201, content=orjson.dumps({"task_id": TASK}))
        if path.endswith("/events"):
            end = {"state": "completed", "exit_code": 0, "ended_by": "exit"}
            event = b"id: 1-1\nevent: end\ndata: " + orjson.dumps(end) + b"\n\n"
            return httpx.Response(200, stream=httpx.ByteStream(event))
        if path.endswith("/artifacts"):
            page = {"items": self.items, "left_out": self.left_out, "next": None}
            return httpx.Response(200, content=orjson.dumps(page))
        if path.endswith("/artifacts.tar"):
            return httpx.Response(200, stream=httpx.ByteStream(self.tar))
        if "/artifacts/" in path:
            return httpx.Response(200, stream=httpx.ByteStream(self.files[path.partition("/artifacts/")[2]]))
        result = {"artifacts": self.items, "left_out": self.left_out}
        task_id = path.rsplit("/", 1)[1]
        return httpx.Response(200, content=orjson.dumps({"task_id": task_id, "result": result}))


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[Agent], Agent]:
    """Makes chorusctl ask this agent."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CHORUS_API_URL", "http://agent")
    monkeypatch.setenv("CHORUS_API_TOKEN", "t")
    real = httpx.Client

    def used(agent: Agent) -> Agent:
        transport = httpx.MockTransport(agent)
        monkeypatch.setattr(client_module.httpx, "Client", lambda **_: real(transport=transport))
        return agent

    return used


def saved(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_all_are_saved_with_their_names_and_modes(use: Callable[[Agent], Agent], tmp_path: Path) -> None:
    agent = use(Agent(FILES))
    assert main(["artifacts", TASK, "-o", "into"]) == 0
    assert saved(tmp_path / "into") == FILES
    assert (tmp_path / "into/out/run.sh").stat().st_mode & 0o777 == 0o750
    # In one request, however many there are.
    assert agent.asked == [f"{BASE}/artifacts", f"{BASE}/artifacts.tar"]


def test_one_is_saved_alone(use: Callable[[Agent], Agent], tmp_path: Path) -> None:
    use(Agent(FILES))
    for path in FILES:
        assert main(["artifacts", TASK, path, "-o", "into"]) == 0
    assert saved(tmp_path / "into") == FILES


def test_one_that_cannot_be_saved_keeps_no_other(
    use: Callable[[Agent], Agent], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    agent = use(Agent({"a": b"1", "b/c": b"2", "bad": b"3", "../up": b"4", "x" * 300: b"5", "z": b"6"}))
    agent.items[2]["sha256"] = "0" * 64
    (tmp_path / "into").mkdir()
    (tmp_path / "into/b").write_bytes(b"a file where a folder would have to be")
    assert main(["artifacts", TASK, "-o", "into"]) == 1
    assert {"a": b"1", "z": b"6"}.items() <= saved(tmp_path / "into").items()
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a", "b", "into", "z"]
    said = capsys.readouterr().err
    for path in ("b/c", "bad", "../up", "x" * 300):
        assert f"artifact {path} cannot be saved" in said
    assert "saved 2 of 6 artifacts" in said


@pytest.mark.parametrize("cut", [100, 512, 5_000, 100_900])
def test_an_answer_that_breaks_off_is_a_failure(
    use: Callable[[Agent], Agent], capsys: pytest.CaptureFixture[str], cut: int
) -> None:
    agent = use(Agent(FILES))
    agent.tar = agent.tar[:cut]
    assert main(["artifacts", TASK, "-o", "into"]) != 0
    assert "Traceback" not in capsys.readouterr().err


def test_a_dash_prints_a_tar_or_the_one(
    use: Callable[[Agent], Agent], capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    agent = use(Agent(FILES))
    assert main(["artifacts", TASK, "-o", "-"]) == 0
    assert capfdbinary.readouterr().out == agent.tar
    assert main(["artifacts", TASK, "a.txt", "-o", "-"]) == 0
    assert capfdbinary.readouterr().out == FILES["a.txt"]


def test_a_run_says_what_was_left_out_and_saves_the_rest(
    use: Callable[[Agent], Agent], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    agent = use(Agent(FILES))
    agent.left_out = [
        {"path": "*.xml", "reason": "no file fits this pattern"},
        {"path": "", "reason": "9 more"},
    ]
    assert main(["run", "--artifact", "*.xml", "-o", "into", "--", "true"]) == 0
    said = capsys.readouterr().err
    assert "chorusctl: not kept: *.xml: no file fits this pattern\nchorusctl: not kept: 9 more\n" in said
    assert saved(tmp_path / "into") == FILES
    assert main(["run", "--json", "--artifact", "*.xml", "--", "true"]) == 0
    told = [orjson.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert told[-1] == {
        "id": None, "event": "artifacts", "data": {"artifacts": agent.items, "left_out": agent.left_out}
    }  # fmt: skip


def test_a_run_without_artifacts_has_nothing_to_save(
    use: Callable[[Agent], Agent], capsys: pytest.CaptureFixture[str]
) -> None:
    agent = use(Agent({}))
    assert main(["run", "-o", "into", "--", "true"]) == 2
    assert "--artifact" in capsys.readouterr().err
    assert agent.asked == []


def test_rm_goes_on_after_a_task_that_it_cannot_remove(
    use: Callable[[Agent], Agent], capsys: pytest.CaptureFixture[str]
) -> None:
    class Refusing(Agent):
        def __call__(self, request: httpx.Request) -> httpx.Response:
            assert request.method == "DELETE"
            self.asked.append(request.url.path)
            if request.url.path.endswith("1"):
                return httpx.Response(409, content=orjson.dumps({"detail": "task is running; cancel it"}))
            return httpx.Response(200, content=orjson.dumps({"task_id": TASK}))

    agent = use(Refusing({}))
    other = TASK[:-1] + "2"
    assert main(["rm", TASK, other]) == 1
    assert agent.asked == [f"/api/v1/tasks/{TASK}", f"/api/v1/tasks/{other}"]
    said = capsys.readouterr()
    assert "task is running; cancel it" in said.err
    assert said.out == f"{other}: removed\n"
    assert main(["rm", other]) == 0
