"""An attempt's file of events after a crash."""

from __future__ import annotations

from pathlib import Path

import pytest

from chorus.executor import journal


@pytest.mark.parametrize("piece", [1, 7, 64, 1 << 18])
@pytest.mark.parametrize(
    ("content", "kept", "found"),
    [
        (b"", b"", (0, "")),
        (b'{"event":"a"', b"", (0, "")),
        (b'{"event":"a"}\n', b'{"event":"a"}\n', (1, "a")),
        (b'{"event":"a"}\n{"event":"end"}\n', b'{"event":"a"}\n{"event":"end"}\n', (2, "end")),
        (b'{"event":"a"}\n{"event":"b"}\n{"ev', b'{"event":"a"}\n{"event":"b"}\n', (2, "b")),
        (b"\n\nnonsense\n", b"\n\nnonsense\n", (3, "")),
        (b"[1]\n", b"[1]\n", (1, "")),
    ],
)
def test_an_unfinished_line_is_cut(
    content: bytes,
    kept: bytes,
    found: tuple[int, str],
    piece: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(journal, "_READ_BYTES", piece)
    path = tmp_path / "events"
    path.write_bytes(content)
    assert journal._heal(path) == found
    assert path.read_bytes() == kept
    assert journal._heal(tmp_path / "nothing") == (0, "")
