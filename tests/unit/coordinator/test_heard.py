"""What a coordinator keeps of gossip: bounded for each signer and in all."""

from __future__ import annotations

import pytest

from chorus.coordinator import heard
from chorus.coordinator.heard import EarlyCancels, Usage


def test_a_cancel_waits_an_hour_for_its_task() -> None:
    early = EarlyCancels()
    early.add("t", "x", "why", 0)
    assert early.take("t", "y", 1) is None
    assert early.take("t", "x", 1) == "why"
    assert early.take("t", "x", 1) is None
    early.add("t", "x", "why", 0)
    assert early.take("t", "x", heard.CANCEL_KEPT_S + 1) is None
    assert len(early) == 0


def test_the_oldest_cancel_goes_of_one_signer_and_in_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heard, "CANCELS_MAX_PER_SIGNER", 2)
    monkeypatch.setattr(heard, "CANCELS_MAX", 3)
    early = EarlyCancels()
    early.add("other", "y", "", 0)
    for task_id in ("t1", "t2", "t3"):
        early.add(task_id, "x", "", 1)
    # Who sends many pushes out its own.
    assert len(early) == 3
    assert early.take("t1", "x", 1) is None
    early.add("t4", "z", "", 2)
    assert len(early) == 3
    assert early.take("other", "y", 2) is None
    for n in range(1000):
        early.add(f"t{n}", f"signer {n}", "", 3)
    assert len(early) == 3


def test_repeating_a_cancel_costs_nothing() -> None:
    early = EarlyCancels()
    for _ in range(1000):
        early.add("t", "x", "again", 0)
    assert len(early) == 1


def test_a_signer_and_all_strangers_together_have_a_share_of_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heard, "ENTRIES_MAX_PER_STRANGER", 2)
    monkeypatch.setattr(heard, "ENTRIES_MAX_OF_STRANGERS", 3)
    monkeypatch.setattr(heard, "BYTES_MAX_OF_STRANGERS", 100)
    usage = Usage()
    for _ in range(2):
        assert usage.full("x", 10, 100, stranger=True) is None
        usage.charge("x", 10, 100, stranger=True)
    assert "one signer" in (usage.full("x", 10, 100, stranger=True) or "")
    assert "bytes" in (usage.full("y", 81, 100, stranger=True) or "")
    usage.charge("y", 10, 100, stranger=True)
    assert "strangers" in (usage.full("z", 10, 100, stranger=True) or "")
    # Members have nothing to do with it.
    assert usage.full("b", 1000, 100, stranger=False) is None
    assert usage.full("x", 10, 100 + heard.WINDOW_S, stranger=True) is None
