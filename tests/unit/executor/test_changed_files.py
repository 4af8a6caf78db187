"""What commands change is named while a goal runs: in turn with its calls, and never too often."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from chorus.executor.backend import SandboxGone
from chorus.executor.goal import changed_files
from chorus.executor.goal.changed_files import ChangedFiles
from chorus.executor.goal.tools import Wrong
from chorus.executor.goal.trees import of_the_work
from chorus.executor.patch import File, Tree

SENT: Tree = {
    "a.py": File.of("100644", b"a"),
    "Cargo.toml": File.of("100644", b""),
    "build/kept.sh": File.of("100644", b""),
    "package.json": File.of("100644", b"{}"),
    ".gitignore": File.of("100644", b"*.log\n"),
}


class LookedThrough:
    """Stands in for the tools: `looks` has what each look asked, and it ends when the test answers it."""

    def __init__(self) -> None:
        self.looks: asyncio.Queue[float | None] = asyncio.Queue()
        self.answers: asyncio.Queue[tuple[float, list[str]] | Exception] = asyncio.Queue()

    async def changed_since(self, moment: float | None) -> tuple[float, list[str]]:
        self.looks.put_nowait(moment)
        answer = await self.answers.get()
        if isinstance(answer, Exception):
            raise answer
        return answer


class Bench:
    def __init__(self) -> None:
        self.tools, self.turn = LookedThrough(), asyncio.Lock()
        self.named: asyncio.Queue[str] = asyncio.Queue()
        tools: Any = self.tools
        self.changed = ChangedFiles(tools, self.turn, SENT, self.named.put_nowait)

    async def look(self, asked: float | None, answer: tuple[float, list[str]] | Exception) -> None:
        """The next look begins, was asked for what changed since then, and is answered."""
        assert await self.tools.looks.get() == asked
        self.tools.answers.put_nowait(answer)

    async def end(self) -> None:
        self.changed.close()
        await self.changed.settle()
        assert self.tools.looks.empty()


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changed_files, "EVERY_S", 0.0)
    monkeypatch.setattr(changed_files, "_TIMES", 0)


async def test_what_commands_change_is_named_and_what_was_there_before_is_not() -> None:
    bench = Bench()
    bench.changed.begin()
    await bench.look(None, (5.0, ["a.py"]))
    bench.changed.ran()
    await bench.look(5.0, (7.0, ["new.py", "b.py"]))
    bench.changed.ran()
    await bench.look(7.0, (9.0, ["c.py"]))
    assert [await bench.named.get() for _ in range(3)] == ["new.py", "b.py", "c.py"]
    # No command, no look.
    await bench.end()


async def test_a_look_that_fails_is_made_good_by_the_next() -> None:
    bench = Bench()
    bench.changed.begin()
    await bench.look(None, (5.0, []))
    for failure in (Wrong("it took more than 5 s"), SandboxGone("dead"), ValueError("no number")):
        bench.changed.ran()
        await bench.look(5.0, failure)
    bench.changed.ran()
    await bench.look(5.0, (8.0, ["a.py"]))
    assert await bench.named.get() == "a.py"
    await bench.end()


async def test_a_look_waits_for_a_call_and_is_not_broken_off() -> None:
    bench = Bench()
    async with bench.turn:
        bench.changed.begin()
        for _ in range(5):
            await asyncio.sleep(0)
        assert bench.tools.looks.empty()
    assert await bench.tools.looks.get() is None
    assert bench.turn.locked()
    bench.changed.close()
    bench.tools.answers.put_nowait((5.0, []))
    await bench.end()
    assert not bench.turn.locked()


def test_build_folders_and_ignored_files_are_not_named() -> None:
    changed = ["a.py", "new.py", "target/x.o", "x.log", "node_modules/m.js", "build/new.sh", ".git/x"]
    assert of_the_work(changed, SENT) == ["a.py", "new.py", "build/new.sh"]
