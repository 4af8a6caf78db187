"""Whether an agent is still bringing along the mesh that it recovers, as its processes read it."""

from __future__ import annotations

from pathlib import Path

import pytest

from chorus.config.model import Paths
from chorus.table.carried import Header


def test_a_carry_file_of_a_recovered_mesh_says_so(tmp_path: Path) -> None:
    paths = Paths(tmp_path, tmp_path)
    assert not paths.carried_recovering
    paths.carried.write_bytes(Header("m1", True).encode() + b"more")
    assert paths.carried_recovering
    paths.carried.write_bytes(Header("m1", False).encode())
    assert not paths.carried_recovering


@pytest.mark.parametrize("content", [b"", b"\0", b"[]\n", b'{"recovers": "yes"}\n'])
def test_anything_else_does_not(tmp_path: Path, content: bytes) -> None:
    paths = Paths(tmp_path, tmp_path)
    paths.carried.write_bytes(content)
    assert not paths.carried_recovering
