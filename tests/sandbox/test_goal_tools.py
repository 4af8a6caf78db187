"""The tools of a goal, as a model uses and misuses them."""

from __future__ import annotations

import os
import tarfile
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from chorus.executor.backend import Limits, Sandbox
from chorus.executor.goal.tools import Outcome, Tools
from chorus.executor.redaction import Sentinel
from chorus.testing.sandbox_contract import SMALL, Collected, tar_of

pytestmark = pytest.mark.docker

SECRET = "hunter2-hunter2"
FILES = {
    "a.txt": b"one\ntwo\nthree\n",
    "no end": b"x\ny",
    "deep/er/b.py": b"def f():\n    return 'two'\n",
    "binary": b"\0\1two",
    "latin": b"caf\xe9\n",
    "secret.env": f"TOKEN={SECRET}\nPORT=80\n".encode(),
    "empty": b"",
}


class Kit:
    """Tools in one sandbox."""

    def __init__(self, sandbox: Sandbox, scratch: Path) -> None:
        self.sandbox = sandbox
        self.scratch = scratch
        self.sink = Collected()
        redactor = Sentinel([SECRET.encode()])
        self.tools = Tools(sandbox, "/workspace", scratch, redactor, lambda: 60.0, self.sink)

    async def __call__(self, tool: str, **arguments: Any) -> Outcome:
        return await self.tools.call(tool, arguments)

    async def refused(self, tool: str, **arguments: Any) -> str:
        outcome = await self(tool, **arguments)
        assert not outcome.ok, outcome
        return outcome.text

    async def said(self, tool: str, **arguments: Any) -> str:
        outcome = await self(tool, **arguments)
        assert outcome.ok, outcome
        return outcome.text


@pytest_asyncio.fixture
async def kit(acquire: Callable[[Limits], Awaitable[Sandbox]], tmp_path: Path) -> AsyncIterator[Kit]:
    sandbox = await acquire(SMALL)
    await sandbox.begin({}, {"TOKEN": SECRET}, Collected())
    await sandbox.put(tar_of(tmp_path, FILES))
    yield Kit(sandbox, tmp_path / "scratch")


async def test_reading(kit: Kit) -> None:
    assert await kit.said("read", path="a.txt") == "1\tone\n2\ttwo\n3\tthree"
    assert await kit.said("read", path="./deep/../a.txt", first=2, last=2) == "2\ttwo"
    assert await kit.said("read", path="no end") == "1\tx\n2\ty"
    assert await kit.said("read", path="/workspace/no end", first=2) == "2\ty"
    assert await kit.said("read", path="empty") == "[the file has 0 lines]"
    assert await kit.said("read", path="latin") == "1\tcaf\ufffd"
    assert "TOKEN=[REDACTED:task-secret]" in await kit.said("read", path="secret.env")
    assert await kit.refused("read", path="missing") == "no such file"
    assert await kit.refused("read", path="deep") == "a folder, no file, use list"
    await kit.said("write", path="a; use list", text="x")
    assert await kit.said("read", path="a; use list") == "1\tx"
    assert "binary file of 5 bytes" in await kit.refused("read", path="binary")
    assert await kit.refused("read", path="a.txt", first=9) == "/workspace/a.txt has 3 lines"
    assert "last is before first" in await kit.refused("read", path="a.txt", first=3, last=2)
    for arguments in ({}, {"path": 7}, {"path": ""}, {"path": "a\0b"}, {"path": "a.txt", "first": "1"}):
        assert "needed" in (text := await kit.refused("read", **arguments)) or "zero byte" in text


async def test_a_fifo_holds_nobody_up(kit: Kit) -> None:
    await kit.said("run", command="mkfifo pipe")
    assert await kit.refused("read", path="pipe") == "no such file"
    assert "no such file" in await kit.refused("edit", path="pipe", old="a", new="b")


async def test_writing_and_editing(kit: Kit) -> None:
    assert await kit.said("write", path="new/dir/f.sh", text="#!/bin/sh\necho 'it''s é'\n")
    await kit.said("run", command="chmod 755 new/dir/f.sh; ln -s f.sh new/dir/link")
    assert await kit.said("edit", path="new/dir/link", old="it''s é", new="\\1 & $HOME `id`")
    assert await kit.said("run", command="cat new/dir/f.sh; stat -c %a new/dir/f.sh") == (
        "#!/bin/sh\necho '\\1 & $HOME `id`'\n755\n"
    )
    assert "is a folder" in await kit.refused("write", path="deep", text="x")
    assert (
        "Permission denied" in (text := await kit.refused("write", path="/etc/x", text="x"))
        or "Read-only" in text
    )
    assert await kit.said("write", path="empty", text="") == "/workspace/empty was written: 0 lines"
    assert "2 matches, in lines 1, 2" in await kit.refused("edit", path="a.txt", old="o", new="0")
    assert "no match" in await kit.refused("edit", path="a.txt", old="four", new="0")
    assert "no UTF-8" in await kit.refused("edit", path="latin", old="caf", new="0")
    await kit.said("write", path="long", text="".join(f"line {n}\n" for n in range(100_000)))
    await kit.said("edit", path="long", old="line 77777\n", new="")
    assert (
        await kit.said("run", command="wc -l < long; ls -A /tmp/.chorus | grep -c text; true") == "99999\n0\n"
    )


