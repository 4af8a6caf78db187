"""Tables fit where they are shown: what is long is shortened, visibly, and the rest stays whole."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chorus.ctl.show import WIDTH_COLUMNS, print_table

COLUMNS: Any = (
    ("task", lambda row: row[0]),
    ("title", lambda row: row[1]),
    ("reason", lambda row: row[2]),
)
TASK = "01J00000000000000000000001"


def table(capsys: pytest.CaptureFixture[str], rows: list[tuple[str, str, str]]) -> list[str]:
    print_table(rows, COLUMNS, ("title", "reason"))  # type: ignore[arg-type]
    return capsys.readouterr().out.splitlines()


def test_long_reasons_are_shortened(capsys: pytest.CaptureFixture[str]) -> None:
    lines = table(capsys, [(TASK, "short", "r" * 2000), (TASK, "t" * 200, "short")])
    assert all(len(line) <= WIDTH_COLUMNS for line in lines)
    assert lines[1].endswith("r…")
    assert "t…  short" in lines[2]
    assert all(line.startswith(TASK) for line in lines[1:])


def test_what_fits_is_left_alone(capsys: pytest.CaptureFixture[str]) -> None:
    assert table(capsys, [(TASK, "a title", "a reason")])[1] == f"{TASK}  a title  a reason"
    assert table(capsys, []) == ["task  title  reason"]


@given(st.lists(st.tuples(*[st.text("ab", max_size=300)] * 3), max_size=5))
def test_only_what_may_be_is_shortened(rows: list[tuple[str, str, str]]) -> None:
    read, write = os.pipe()
    with os.fdopen(read) as told, os.fdopen(write, "w") as out, pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdout", out)
        print_table(rows, COLUMNS, ("title", "reason"))  # type: ignore[arg-type]
        out.flush()
        out.close()
        lines = told.read().splitlines()
    assert len(lines) == len(rows) + 1
    for line, row in zip(lines[1:], rows, strict=True):
        assert line.startswith(row[0])


@pytest.mark.parametrize(("columns", "width"), [(0, 160), (1, 1), (40, 40), (200, 200)])
def test_a_terminal_of_any_width(columns: int, width: int) -> None:
    # A terminal that does not know its size says 0.
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 0, columns, 0, 0))
    code = (
        "from chorus.ctl.show import print_table\n"
        "print_table([{'t': 'x' * 26, 'r': 'y' * 500}], "
        "(('task', lambda row: row['t']), ('reason', lambda row: row['r'])), ('reason',))"
    )
    environ = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    subprocess.run([sys.executable, "-c", code], stdout=theirs, env=environ, check=True)
    os.close(theirs)
    said = os.read(ours, 10_000).decode().splitlines()
    os.close(ours)
    assert max(map(len, said)) == width
    assert said[1].startswith("x"[:width])
