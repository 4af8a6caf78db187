"""The rules for tasks: how each entry moves a task along its states, and what is refused. Pure.

A goal begins with `goal` and may end with `goal_result`; all else is as for a task with commands.

announced --award--> awarded (shown as announced) --claim--> claimed --started--> running
awarded --decline--> announced          claimed, running --result--> completed | failed
awarded, claimed, running --release, reoffer--> announced, or failed after max_attempts lost ones
awarded, claimed, running --give_back--> announced
any open state --cancel--> cancelled    announced --expire--> expired
announced --dependency_failed--> failed
failed, cancelled, expired --retry--> announced
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from chorus.table import bounds
from chorus.table import entries as facts
from chorus.table.effects import Draft, Refuse
from chorus.table.entries import Entry
from chorus.table.records import (
    Attempt,
    Body,
    Cancel,
    Change,
    Decision,
    Member,
    Removed,
    Superseded,
    Task,
    changed,
)
from chorus.table.rows import OPEN_ATTEMPTS
from chorus.table.ucxl import add_decision
from chorus.table.votes import conclude, record_once

Touched = tuple[str, ...]

# A task whose executors stopped answering so often fails: a third agent would be lost to it as well.
UNRESPONSIVE_MAX = 2
# Of the reason of a dependency, in that of the task which waited for it: chains of tasks stay readable.
DEPENDENCY_REASON_MAX_CHARS = 300
_ENDED_HOW = {"failed": "failed", "cancelled": "was cancelled", "expired": "expired"}


def submit(draft: Draft, entry: Entry, fact: facts.Submit) -> Touched:
    """A task begins as announced. Refused: a known id, a dependency nobody knows, a full mesh."""
    if fact.vouched_by != entry.author:
        raise Refuse("only the vouching member may submit")
    if draft.get(Task, fact.task_id) is not None:
        raise Refuse("known: there is a task with that id")
    task = fact.task
    if task.task_id not in (None, fact.task_id):
        raise Refuse("invalid: task.task_id: not the entry's")
    for other in task.depends_on:
        if draft.get(Task, other) is None:
            raise Refuse(f"invalid: task.depends_on: there is no task {other}")
    submitted_by = fact.submitted_by or _agent_id(draft, fact.submitter)
    if fact.submitter != entry.author:
        # Heard by gossip: the signer speaks for itself, and nobody for somebody else.
        submitted_by = fact.submitter
    stranger = draft.get(Member, fact.submitter) is None
    bounds.begin(draft, submitted_by, stranger=stranger)
    record = Task(
        task_id=fact.task_id,
        idx=entry.index,
        state="announced",
        reason="",
        attempt=0,
        agent=None,
        submitter=fact.submitter,
        submitted_by=submitted_by,
        vouched_by=fact.vouched_by,
        holders=fact.holders,
        project=task.project,
        priority=task.priority,
        max_attempts=task.max_attempts,
        start_by=task.start_by,
        created_at=entry.stamp_ms,
        stranger=stranger,
    )
    draft.put(Body(fact.task_id, task.body(fact.task_id)))
    # announced: nobody has it yet.
    record = _step(draft, entry, record, "announced", "")
    cancelled_before(draft, entry, record)
    return (fact.task_id,)


def goal(draft: Draft, entry: Entry, fact: facts.SubmitGoal) -> Touched:
    """A goal begins as announced. Refused as a task is, and when what it continues has not ended."""
    if (before := fact.task.continues) is not None:
        known = draft.get(Task, before)
        if known is None or known.finished_at is None:
            what = f"there is no task {before}" if known is None else f"task {before} has not ended"
            raise Refuse(f"invalid: task.continues: {what}")
    return submit(draft, entry, fact)


def cancelled_before(draft: Draft, entry: Entry, task: Task) -> None:
    """Ends a task that comes into the table, if its cancel was there first."""
    cancelled = draft.get(Cancel, task.task_id)
    if cancelled is None:
        return
    draft.drop(Cancel, task.task_id)
    fresh = entry.stamp_ms - cancelled.at_ms <= bounds.CANCEL_KEPT_MS
    if fresh and cancelled.signer in ("", task.submitter):
        # announced -> cancelled
        _end(draft, entry, task, "cancelled", cancelled.reason or f"cancelled by {cancelled.by}")


def give_back(draft: Draft, entry: Entry, task: Task, reason: str) -> Task:
    """The task waits anew, through no fault of whoever had it."""
    # announced (awarded), claimed, running -> announced
    return _step(draft, entry, _waiting(task), "announced", reason)


def award(draft: Draft, entry: Entry, fact: facts.Award) -> Touched:
    """The next attempt of a waiting task goes to a member."""
    task = _open_task(draft, fact.task_id)
    if task.agent is not None:
        raise Refuse("the task does not wait")
    if fact.attempt != task.attempt + 1:
        raise Refuse(f"the next attempt is {task.attempt + 1}")
    if draft.get(Member, fact.agent) is None:
        raise Refuse("no such member")
    draft.put(Attempt(fact.task_id, fact.attempt, fact.agent, "awarded", entry.stamp_ms))
    task = changed(task, attempt=fact.attempt, agent=fact.agent)
    # announced -> announced: an award is an offer until it is claimed.
    _step(draft, entry, task, "announced", f"awarded to {_agent_id(draft, fact.agent)}")
    return (fact.task_id,)


def decline(draft: Draft, entry: Entry, fact: facts.Decline) -> Touched:
    """The member asked does not take it; the next is asked. Not counted in `max_attempts`."""
    task, attempt = _current(draft, entry, fact.task_id, fact.attempt, ("awarded",))
    draft.put(changed(attempt, state="declined", reason=fact.reason, finished_at=entry.stamp_ms))
    # announced (awarded) -> announced
    reason = f"declined by {_agent_id(draft, attempt.agent)}: {fact.reason or 'no reason given'}"
    _step(draft, entry, changed(task, agent=None), "announced", reason)
    return (fact.task_id,)


def claim(draft: Draft, entry: Entry, fact: facts.Claim) -> Touched:
    """The member asked takes it."""
    task, attempt = _current(draft, entry, fact.task_id, fact.attempt, ("awarded",))
    draft.put(changed(attempt, state="claimed", claimed_at=entry.stamp_ms))
    # announced (awarded) -> claimed
    task = changed(task, claimed_at=entry.stamp_ms)
    _step(draft, entry, task, "claimed", f"claimed by {_agent_id(draft, attempt.agent)}")
    return (fact.task_id,)


def started(draft: Draft, entry: Entry, fact: facts.Started) -> Touched:
    """The sandbox runs."""
    task, attempt = _current(draft, entry, fact.task_id, fact.attempt, ("claimed",))
    attempt = changed(
        attempt, state="running", started_at=entry.stamp_ms, image=fact.image, pulling_s=fact.pulling_s
    )
    draft.put(attempt)
    # claimed -> running
    task = changed(task, started_at=entry.stamp_ms, pulling_s=fact.pulling_s)
    _step(draft, entry, task, "running", "")
    return (fact.task_id,)


def goal_result(draft: Draft, entry: Entry, fact: facts.GoalResult) -> Touched:
    """A result as any other, with what a model did."""
    if not _is_goal(draft, fact.task_id):
        raise Refuse("only of a task without commands")
    return result(draft, entry, fact)


def result(draft: Draft, entry: Entry, fact: facts.Result) -> Touched:
    """The first result of the newest attempt, by its executor, ends the task; others are superseded."""
    attempt = draft.get(Attempt, fact.task_id, fact.attempt)
    task = draft.get(Task, fact.task_id)
    if task is None or attempt is None:
        raise Refuse("no such attempt")
    if attempt.agent != entry.author:
        raise Refuse("only the attempt's executor reports on it")
    body = result_body(fact)
    too_late = Superseded(fact.task_id, fact.attempt, entry.author, entry.index, body)
    if task.attempt != fact.attempt:
        raise Refuse("superseded: there is a newer attempt", too_late)
    done = changed(
        attempt, reason=fact.reason, result=body, finished_at=attempt.finished_at or entry.stamp_ms
    )
    if task.state == "cancelled" and attempt.state == "cancelled" and attempt.result is None:
        if fact.outcome != "cancelled":
            raise Refuse("superseded: the task was cancelled before", too_late)
        # cancelled -> cancelled: what was left when the cancel reached the sandbox.
        draft.put(done)
        return (fact.task_id,)
    if task.finished_at is not None:
        raise Refuse(f"superseded: the task is {task.state}", too_late)
    # An attempt whose lease ended is still the newest until another is awarded: its work is not thrown away.
    if attempt.state not in ("claimed", "running", "lost"):
        raise Refuse(f"superseded: the attempt is {attempt.state}", too_late)
    draft.put(changed(done, state=fact.outcome, finished_at=entry.stamp_ms))
    # claimed, running, announced (lease over) -> completed, failed, cancelled
    task = changed(task, agent=attempt.agent, claimed_at=attempt.claimed_at, started_at=attempt.started_at)
    _end(draft, entry, changed(task, pulling_s=attempt.pulling_s), fact.outcome, fact.reason)
    return (fact.task_id,)


def release(draft: Draft, entry: Entry, fact: facts.Release) -> Touched:
    """The executor gives the attempt back."""
    task, attempt = _current(draft, entry, fact.task_id, fact.attempt, tuple(OPEN_ATTEMPTS))
    if fact.cause == "unresponsive" and attempt.state != "awarded":
        task = changed(task, unresponsive=task.unresponsive + 1)
    return _given_back(draft, entry, task, attempt, "released", fact.reason or "given back")


def give_back_goal(draft: Draft, entry: Entry, fact: facts.GiveBack) -> Touched:
    """The executor's model was away before its first step. Not counted in `max_attempts`."""
    task, attempt = _current(draft, entry, fact.task_id, fact.attempt, tuple(OPEN_ATTEMPTS))
    if not _is_goal(draft, fact.task_id):
        raise Refuse("only of a task without commands")
    reason = fact.reason or "given back"
    draft.put(changed(attempt, state="released", reason=reason, finished_at=entry.stamp_ms))
    give_back(draft, entry, task, reason)
    return (fact.task_id,)


