"""The rules for votes on decisions: who has one, how they are counted, when a ballot is over. Pure.

open --vote--> open, or approved | rejected as soon as the votes left could not change it
open --ballot_end, after its time--> approved | rejected | undecided
undecided --ballot--> open, a new round
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import Field, Strict

from chorus.table.effects import Draft, Refuse
from chorus.table.entries import DecisionPublished, Entry, Fact, Number, Peer, Reason
from chorus.table.records import Ballot, Decision, Member, Mesh, Recorded, Vote, changed
from chorus.table.submitted import Name

# As many members as one ballot lists: its entry and its record hold them all.
VOTERS_MAX = 1_000

Hash = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Touched = tuple[str, ...]


class OpenBallot(Fact):
    """The leader opens a vote on a decision among the members it lists, for so long."""

    hash: Hash
    quorum: Annotated[int, Field(ge=1, le=VOTERS_MAX)]
    voters: Annotated[tuple[Peer, ...], Strict(False), Field(min_length=1, max_length=VOTERS_MAX)]
    open_ms: Annotated[int, Field(ge=0, le=366 * 86_400_000)]


class CastVote(Fact):
    """A member votes; `by` is the person who did it through that member."""

    hash: Hash
    round: Number
    choice: Literal["approve", "reject", "abstain"]
    reason: Reason = ""
    by: Name = ""


class BallotEnd(Fact):
    """The leader ends a ballot whose time is over."""

    hash: Hash
    round: Number


def ballot(draft: Draft, entry: Entry, fact: OpenBallot) -> Touched:
    """A vote begins, or begins again after one that decided nothing."""
    decision = draft.get(Decision, fact.hash)
    if decision is None:
        raise Refuse("unknown: no such decision")
    if decision.kind == "vote":
        raise Refuse("the outcome of a vote is not voted on")
    last = draft.get(Ballot, fact.hash)
    if last is not None and last.state == "open":
        raise Refuse("open: that decision is voted on")
    if last is not None and last.state != "undecided":
        raise Refuse(f"ended: the vote is over: {last.state}")
    if last is not None and last.concluded is None:
        raise Refuse("the last round has no record yet")
    voters = tuple(sorted(set(fact.voters)))
    if any(draft.get(Member, peer) is None for peer in voters):
        raise Refuse("only members vote")
    if fact.quorum > len(voters):
        raise Refuse(f"a quorum of {fact.quorum} cannot come of {len(voters)} members")
    draft.put(
        Ballot(
            hash=fact.hash,
            round=last.round + 1 if last is not None else 1,
            quorum=fact.quorum,
            voters=voters,
            opened_at=entry.stamp_ms,
            closes_at=entry.stamp_ms + fact.open_ms,
        )
    )
    return ()


def vote(draft: Draft, entry: Entry, fact: CastVote) -> Touched:
    """A member's vote. Until the ballot is over a later one takes the place of its earlier one."""
    open = _open(draft, fact.hash, fact.round)
    if entry.author not in open.voters:
        raise Refuse("only members that were listed when the vote began have one")
    if entry.stamp_ms >= open.closes_at:
        raise Refuse("ended: the time to vote is over")
    before = draft.get(Vote, fact.hash, fact.round, entry.author)
    if before is not None:
        open = changed(open, **{before.choice: getattr(open, before.choice) - 1})
    open = changed(open, **{fact.choice: getattr(open, fact.choice) + 1})
    draft.put(Vote(fact.hash, fact.round, entry.author, fact.choice, fact.reason, fact.by, entry.stamp_ms))
    cast = open.approve + open.reject + open.abstain
    left = len(open.voters) - cast
    # Abstentions count for the quorum, not for the majority.
    certain = cast >= open.quorum and (abs(open.approve - open.reject) > left or left == 0)
    # open -> approved, rejected, undecided
    draft.put(_ended(open, entry) if certain else open)
    return ()


def ballot_end(draft: Draft, entry: Entry, fact: BallotEnd) -> Touched:
    """The time to vote is over."""
    open = _open(draft, fact.hash, fact.round)
    if entry.stamp_ms < open.closes_at:
        raise Refuse("there is still time to vote")
    # open -> approved, rejected, undecided
    draft.put(_ended(open, entry))
    return ()


def conclude(draft: Draft, entry: Entry, fact: DecisionPublished) -> None:
    """The record of a vote's outcome: one for each round, by the leader."""
    mesh = draft.get(Mesh, "mesh")
    if mesh is None or entry.author != mesh.leader:
        raise Refuse("only the newest leader may say this")
    over = draft.get(Ballot, fact.decides) if fact.decides is not None else None
    if over is None or over.state == "open":
        raise Refuse("no vote has ended there")
    if over.concluded is not None:
        raise Refuse("known: that vote has its record")
    draft.put(changed(over, concluded=fact.hash))


def record_once(draft: Draft, task_id: str, attempt: int, hash: str) -> None:
    """An attempt's result has one record, however often it is published."""
    if draft.get(Recorded, task_id, attempt) is not None:
        raise Refuse("known: that attempt has its record")
    draft.put(Recorded(task_id, attempt, hash))


def _open(draft: Draft, hash: str, round: int) -> Ballot:
    found = draft.get(Ballot, hash)
    if found is None:
        raise Refuse("unknown: nobody votes on that")
    if found.state != "open":
        raise Refuse(f"ended: the vote is over: {found.state}")
    if found.round != round:
        raise Refuse(f"ended: the vote is in round {found.round}")
    return found


def _ended(over: Ballot, entry: Entry) -> Ballot:
    state = "undecided"
    if over.approve + over.reject + over.abstain >= over.quorum and over.approve != over.reject:
        state = "approved" if over.approve > over.reject else "rejected"
    return changed(over, state=state, ended_at=entry.stamp_ms)


FACTS: dict[str, type[Fact]] = {"ballot": OpenBallot, "vote": CastVote, "ballot_end": BallotEnd}
LEADER_ONLY = frozenset({"ballot", "ballot_end"})
RULES: dict[str, Callable[[Draft, Entry, Any], Touched]] = {
    "ballot": ballot,
    "vote": vote,
    "ballot_end": ballot_end,
}
