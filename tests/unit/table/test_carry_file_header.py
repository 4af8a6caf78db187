"""Whether an agent is still bringing along the mesh that it recovers, as its processes read it."""

from __future__ import annotations

from pathlib import Path

import pytest

from chorus.table.carried import Header, header_of


def recovering(carried: Path) -> bool:
    header = header_of(carried)
    return header is not None and header.recovers


def test_a_carry_file_of_a_recovered_mesh_says_so(tmp_path: Path) -> None:
    carried = tmp_path / "carried.jsonl"
    assert not recovering(carried)
    carried.write_bytes(Header("m1", True).encode() + b"more")
    assert recovering(carried)
    carried.write_bytes(Header("m1", False).encode())
    assert not recovering(carried)


@pytest.mark.parametrize("content", [b"", b"\0", b"[]\n", b'{"recovers": "yes"}\n'])
def test_anything_else_does_not(tmp_path: Path, content: bytes) -> None:
    carried = tmp_path / "carried.jsonl"
    carried.write_bytes(content)
    assert not recovering(carried)