async def test_what_is_written_is_there_byte_for_byte(kit: Kit) -> None:
    for size in (24 * 1024 - 2, 24 * 1024 - 1, 40_000):
        text = ("'é\\n%s" * size)[: size - 1] + "\r"
        await kit.said("write", path="-n", text=text)
        await kit.sandbox.get(["-n"], kit.scratch / "got.tar", bytes_max=1 << 20)
        with tarfile.open(kit.scratch / "got.tar") as archive:
            got = archive.extractfile("./-n")
            assert got is not None
            assert got.read() == text.encode()


async def test_a_redaction_mark_is_not_written_back(kit: Kit) -> None:
    mark = "[REDACTED:task-secret]"
    for tool, arguments in (
        ("write", {"path": "secret.env", "text": f"TOKEN={mark}\n"}),
        ("edit", {"path": "secret.env", "old": "PORT=80", "new": f"PORT=80\nTOKEN={mark}"}),
        ("edit", {"path": "secret.env", "old": f"TOKEN={mark}", "new": "x"}),
        ("run", {"command": f"echo 'TOKEN={mark}' > secret.env"}),
    ):
        assert mark in await kit.refused(tool, **arguments)
    await kit.said("edit", path="secret.env", old="PORT=80", new="PORT=81")
    assert await kit.said("run", command='grep -c "$TOKEN" secret.env') == "1\n"


async def test_running(kit: Kit) -> None:
    outcome = await kit("run", command="echo out; echo err >&2; exit 3", workdir="deep")
    assert (outcome.ok, outcome.exit_code, outcome.text) == (False, 3, "out\nerr\n")
    assert await kit.said("run", command="pwd", workdir="deep/er") == "/workspace/deep/er\n"
    assert await kit.said("run", command='echo "$TOKEN"') == "[REDACTED:task-secret]\n"
    late = await kit("run", command="echo on; sleep 1000", timeout_s=0.5)
    assert (late.timed_out, late.exit_code) == (True, 137)
    assert late.text.startswith("on\n[killed after 0.5 s")
    assert b"on\n" in kit.sink.take()
    for wrong in ("0", -1, True, float("nan")):
        assert "timeout_s" in await kit.refused("run", command="true", timeout_s=wrong)
    assert "no such directory" in await kit.refused("run", command="true", workdir="missing")


async def test_the_files_that_commands_changed(kit: Kit) -> None:
    now, paths = await kit.tools.changed_since(None)
    assert paths == []
    # A name that a shell would read, an old time of the content, a move, a mode; not what git writes.
    await kit.said(
        "run",
        command="mkdir .git; echo x >.git/x; echo x >'a; b'; echo x >old; touch -d 2001-01-01 old; "
        "mv a.txt moved; chmod +x deep/er/b.py",
    )
    later, paths = await kit.tools.changed_since(now)
    assert later > now
    assert sorted(paths) == ["a; b", "deep/er/b.py", "moved", "old"]
    await kit.said("run", command="sleep 0.05")
    last, _ = await kit.tools.changed_since(later)
    assert (await kit.tools.changed_since(last))[1] == []


async def test_a_long_output_is_whole_in_the_file_that_is_named(kit: Kit) -> None:
    text = await kit.said("run", command="seq 100000")
    assert len(text) < 20_300
    assert text.startswith("1\n2\n")
    assert text.endswith("\n99999\n100000\n")
    file = text.partition("the whole is in ")[2].split(" ")[0]
    assert await kit.said("run", command=f"sed -n 50000p {file}") == "50000\n"


async def test_listing_and_searching(kit: Kit) -> None:
    listed = (await kit.said("list")).splitlines()
    assert {"deep/", "deep/er/", "a.txt (14 bytes)"} <= set(listed)
    assert "deep/er/b.py (26 bytes)" not in listed
    assert await kit.said("list", path="deep/er") == "b.py (26 bytes)"
    assert "no such folder" in await kit.refused("list", path="missing")
    found = (await kit.said("search", pattern="two")).splitlines()
    assert sorted(found) == ["a.txt:2:two", "deep/er/b.py:2:    return 'two'"]
    assert await kit.said("search", pattern="t[wx]o", path="a.txt", regex=True) == "a.txt:2:two"
    assert await kit.said("search", pattern="t[wx]o") == "[no match]"
    assert await kit.said("search", pattern="-e") == "[no match]"
    assert "no regular expression" in await kit.refused("search", pattern="(", regex=True)
    assert "no such file or folder" in await kit.refused("search", pattern="x", path="missing")
    assert "more than one line" in await kit.refused("search", pattern="a\nb")


async def test_long_lines_and_many_matches_are_cut(kit: Kit) -> None:
    await kit.said(
        "run", command="head -c 300000 /dev/zero | tr '\\0' x > wide; yes match | head -n 50000 > many"
    )
    wide = await kit.said("search", pattern="xx", path="wide")
    assert len(wide) < 700
    many = await kit.said("search", pattern="match", path="many")
    assert len(many) <= 20_000
    assert "search for less" in many
    assert len(await kit.said("read", path="wide")) < 3_000
    assert "read on with first=" in await kit.said("read", path="many")


async def test_names_that_a_shell_would_read(kit: Kit) -> None:
    for name in ("a b", "$(id)", "'; rm -rf . #", "-n", "new\nline", os.fsdecode(b"\xff")):
        await kit.said("write", path=name, text="x\n")
        assert await kit.said("read", path=name) == "1\tx"
        await kit.said("edit", path=name, old="x", new="y")
    assert await kit.said("run", command="cat a.txt") == "one\ntwo\nthree\n"


async def test_there_is_no_other_tool(kit: Kit) -> None:
    assert "there is no tool" in await kit.refused("delete", path="a.txt")
