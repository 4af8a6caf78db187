"""Two files of bench/run side by side."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from bench import compare
from bench.changes import ForeignFileError, changes, read
from bench.figures import Amounts, Comparison, figures

MACHINE = "Linux 6.1, 2 cores"


def content(*rows: Comparison | Amounts, machine: str = MACHINE) -> str:
    """What bench/run writes of these rows."""
    return json.dumps(
        {
            "at": "2026-11-28T12:00:00Z",
            "machine": machine,
            "unit": "microseconds",
            "rows": [row.as_json() for row in rows if isinstance(row, Comparison)],
            "amounts": [row.as_json() for row in rows if isinstance(row, Amounts)],
        }
    )


def times(what: str, ours: float, peer: float, peer_name: str = "peer") -> Comparison:
    return Comparison(what, figures("chorus", [ours]), figures(peer_name, [peer]), 1.0)


def lines(*files: str) -> list[list[str]]:
    """The table's lines, cell by cell."""
    table = changes(*map(read, files))
    return [[cell.strip() for cell in line.split("  ") if cell.strip()] for line in table.splitlines()]


def test_a_time_and_its_ratio() -> None:
    before = content(times("call", 100, 50))
    after = content(times("call", 80, 80))
    assert lines(before, after) == [
        ["what", "before", "after", "change", "ratio before", "ratio after"],
        ["call", "100 µs", "80 µs", "-20.0 %", "2.00", "1.00"],
    ]


def test_an_amount_with_and_without_a_peer() -> None:
    rate = "messages/s"
    before = content(
        Amounts("burst", rate, [1000, 2000, 3000], 2, peer_name="go", peer=[1000]),
        Amounts("memory", "MB", [200], 160),
    )
    after = content(
        Amounts("burst", rate, [3000], 2, peer_name="go", peer=[2000]),
        Amounts("memory", "MB", [150], 160),
    )
    assert lines(before, after)[1:] == [
        ["burst", "2,000 messages/s", "3,000 messages/s", "+50.0 %", "2.00", "1.50"],
        ["memory", "200 MB", "150 MB", "-25.0 %", "—", "—"],
    ]


def test_rows_in_one_alone_are_named() -> None:
    before = content(times("call", 1, 1), times("gone", 1, 1))
    after = content(times("call", 1, 1), Amounts("new", "MB", [1], 1))
    assert lines(before, after)[2:] == [[], ["only before:"], ["gone"], [], ["only after:"], ["new"]]


def test_nothing_in_common() -> None:
    assert lines(content(times("a", 1, 1)), content(times("b", 1, 1)))[0] == ["no row is in both"]


def test_a_row_beside_several_peers_is_told_apart_by_them() -> None:
    before = content(times("call", 100, 50, "asyncio"), times("call", 100, 40, "uvloop"))
    after = content(times("call", 50, 50, "asyncio"), times("call", 50, 40, "uvloop"))
    assert [line[0] for line in lines(before, after)[1:]] == ["call, beside asyncio", "call, beside uvloop"]


def test_a_peer_whose_name_holds_a_figure_is_the_same_one() -> None:
    before = content(times("scan", 100, 50, "gitleaks (4.4 MB/s)"))
    after = content(times("scan", 50, 50, "gitleaks (4.5 MB/s)"))
    assert lines(before, after)[1] == ["scan", "100 µs", "50 µs", "-50.0 %", "2.00", "1.00"]


def test_another_unit_is_another_row() -> None:
    before, after = content(Amounts("disk", "MB", [1], 1)), content(Amounts("disk", "GB", [1], 1))
    assert lines(before, after)[0] == ["no row is in both"]


def test_from_nothing_there_is_no_percentage() -> None:
    before, after = content(Amounts("idle", "%", [0], 1)), content(Amounts("idle", "%", [1], 1))
    assert lines(before, after)[1] == ["idle", "0 %", "1 %", "—", "—", "—"]


def test_other_machines_are_told() -> None:
    row = times("call", 1, 1)
    told = changes(read(content(row)), read(content(row, machine="another")))
    assert f"The machines differ: {MACHINE} before, another after." in told


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("no JSON", "the whole of it: Invalid JSON"),
        ("[]", "the whole of it: "),
        ("{}", "at: Field required"),
        (content().replace("microseconds", "seconds"), "unit: "),
        (content(times("call", 1, 1)).replace('"p50"', '"p51"'), "rows.0.ours.p50: Field required"),
    ],
)
def test_a_foreign_file_is_refused_with_the_place(text: str, place: str) -> None:
    with pytest.raises(ForeignFileError, match=place):
        read(text)


def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *files: Path) -> Any:
    """The exit code of bench/compare and what it printed."""
    monkeypatch.setattr(sys, "argv", ["bench/compare", *map(str, files)])
    return compare.main(), *capsys.readouterr()


def test_the_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file, missing, foreign = (tmp_path / name for name in ("a.json", "missing.json", "foreign.json"))
    file.write_text(content(times("call", 1, 1)))
    foreign.write_text("{}")
    code, out, _ = run(capsys, monkeypatch, file, file)
    assert code == 0
    assert f"before: {file}, 2026-11-28T12:00:00Z, {MACHINE}" in out
    code, _, error = run(capsys, monkeypatch, file, missing)
    assert (code, error) == (1, f"bench/compare: {missing} cannot be read: No such file or directory\n")
    code, _, error = run(capsys, monkeypatch, foreign, file)
    assert (code, error) == (1, f"bench/compare: {foreign} is no file of bench/run: at: Field required\n")