def reoffer(draft: Draft, entry: Entry, fact: facts.Reoffer) -> Touched:
    """The leader takes the attempt back."""
    task = _open_task(draft, fact.task_id)
    attempt = draft.get(Attempt, fact.task_id, fact.attempt)
    if attempt is None or task.attempt != fact.attempt or attempt.state not in OPEN_ATTEMPTS:
        raise Refuse("the attempt is not under way")
    return _given_back(draft, entry, task, attempt, "lost", fact.reason or "the lease is over")


def cancel(draft: Draft, entry: Entry, fact: facts.Cancel) -> Touched:
    """Ends an open task. Of an unknown one it is remembered for a while."""
    task = draft.get(Task, fact.task_id)
    if task is None:
        draft.put(Cancel(fact.task_id, entry.stamp_ms, fact.by, fact.signer, fact.reason))
        return ()
    if fact.signer and fact.signer != task.submitter:
        raise Refuse("only the submitter, its vouching member or a person with the token cancels")
    if task.finished_at is not None:
        raise Refuse(f"ended: the task is {task.state}")
    attempt = draft.get(Attempt, fact.task_id, task.attempt)
    if attempt is not None and attempt.state in OPEN_ATTEMPTS:
        draft.put(changed(attempt, state="cancelled", reason=fact.reason, finished_at=entry.stamp_ms))
    # announced, claimed, running -> cancelled
    _end(draft, entry, task, "cancelled", fact.reason or f"cancelled by {fact.by or 'its submitter'}")
    return (fact.task_id,)


