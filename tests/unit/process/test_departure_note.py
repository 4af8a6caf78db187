"""The note by which an agent leaves its mesh."""

from __future__ import annotations

from pathlib import Path

import pytest

from chorus.process.departure import Departure, UnreadableDeparture, read_departure, write_departure


def test_a_note_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "departure.json"
    assert read_departure(path) is None
    for note in (
        Departure(kind="removed", mesh="mesh-1"),
        Departure(kind="merge", mesh="mesh-1", to="mesh-2", why="it is larger"),
    ):
        write_departure(path, note)
        assert read_departure(path) == note


def test_what_another_version_says_besides_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "departure.json"
    path.write_text('{"kind": "rejoin", "mesh": "mesh-1", "later": [1]}')
    assert read_departure(path) == Departure(kind="rejoin", mesh="mesh-1")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "Expecting value"),
        ("[" * 100_000, "recursion"),
        ("[]", "expected an object"),
        ('{"mesh": "mesh-1"}', "kind"),
        ('{"kind": ["merge"], "mesh": "mesh-1"}', "kind"),
        ('{"kind": "merge"}', "mesh"),
        ('{"kind": "merge", "mesh": 1}', "mesh"),
        ('{"kind": "merge", "mesh": "mesh-1", "to": 1}', "to"),
        ('{"kind": "merge", "mesh": "mesh-1", "why": null}', "why"),
    ],
)
def test_a_note_that_says_nothing_is_told_with_its_field(tmp_path: Path, text: str, why: str) -> None:
    path = tmp_path / "departure.json"
    path.write_text(text)
    with pytest.raises(UnreadableDeparture, match=why):
        read_departure(path)
