"""The rules for what a member brings along from another mesh: tasks, decisions, votes, versions, names.

A record that the table has already is left as it is, so that an entry counts once however often it is made.
What belongs together (a task's story, a ballot's votes) and is too long for one entry comes before it in
parts. `chorus.table.export` writes the entries. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final, TypeVar

import orjson
from pydantic import ValidationError

from chorus.table import bounds, json_values, ucxl
from chorus.table.effects import Draft, Drop, Refuse, TableView
from chorus.table.entries import UNFIT, Entry, Fact
from chorus.table.import_entries import (
    BallotStory,
    GoalStory,
    ImportBallot,
    ImportDecision,
    ImportGoal,
    ImportMember,
    ImportPart,
    ImportTask,
    ImportVersion,
    TaskStory,
    VoteStory,
)
from chorus.table.members import FOUNDER_RAFT_ID
from chorus.table.records import (
    Attempt,
    Ballot,
    Body,
    Carried,
    Change,
    Decision,
    FormerMember,
    Member,
    Mesh,
    Part,
    Recorded,
    Removed,
    Superseded,
    Task,
    Version,
    Vote,
    changed,
)
from chorus.table.rows import FINISHED_STATES, OPEN_ATTEMPTS
from chorus.table.tasks import cancelled_before, give_back, result_body

Touched = tuple[str, ...]

# How a refusal begins when the table has the record.
KNOWN: Final = "known"


def part(draft: Draft, entry: Entry, fact: ImportPart) -> Touched:
    """Kept until what it is a part of comes; nobody reads it before."""
    if _has(draft, fact.of):
        raise Refuse(f"{KNOWN}: it is there")
    draft.put(Part(entry.author, fact.of, fact.n, fact.text))
    return ()


def task(draft: Draft, entry: Entry, fact: ImportTask) -> Touched:
    """A task with all that happened to it. An open one waits anew; it counts even where the mesh is full."""
    if draft.get(Task, fact.task_id) is not None:
        raise Refuse(f"{KNOWN}: there is a task with that id", *_parts_of(entry, fact.task_id, fact.parts))
    kind = GoalStory if isinstance(fact, ImportGoal) else TaskStory
    story = _story(draft, entry, kind, fact.task_id, fact)
    actors = [story.vouched_by, *(one.agent for one in story.attempts)]
    _check_author(draft, entry, [*actors, *(one.author for one in story.superseded)])
    ended = story.state in FINISHED_STATES
    if ended != (story.finished_at is not None) or (story.removed is not None and not ended):
        raise Refuse(f"{UNFIT}: story.state: it does not go with the times")
    if not ended and story.agent is None and story.state != "announced":
        raise Refuse(f"{UNFIT}: story.state: a task that nobody has waits")
    numbers = {one.attempt for one in story.attempts}
    if len(numbers) < len(story.attempts) or any(number > story.attempt for number in numbers):
        raise Refuse(f"{UNFIT}: story.attempts: not those up to {story.attempt}, each once")
    record = Task(
        task_id=fact.task_id,
        idx=entry.index,
        state=story.state,
        reason=story.reason,
        attempt=story.attempt,
        agent=story.agent,
        submitter=story.submitter,
        submitted_by=story.submitted_by,
        vouched_by=story.vouched_by,
        holders=tuple(story.holders),
        project=story.task.project,
        priority=story.task.priority,
        max_attempts=story.task.max_attempts,
        start_by=story.start_by,
        created_at=story.created_at,
        claimed_at=story.claimed_at,
        started_at=story.started_at,
        finished_at=story.finished_at,
        pulling_s=story.pulling_s,
        decision=story.decision,
        lost=story.lost,
        changes=len(story.changes),
        stranger=story.stranger,
        unresponsive=story.unresponsive,
    )
    draft.put(record)
    draft.put(Body(fact.task_id, story.task.body(fact.task_id)))
    _write_story(draft, entry, fact, story)
    if not ended:
        bounds.count(draft, story.submitted_by, stranger=story.stranger)
        if story.agent is not None:
            # claimed, running, announced (awarded) -> announced: whoever had it is asked anew.
            record = give_back(draft, entry, record, fact.why)
        cancelled_before(draft, entry, record)
    return (fact.task_id,)


def _write_story(draft: Draft, entry: Entry, fact: ImportTask, story: TaskStory) -> None:
    for one in story.attempts:
        attempt = Attempt(
            task_id=fact.task_id,
            attempt=one.attempt,
            agent=one.agent,
            state=one.state,
            awarded_at=one.awarded_at,
            reason=one.reason,
            claimed_at=one.claimed_at,
            started_at=one.started_at,
            finished_at=one.finished_at,
            image=one.image,
            pulling_s=one.pulling_s,
            result=None if one.result is None else result_body(one.result),
        )
        if attempt.state in OPEN_ATTEMPTS:
            # awarded, claimed, running -> lost: its lease was of a mesh that is no more.
            attempt = changed(attempt, state="lost", reason=fact.why)
        if attempt.finished_at is None:
            attempt = changed(attempt, finished_at=entry.stamp_ms)
        draft.put(attempt)
    for n, step in enumerate(story.changes):
        draft.put(Change(fact.task_id, n, step.attempt, step.state, step.at_ms, step.reason))
    for late in story.superseded:
        kept = Superseded(fact.task_id, late.attempt, late.author, entry.index, result_body(late.result))
        draft.put(kept)
    for record in story.recorded:
        draft.put(Recorded(fact.task_id, record.attempt, record.hash))
    if story.removed is not None:
        draft.put(Removed(fact.task_id, story.removed.at_ms, story.removed.by))


def ballot(draft: Draft, entry: Entry, fact: ImportBallot) -> Touched:
    """A vote on a decision that is listed. An open one goes on until its time is over."""
    if draft.get(Ballot, fact.hash) is not None:
        raise Refuse(f"{KNOWN}: that decision is or was voted on", *_parts_of(entry, fact.hash, fact.parts))
    decision = draft.get(Decision, fact.hash)
    if decision is None:
        raise Refuse("unknown: no such decision")
    story = _story(draft, entry, BallotStory, fact.hash, fact)
    _check_author(draft, entry, [decision.author, *story.voters, *(one.peer for one in story.votes)])
    if (story.state == "open") != (story.ended_at is None):
        raise Refuse(f"{UNFIT}: story.state: it does not go with the times")
    cast: dict[tuple[int, str], VoteStory] = {(one.round, one.peer): one for one in story.votes}
    newest = [one for one in cast.values() if one.round == story.round]
    if any(one.round > story.round for one in story.votes) or any(
        one.peer not in story.voters for one in newest
    ):
        raise Refuse(f"{UNFIT}: story.votes: not of a round and a voter of this vote")
    for one in cast.values():
        draft.put(Vote(fact.hash, one.round, one.peer, one.choice, one.reason, one.by, one.at_ms))
    choices = [one.choice for one in newest]
    draft.put(
        Ballot(
            hash=fact.hash,
            round=story.round,
            quorum=story.quorum,
            voters=tuple(story.voters),
            opened_at=story.opened_at,
            closes_at=story.closes_at,
            state=story.state,
            approve=choices.count("approve"),
            reject=choices.count("reject"),
            abstain=choices.count("abstain"),
            ended_at=story.ended_at,
            concluded=story.concluded,
        )
    )
    return ()


def decision(draft: Draft, entry: Entry, fact: ImportDecision) -> Touched:
    """A decision record. What lies at its address comes as versions."""
    if draft.get(Decision, fact.hash) is not None:
        raise Refuse(f"{KNOWN}: that record is listed")
    _check_author(draft, entry, [fact.author])
    draft.put(
        Decision(
            hash=fact.hash,
            address=fact.address,
            kind=fact.kind,
            task_id=fact.task_id,
            attempt=fact.attempt,
            author=fact.author,
            idx=entry.index,
            at_ms=fact.at_ms,
        )
    )
    return ()


def version(draft: Draft, entry: Entry, fact: ImportVersion) -> Touched:
    """The next version of its address, with the author and the time that it had."""
    if ucxl.place_of(fact.address) is None:
        raise Refuse(f"{ucxl.BAD_ADDRESS}: nothing can be written at {fact.address[:200]}")
    before = draft.get(Carried, fact.origin, fact.address)
    if before is not None and fact.number <= before.number:
        raise Refuse(f"{KNOWN}: that version is there")
    if not fact.deleted and not fact.hash:
        raise Refuse(f"{UNFIT}: hash: missing")
    _check_author(draft, entry, [fact.author])
    draft.put(Carried(fact.origin, fact.address, fact.number))
    ucxl.append(
        draft,
        Version(
            address=fact.address,
            version=0,
            hash=fact.hash,
            stored=fact.stored,
            kind=fact.kind,
            size=fact.size,
            content_type=fact.content_type,
            author=fact.author,
            agent_id=fact.agent_id,
            role=fact.role,
            deleted=fact.deleted,
            idx=entry.index,
            at_ms=fact.at_ms,
        ),
    )
    return ()


def member(draft: Draft, entry: Entry, fact: ImportMember) -> Touched:
    """One that is in this mesh no more than any former member; it joins like everybody else."""
    listed = draft.get(Member, fact.peer) is not None
    if listed or draft.get(FormerMember, fact.peer) is not None:
        raise Refuse(f"{KNOWN}: that peer is or was a member")
    _check_author(draft, entry, [fact.peer])
    draft.put(
        FormerMember(
            peer=fact.peer,
            agent_id=fact.agent_id,
            role=fact.role,
            raft_id=0,
            joined_at=fact.joined_at,
            removed_at=entry.stamp_ms if fact.removed_at is None else fact.removed_at,
            reason=fact.reason,
        )
    )
    return ()


def is_there(view: TableView, type: str, body: dict[str, Any]) -> bool:
    """Whether the table has what an entry of this module would bring."""
    match type:
        case "import_part":
            return _has(view, body["of"])
        case "import_task" | "import_goal":
            return view.get(Task, body["task_id"]) is not None
        case "import_ballot":
            return view.get(Ballot, body["hash"]) is not None
        case "import_decision":
            return view.get(Decision, body["hash"]) is not None
        case "import_version":
            carried = view.get(Carried, body["origin"], body["address"])
            return carried is not None and carried.number >= body["number"]
        case "import_member":
            peer = body["peer"]
            return view.get(Member, peer) is not None or view.get(FormerMember, peer) is not None
    return False


def _has(view: TableView, of: str) -> bool:
    return view.get(Task, of) is not None or view.get(Ballot, of) is not None


def _check_author(draft: Draft, entry: Entry, actors: Iterable[str]) -> None:
    """The founder of a recovered mesh brings everything, everybody else what is their own."""
    mesh, author = draft.get(Mesh, "mesh"), draft.get(Member, entry.author)
    founder = author is not None and author.raft_id == FOUNDER_RAFT_ID
    if mesh is not None and mesh.recovers and founder:
        return
    if any(actor != entry.author for actor in actors):
        raise Refuse("only the founder of a recovered mesh brings what others did")


S = TypeVar("S", bound=Fact)


def _story(draft: Draft, entry: Entry, kind: type[S], of: str, fact: ImportTask | ImportBallot) -> S:
    """The story that comes with an entry, or came in parts, which go."""
    said: Any = fact.story
    if fact.parts:
        pieces = [draft.get(Part, entry.author, of, n) for n in range(fact.parts)]
        texts = [piece.text for piece in pieces if piece is not None]
        if len(texts) < fact.parts:
            raise Refuse("a part of it is missing")
        for n in range(fact.parts):
            draft.drop(Part, entry.author, of, n)
        try:
            said = orjson.loads("".join(texts))
        except orjson.JSONDecodeError:
            raise Refuse(f"{UNFIT}: parts: not JSON") from None
        if (problem := json_values.problem_of(said)) is not None:
            raise Refuse(f"{UNFIT}: parts: {problem}")
    try:
        return kind.model_validate(said)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        field = str(first["loc"][0]) if first["loc"] and first["loc"][0] in kind.model_fields else "it"
        raise Refuse(f"{UNFIT}: story.{field}: not a value of this field") from None


def _parts_of(entry: Entry, of: str, count: int) -> Iterable[Drop]:
    return (Drop(Part, (entry.author, of, n)) for n in range(count))


RULES: dict[str, Callable[[Draft, Entry, Any], Touched]] = {
    "import_part": part,
    "import_task": task,
    "import_ballot": ballot,
    "import_decision": decision,
    "import_version": version,
    "import_member": member,
    "import_goal": task,
}