def retry(draft: Draft, entry: Entry, fact: facts.Retry) -> Touched:
    """By hand: a task that ended without success waits again, its lost attempts forgiven."""
    task = _task(draft, fact.task_id)
    if task.finished_at is None:
        raise Refuse(f"open: the task is {task.state}")
    if task.state == "completed":
        raise Refuse("ended: the task is completed")
    if (why := _failed_dependency(draft, task)) is not None:
        raise Refuse(f"the task {why}; try that one again first")
    # Who tries it again answers for it: it no longer counts into the strangers' share.
    bounds.begin(draft, task.submitted_by, stranger=False)
    # What comes of it from now on is kept.
    draft.drop(Removed, fact.task_id)
    # failed, cancelled, expired -> announced
    task = changed(_waiting(task), finished_at=None, lost=0, decision=None, start_by=None)
    task = changed(task, stranger=False, unresponsive=0)
    _step(draft, entry, task, "announced", f"tried again by {fact.by}" if fact.by else "tried again by hand")
    return (fact.task_id,)


def remove(draft: Draft, entry: Entry, fact: facts.Remove) -> Touched:
    """By hand: what a task that has ended left on the agents' disks goes. Its result and records stay."""
    task = _task(draft, fact.task_id)
    if task.finished_at is None:
        raise Refuse(f"open: the task is {task.state}")
    if draft.get(Removed, fact.task_id) is None:
        draft.put(Removed(fact.task_id, entry.stamp_ms, fact.by))
    return (fact.task_id,)


