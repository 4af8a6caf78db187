"""News of the files that a goal touches: each is said once, and also after a failure."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from chorus.executor.goal import progress
from chorus.executor.goal.progress import Progress


class Heard:
    """Stands in for the mesh: fails as often as the test says."""

    def __init__(self, failures: int = 0) -> None:
        self.said: list[list[str]] = []
        self.failures = failures
        self.saying: list[asyncio.Task[None]] = []
        self.progress = Progress(self.announce, lambda work: self.saying.append(asyncio.ensure_future(work)))

    async def announce(self, paths: list[str]) -> None:
        if self.failures:
            self.failures -= 1
            raise OSError("the hub is away")
        self.said.append(paths)

    async def settle(self) -> None:
        for saying in self.saying:
            with contextlib.suppress(OSError):
                await saying


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_TOGETHER_S", 0.0)
    monkeypatch.setattr(progress, "PATHS_MAX", 2)


async def test_paths_are_said_once_and_together() -> None:
    heard = Heard()
    for path in ("a", "b", "a", "c"):
        heard.progress.touched(path)
    await heard.settle()
    assert heard.said == [["a", "b"], ["c"]]
    heard.progress.touched("d")
    await heard.settle()
    assert heard.said[2:] == [["d"]]


async def test_what_could_not_be_said_is_said_with_the_next_path() -> None:
    heard = Heard(failures=1)
    for path in ("a", "b", "c", "d"):
        heard.progress.touched(path)
    await heard.settle()
    assert heard.said == []
    heard.progress.touched("e")
    await heard.settle()
    assert heard.said == [["a", "b"], ["c", "d"], ["e"]]
