"""The table of what a WHOOSH server may do, against a real one in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

from chorus.dev.whoosh import MODES
from chorus.whoosh import Load, fetching, load

# Generous: other work shares the machine.
TIMEOUT_S: Final = 60.0
# What a client waits for a server that is silent.
PATIENCE_S: Final = 0.5

# How the server behaves; where the document comes from when a good one was loaded before; what is said.
FAULTS: Final = [
    ("well", "server", ""),
    ("slow", "server", ""),
    ("failing", "copy", "500"),
    ("wrong", "copy", "role"),
    ("silent", "copy", "timed out"),
    ("garbled", "copy", "JSON"),
    ("huge", "copy", "larger than"),
    ("looping", "copy", "redirects"),
    ("elsewhere", "copy", "scheme"),
    ("killed", "copy", "refused"),
]


class WhooshProcess:
    """`chorusctl dev whoosh` on a folder: ruled, killed, and started again at the same address."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._port = folder, 0
        self.start()

    def start(self) -> None:
        words = ["dev", "whoosh", str(self._folder), "--json", "--port", str(self._port)]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "chorus.ctl", *words], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL
        )
        assert self._process.stdout is not None
        self.url = str(json.loads(self._process.stdout.readline())["url"])
        self._port = int(self.url.rpartition(":")[2])

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()

    def be(self, mode: str) -> None:
        said = {"be": mode, "delay_s": 0.05}
        answer = httpx.post(f"{self.url}/admin", json=said, trust_env=False, timeout=TIMEOUT_S)
        answer.raise_for_status()

    def say(self, **fields: Any) -> None:
        (self._folder / "default.json").write_text(json.dumps(fields))


@pytest.fixture
def server(tmp_path: Path) -> Iterator[WhooshProcess]:
    folder = tmp_path / "assignments"
    folder.mkdir()
    made = WhooshProcess(folder)
    yield made
    made.kill()


def loaded(server: WhooshProcess, copy: Path) -> Load:
    done = load(f"{server.url}/assignments/agent.1.json", "", copy, lambda document: [])
    if done.copy is not None:
        done.copy.save(copy)
    return done


def test_the_table_has_every_way_of_the_server() -> None:
    assert {how for how, _, _ in FAULTS} == {*MODES, "killed"}


@pytest.mark.parametrize(("how", "source", "word"), FAULTS)
def test_the_table_of_faults(
    server: WhooshProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str, source: str, word: str
) -> None:
    copy = tmp_path / "copy"
    server.say(role="developer")
    assert loaded(server, copy).source == "server"
    server.say(role="reviewer")
    if how == "silent":
        monkeypatch.setattr(fetching, "FETCH_TIMEOUT_S", PATIENCE_S)
    if how == "killed":
        server.kill()
    else:
        server.be(how)
    done = loaded(server, copy)
    monkeypatch.undo()
    assert done.document is not None
    role = "reviewer" if source == "server" else "developer"
    assert (done.source, done.document.fields) == (source, {"role": role})
    told = "\n".join((done.error, *done.refused))
    assert word.casefold() in told.casefold()
    assert (told == "") == (source == "server")
    # Whatever it did, or after it was started again: what it says counts as soon as it is well.
    if how == "killed":
        server.start()
    server.be("well")
    after = loaded(server, copy)
    assert after.document is not None
    assert (after.source, after.document.fields, after.error) == ("server", {"role": "reviewer"}, "")