def expire(draft: Draft, entry: Entry, fact: facts.Expire) -> Touched:
    """A task that did not begin by `start_by`, or a stranger's that nobody took."""
    task = _open_task(draft, fact.task_id)
    if task.agent is not None:
        raise Refuse("the task does not wait")
    until = begins_until(task)
    if until is None or entry.stamp_ms < until:
        raise Refuse("the task may still begin")
    late = "not begun in time" if until == task.start_by else "no member took it within an hour"
    # announced -> expired
    _end(draft, entry, task, "expired", fact.reason or late)
    return (fact.task_id,)


def dependency_failed(draft: Draft, entry: Entry, fact: facts.DependencyFailed) -> Touched:
    """A task that waits for one which failed, was cancelled or expired can never begin. Those that wait for
    it in turn are each an entry of their own, so that no entry costs more than one task.
    """
    task = _open_task(draft, fact.task_id)
    if task.agent is not None:
        raise Refuse("the task does not wait")
    why = _failed_dependency(draft, task)
    if why is None:
        raise Refuse("no task that it depends on has ended without success")
    # announced -> failed
    _end(draft, entry, task, "failed", why)
    return (fact.task_id,)


def waiting(draft: Draft, entry: Entry, fact: facts.Waiting) -> Touched:
    """Why tasks wait. Not a step of their story: only the reason changes."""
    touched = []
    for item in fact.tasks:
        task = draft.get(Task, item.task_id)
        waits = task is not None and task.finished_at is None and task.agent is None
        if task is not None and waits and task.reason != item.reason:
            draft.put(changed(task, reason=item.reason))
            touched.append(item.task_id)
    return tuple(touched)


def decision(draft: Draft, entry: Entry, fact: facts.DecisionPublished) -> Touched:
    """A record was published; about an attempt only its executor publishes one, about a vote the leader."""
    if draft.get(Decision, fact.hash) is not None:
        raise Refuse("known: that record is listed")
    touched: Touched = ()
    if fact.kind == "vote":
        conclude(draft, entry, fact)
    elif fact.task_id is not None and fact.attempt is not None:
        attempt = draft.get(Attempt, fact.task_id, fact.attempt)
        task = draft.get(Task, fact.task_id)
        if attempt is None or task is None:
            raise Refuse("no such attempt")
        if attempt.agent != entry.author:
            raise Refuse("only the attempt's executor reports on it")
        if fact.kind == "task_result":
            record_once(draft, fact.task_id, fact.attempt, fact.hash)
            if task.attempt == fact.attempt:
                draft.put(changed(task, decision=fact.address or None))
        touched = (fact.task_id,)
    draft.put(
        Decision(
            fact.hash,
            fact.address,
            fact.kind,
            fact.task_id,
            fact.attempt,
            entry.author,
            entry.index,
            entry.stamp_ms,
        )
    )
    add_decision(draft, entry, fact)
    return touched


def _given_back(draft: Draft, entry: Entry, task: Task, attempt: Attempt, state: str, reason: str) -> Touched:
    began = attempt.state != "awarded"
    lost = task.lost + (1 if began else 0)
    attempt = changed(attempt, state=state, reason=reason, finished_at=entry.stamp_ms)
    if lost < task.max_attempts and task.unresponsive < UNRESPONSIVE_MAX:
        draft.put(attempt)
        # announced (awarded), claimed, running -> announced
        _step(draft, entry, changed(_waiting(task), lost=lost), "announced", reason)
        return (task.task_id,)
    why = f"given up after {lost} lost attempts: {reason}"
    if task.unresponsive >= UNRESPONSIVE_MAX:
        why = f"given up: the executor stopped answering in {task.unresponsive} attempts: {reason}"
    ended = facts.Result(
        task_id=task.task_id,
        attempt=attempt.attempt,
        outcome="failed",
        reason=why[: facts.REASON_MAX_CHARS],
        summary=why,
        ended_by="lost",
    )
    draft.put(changed(attempt, result=result_body(ended)))
    # claimed, running -> failed
    _end(draft, entry, changed(task, lost=lost), "failed", why)
    return (task.task_id,)


