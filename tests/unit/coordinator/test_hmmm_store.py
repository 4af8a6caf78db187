"""The file of discussions."""

from __future__ import annotations

from pathlib import Path

from chorus.coordinator.hmmm.store import ITEMS_MAX, HmmmStore


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
