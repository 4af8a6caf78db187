"""The file of discussions."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from chorus.coordinator.hmmm.store import ITEMS_MAX, HmmmStore, RecordRow, SessionRow


def test_advice_that_nobody_was_told_holds_up_no_message(tmp_path: Path) -> None:
    store = HmmmStore(tmp_path / "hmmm.sqlite")
    for number in range(150):
        store.add("session", "advice", f"a{number}", {}, number, own=True)
    said = store.add("session", "message", "m", {}, 1000, own=True)
    assert store.unpublished() == [said]
    store.close()


def test_a_session_full_of_advice_has_room_for_its_messages(tmp_path: Path) -> None:
    store = HmmmStore(tmp_path / "hmmm.sqlite")
    for number in range(ITEMS_MAX + 5):
        store.add("session", "advice", f"a{number}", {}, number)
    assert len(store.items("session")) == ITEMS_MAX
    assert store.add("session", "message", "m", {}, 1000) is not None
    store.close()


SESSION = SessionRow("s", "t", 1, "p", "title", "goal", "", ("q",), 1, 2, 3)


def test_a_file_of_an_earlier_version_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "hmmm.sqlite"
    HmmmStore(path).close()
    with sqlite3.connect(path) as db:
        db.execute("ALTER TABLE sessions DROP COLUMN plan")
        db.execute("ALTER TABLE sessions DROP COLUMN escalated")
    db.close()
    store = HmmmStore(path)
    assert store.begin(SESSION) == SESSION
    store.describe("s", "the plan", True)
    row = store.session("s")
    assert row is not None
    assert (row.plan, row.escalated) == ("the plan", True)
    store.close()


def test_what_is_still_to_be_listed_is_known_by_session(tmp_path: Path) -> None:
    store = HmmmStore(tmp_path / "hmmm.sqlite")
    store.put_record(RecordRow("r", "s", {}))
    assert (store.has_due("s"), store.has_due("other"), store.addresses(["r"])) == (True, False, {})
    store.advance_record("r", {}, "ucxl://x")
    assert (store.has_due("s"), store.addresses(["r", "s"])) == (False, {"r": "ucxl://x"})
    store.close()
