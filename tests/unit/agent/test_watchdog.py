"""Who lives and does not answer, told by signs and by a clock that the test turns."""

from __future__ import annotations

from chorus.agent.watchdog import Patience, Watchdog

PATIENCE = Patience(silent_max_s=30, start_max_s=180, look_every_s=1)


def looks(watchdog: Watchdog, start: float, count: int, every: float = 1.0) -> list[tuple[str, int]]:
    found = []
    for n in range(1, count + 1):
        found += watchdog.look(start + n * every)
    return found


def watched() -> Watchdog:
    watchdog = Watchdog(PATIENCE)
    watchdog.look(0)
    watchdog.started("api", 7)
    watchdog.answered("api", 7)
    return watchdog


def test_silence_is_told_once_and_again_after_as_long() -> None:
    watchdog = watched()
    assert looks(watchdog, 0, 29) == []
    assert looks(watchdog, 29, 1) == [("api", 7)]
    assert looks(watchdog, 30, 29) == []
    assert looks(watchdog, 59, 1) == [("api", 7)]


def test_a_slow_process_is_left_alone() -> None:
    watchdog = watched()
    for minute in range(10):
        assert looks(watchdog, minute * 29, 29) == []
        watchdog.answered("api", 7)


def test_a_suspended_parent_or_machine_counts_for_nobody() -> None:
    watchdog = watched()
    assert watchdog.look(100_000) == []
    assert looks(watchdog, 100_000, 28) == []
    assert looks(watchdog, 100_028, 1) == [("api", 7)]


def test_a_starved_parent_waits_for_as_many_looks() -> None:
    assert looks(watched(), 0, 29, every=60) == []


def test_a_start_may_take_longer() -> None:
    watchdog = Watchdog(PATIENCE)
    watchdog.look(0)
    watchdog.started("node", 1)
    assert looks(watchdog, 0, 179) == []
    watchdog.started("node", 1)  # said twice
    assert looks(watchdog, 179, 1) == [("node", 1)]
    watchdog.started("node", 2)
    assert looks(watchdog, 180, 179) == []


def test_nothing_is_expected_of_who_is_gone() -> None:
    watchdog = watched()
    watchdog.ended("api")
    watchdog.ended("never there")
    assert looks(watchdog, 0, 100) == []
    watchdog.answered("api", 8)
    watchdog.clear()
    assert looks(watchdog, 100, 100) == []


def test_rare_signs_have_their_slack() -> None:
    watchdog = Watchdog(PATIENCE)
    watchdog.look(0)
    watchdog.answered("supervisord", 1, slack_s=10)
    assert looks(watchdog, 0, 39) == []
    assert looks(watchdog, 39, 1) == [("supervisord", 1)]