def begins_until(task: Task) -> int | None:
    """When a task that still waits expires, in milliseconds since 1970; None when it may wait for ever."""
    until = task.start_by
    # A claimed attempt that was lost shows that members take it.
    if task.stranger and task.lost == 0:
        own = task.created_at + bounds.STRANGER_WAIT_MS
        until = own if until is None else min(until, own)
    return until


def ended_without_success(task: Task | None) -> bool:
    """Whether nothing that depends on the task can begin, unless it is tried again."""
    return task is not None and task.finished_at is not None and task.state in _ENDED_HOW


def _failed_dependency(draft: Draft, task: Task) -> str | None:
    """Which dependency ended without success, and why, to be said of the task; None when none has."""
    body = draft.get(Body, task.task_id)
    for other in (body.task.get("depends_on") or ()) if body is not None else ():
        dependency = draft.get(Task, other)
        if dependency is not None and ended_without_success(dependency):
            reason = dependency.reason
            if len(reason) > DEPENDENCY_REASON_MAX_CHARS:
                reason = f"{reason[:DEPENDENCY_REASON_MAX_CHARS]}…"
            how = f"depends on task {other}, which {_ENDED_HOW[dependency.state]}"
            return f"{how}: {reason}" if reason else how
    return None


def result_body(fact: facts.Result) -> dict[str, Any]:
    """A result as the table keeps it."""
    body = fact.model_dump(mode="json", exclude={"task_id", "attempt"})
    # As results were kept before they had these.
    for name in ("left_out", "artifacts_blob"):
        if not body[name]:
            del body[name]
    for artifact in body["artifacts"]:
        if artifact["mode"] is None:
            del artifact["mode"]
    return body


def _waiting(task: Task) -> Task:
    return changed(task, agent=None, claimed_at=None, started_at=None, pulling_s=None)


def _end(draft: Draft, entry: Entry, task: Task, state: str, reason: str) -> None:
    bounds.end(draft, task.submitted_by, stranger=task.stranger)
    _step(draft, entry, changed(task, finished_at=entry.stamp_ms), state, reason)


def _step(draft: Draft, entry: Entry, task: Task, state: str, reason: str) -> Task:
    draft.put(Change(task.task_id, task.changes, task.attempt, state, entry.stamp_ms, reason))
    task = changed(task, state=state, reason=reason, changes=task.changes + 1)
    draft.put(task)
    return task


def _task(draft: Draft, task_id: str) -> Task:
    task = draft.get(Task, task_id)
    if task is None:
        raise Refuse("unknown: no such task")
    return task


def _is_goal(draft: Draft, task_id: str) -> bool:
    body = draft.get(Body, task_id)
    return body is not None and not body.task.get("commands")


def _open_task(draft: Draft, task_id: str) -> Task:
    task = _task(draft, task_id)
    if task.finished_at is not None:
        raise Refuse(f"ended: the task is {task.state}")
    return task


def _current(
    draft: Draft, entry: Entry, task_id: str, number: int, states: tuple[str, ...]
) -> tuple[Task, Attempt]:
    """The open task and its newest attempt, if the author is its executor and it is in one of `states`."""
    task = _task(draft, task_id)
    attempt = draft.get(Attempt, task_id, number)
    if attempt is None:
        raise Refuse("no such attempt")
    if attempt.agent != entry.author:
        raise Refuse("only the attempt's executor reports on it")
    if task.finished_at is not None:
        raise Refuse(f"ended: the task is {task.state}")
    if task.attempt != number or attempt.state not in states:
        raise Refuse(
            f"the attempt is {attempt.state}" + (", and there is a newer" if task.attempt != number else "")
        )
    return task, attempt


def _agent_id(draft: Draft, peer: str) -> str:
    member = draft.get(Member, peer)
    return member.agent_id if member is not None and member.agent_id else peer


RULES: dict[str, Callable[[Draft, Entry, Any], Touched]] = {
    "submit": submit,
    "award": award,
    "decline": decline,
    "claim": claim,
    "started": started,
    "result": result,
    "release": release,
    "reoffer": reoffer,
    "cancel": cancel,
    "retry": retry,
    "remove": remove,
    "expire": expire,
    "dependency_failed": dependency_failed,
    "waiting": waiting,
    "decision": decision,
    "goal": goal,
    "goal_result": goal_result,
    "give_back": give_back_goal,
}
