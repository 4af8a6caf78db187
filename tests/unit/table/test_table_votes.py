"""The rules for votes on decisions, one by one, and together in any order."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from table_mesh import STEP_MS, STRANGER, T1, A, B, C, Log

from chorus.table.records import Ballot, Decision, Recorded, Vote

D1, D2, OUTCOME, OUTCOME2 = "1" * 64, "2" * 64, "a" * 64, "b" * 64
LONG = 1_000_000


def decided() -> Log:
    """A log with a decision of C about T1."""
    log = Log()
    log.submit()
    log.run()
    log.result()
    assert log.say(
        C, "decision", task_id=T1, attempt=1, hash=D1, address="ucxl://c", kind="task_result"
    ).accepted
    return log


def opened(open_ms: int = LONG, quorum: int = 2, log: Log | None = None) -> Log:
    log = log or decided()
    assert log.say(A, "ballot", hash=D1, quorum=quorum, voters=[A, B, C], open_ms=open_ms).accepted
    return log


def ballot(log: Log) -> Ballot:
    found = log.view.get(Ballot, D1)
    assert found is not None
    return found


def cast(log: Log, peer: str, choice: str, round: int = 1, **more: Any) -> str:
    return log.say(peer, "vote", hash=D1, round=round, choice=choice, **more).reason


def test_a_majority_that_nobody_can_turn_ends_the_vote() -> None:
    log = opened()
    assert cast(log, A, "approve", reason="good", by="ann") == ""
    assert ballot(log).state == "open"
    assert cast(log, B, "approve") == ""
    over = ballot(log)
    assert (over.state, over.approve, over.ended_at) == ("approved", 2, log.stamp)
    assert "over" in cast(log, C, "reject")
    assert log.view.get(Vote, D1, 1, A) == Vote(D1, 1, A, "approve", "good", "ann", log.stamp - 2 * STEP_MS)


def test_one_member_has_one_vote_and_may_change_it() -> None:
    log = opened(quorum=3)
    for choice in ("reject", "reject", "abstain", "approve"):
        assert cast(log, B, choice) == ""
    over = ballot(log)
    assert (over.approve, over.reject, over.abstain) == (1, 0, 0)


@pytest.mark.parametrize(
    ("choices", "state"),
    [
        (["approve", "reject", "abstain"], "undecided"),
        (["abstain", "abstain", "abstain"], "undecided"),
        (["reject", "abstain", "abstain"], "rejected"),
        (["abstain", "abstain", "approve"], "approved"),
    ],
)
def test_abstentions_count_for_the_quorum_alone(choices: list[str], state: str) -> None:
    log = opened(quorum=3)
    for peer, choice in zip((A, B, C), choices, strict=True):
        assert cast(log, peer, choice) == ""
    assert ballot(log).state == state


def test_only_listed_members_vote_on_a_ballot_that_is_open() -> None:
    log = decided()
    assert "nobody votes" in cast(log, A, "approve")
    log.say(A, "ballot", hash=D1, quorum=1, voters=[A, B], open_ms=LONG)
    assert "listed" in cast(log, C, "approve")
    assert "member" in cast(log, STRANGER, "approve")
    assert "does not fit" in cast(log, A, "perhaps")
    assert "round" in cast(log, A, "approve", round=2)


@pytest.mark.parametrize(
    ("author", "body", "reason"),
    [
        (B, {}, "leader"),
        (A, {"hash": D2}, "no such decision"),
        (A, {"voters": [A, STRANGER]}, "only members"),
        (A, {"quorum": 4}, "quorum"),
        (A, {"quorum": 3, "voters": [A, A, B]}, "quorum"),
        (A, {"quorum": 0}, "does not fit"),
        (A, {"voters": []}, "does not fit"),
        (A, {"open_ms": -1}, "does not fit"),
    ],
)
def test_what_ballot_is_refused(author: str, body: dict[str, Any], reason: str) -> None:
    said = {"hash": D1, "quorum": 1, "voters": [A, B, C], "open_ms": LONG, **body}
    assert reason in decided().say(author, "ballot", **said).reason


def test_time_ends_a_vote_by_an_entry_of_the_leader() -> None:
    log = opened(open_ms=2 * STEP_MS, quorum=3)
    assert "still time" in log.say(A, "ballot_end", hash=D1, round=1).reason
    assert "time to vote is over" in cast(log, A, "approve")
    assert "leader" in log.say(B, "ballot_end", hash=D1, round=1).reason
    assert log.say(A, "ballot_end", hash=D1, round=1).accepted
    assert ballot(log).state == "undecided"
    assert "over" in log.say(A, "ballot_end", hash=D1, round=1).reason


def test_an_outcome_has_one_record_by_the_leader() -> None:
    log = opened()
    record = {
        "kind": "vote",
        "hash": OUTCOME,
        "address": "ucxl://a",
        "task_id": T1,
        "attempt": 1,
        "decides": D1,
    }
    assert "ended" in log.say(A, "decision", **record).reason
    cast(log, A, "reject")
    cast(log, B, "reject")
    assert "leader" in log.say(B, "decision", **record).reason
    assert "ended" in log.say(A, "decision", **{**record, "decides": D2}).reason
    assert log.say(A, "decision", **record).accepted
    assert "has its record" in log.say(A, "decision", **{**record, "hash": OUTCOME2}).reason
    assert ballot(log).concluded == OUTCOME
    # The task's own decision is what was voted on, not the vote.
    assert log.task().decision == "ucxl://c"
    assert "not voted on" in log.say(A, "ballot", hash=OUTCOME, quorum=1, voters=[A], open_ms=1).reason
    assert "over: rejected" in log.say(A, "ballot", hash=D1, quorum=1, voters=[A], open_ms=1).reason


def test_a_vote_that_decided_nothing_may_be_repeated() -> None:
    log = opened(open_ms=0)
    again = {"hash": D1, "quorum": 1, "voters": [A, B], "open_ms": LONG}
    assert "open" in log.say(A, "ballot", **again).reason
    assert log.say(A, "ballot_end", hash=D1, round=1).accepted
    assert "no record yet" in log.say(A, "ballot", **again).reason
    assert log.say(A, "decision", kind="vote", hash=OUTCOME, task_id=T1, attempt=1, decides=D1).accepted
    assert log.say(A, "ballot", **again).accepted
    assert (ballot(log).round, ballot(log).concluded) == (2, None)
    assert "round" in cast(log, A, "approve", round=1)
    assert cast(log, A, "approve", round=2) == ""


def test_an_attempt_has_one_record_of_its_result() -> None:
    log = decided()
    again = {"task_id": T1, "attempt": 1, "address": "ucxl://c", "kind": "task_result"}
    assert "has its record" in log.say(C, "decision", hash=D2, **again).reason
    assert log.view.get(Recorded, T1, 1) == Recorded(T1, 1, D1)
    assert log.say(C, "decision", hash=D2, **{**again, "kind": "hmmm_outcome"}).accepted
    assert log.view.get(Decision, D2) is not None
    assert log.task().decision == "ucxl://c"


CHOICES = st.sampled_from(["approve", "reject", "abstain"])


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(1, 3), st.lists(st.tuples(st.sampled_from([A, B, C]), CHOICES), max_size=12))
def test_the_outcome_is_that_of_a_plain_count(quorum: int, votes: list[tuple[str, str]]) -> None:
    log = opened(quorum=quorum)
    last: dict[str, str] = {}
    for peer, choice in votes:
        if cast(log, peer, choice) == "":
            last[peer] = choice
    over = ballot(log)
    counted = list(last.values())
    assert [over.approve, over.reject, over.abstain] == [
        counted.count(choice) for choice in ("approve", "reject", "abstain")
    ]
    if over.state != "open":
        # What decided it would decide it still, whatever the others had said.
        left = 3 - len(counted)
        assert len(counted) >= quorum
        ahead = over.approve - over.reject
        assert (ahead > 0) == (over.state == "approved")
        assert (ahead < 0) == (over.state == "rejected")
        assert abs(ahead) > left or left == 0
