"""The rules of the table, one by one."""

from __future__ import annotations

import pytest
from table_mesh import STEP_MS, STRANGER, T1, T2, A, B, C, Log

from chorus.table import bounds, transitions
from chorus.table.entry_types import OF_THE_CORE, PROPOSABLE
from chorus.table.members import TABLE_VERSION
from chorus.table.records import Change, Counter, Decision, Member, Mesh, Removed, Superseded
from chorus.table.transitions import SEEN_MAX_AGE
from chorus.wire.ids import new_id


def test_the_way_of_a_task() -> None:
    log = Log()
    assert log.submit().accepted
    assert log.task().state == "announced"
    log.run()
    assert (log.task().state, log.task().agent, log.task().attempt) == ("running", C, 1)
    outcome = log.result()
    assert outcome.accepted
    assert outcome.tasks == (T1,)
    assert log.task().state == "completed"
    assert log.task().finished_at == log.stamp
    states = [change.state for change in log.view.records[Change].values() if isinstance(change, Change)]
    assert states == ["announced", "announced", "claimed", "running", "completed"]
    counter = log.view.get(Counter, bounds.MESH)
    assert counter is not None
    assert counter.value == 0
    assert log.view.get(Counter, bounds.submitter_counter("b")) is None


def test_the_submitter_is_who_the_member_vouches_for() -> None:
    log = Log()
    log.submit(submitted_by="alice")
    assert log.task().submitted_by == "alice"
    log.submit(T2, submitter=STRANGER, submitted_by="alice")
    assert (log.task(T2).submitter, log.task(T2).submitted_by) == (STRANGER, STRANGER)
    refused = log.say(B, "submit", task_id=new_id(), task={"title": "x"}, submitter=B, vouched_by=C)
    assert not refused.accepted


@pytest.mark.parametrize(
    "type",
    ["award", "reoffer", "expire", "dependency_failed", "presence", "voter", "join", "waiting", "removal"],
)
def test_only_the_newest_leader_leads(type: str) -> None:
    log = Log()
    log.raise_version()
    log.submit()
    bodies = {
        "award": {"task_id": T1, "attempt": 1, "agent": C},
        "reoffer": {"task_id": T1, "attempt": 1},
        "expire": {"task_id": T1},
        "dependency_failed": {"task_id": T1},
        "presence": {"peer": C, "present": False},
        "voter": {"peer": C, "voter": True},
        "removal": {"peer": C, "raft_id": 4},
        "join": {"peer": STRANGER},
        "waiting": {"tasks": [{"task_id": T1, "reason": "r"}]},
    }
    assert "leader" in log.say(B, type, **bodies[type]).reason
    assert log.say(B, "leader", term=2).accepted
    assert "leader" in log.say(A, type, **bodies[type]).reason
    assert "leader" not in log.say(B, type, **bodies[type]).reason


def test_an_older_term_does_not_lead() -> None:
    log = Log()
    assert log.say(B, "leader", term=3).accepted
    assert not log.say(C, "leader", term=2).accepted
    mesh = log.view.get(Mesh, "mesh")
    assert mesh is not None
    assert (mesh.leader, mesh.term) == (B, 3)


def test_strangers_say_nothing() -> None:
    log = Log()
    assert "member" in log.submit(author=STRANGER).reason


def test_an_award_only_when_the_task_waits_and_the_attempt_is_next() -> None:
    log = Log()
    log.submit()
    assert not log.say(A, "award", task_id=T1, attempt=2, agent=C).accepted
    assert not log.say(A, "award", task_id=T1, attempt=1, agent=STRANGER).accepted
    assert log.say(A, "award", task_id=T1, attempt=1, agent=C).accepted
    assert not log.say(A, "award", task_id=T1, attempt=2, agent=B).accepted
    assert not log.say(B, "claim", task_id=T1, attempt=1).accepted


def test_a_declined_attempt_does_not_count() -> None:
    log = Log()
    log.submit(max_attempts=1)
    log.say(A, "award", task_id=T1, attempt=1, agent=B)
    assert log.say(B, "decline", task_id=T1, attempt=1, reason="full").accepted
    assert "full" in log.task().reason
    assert not log.say(B, "claim", task_id=T1, attempt=1).accepted
    log.run(attempt=2)
    assert log.task().lost == 0


@pytest.mark.parametrize("type", ["release", "reoffer"])
def test_lost_attempts_up_to_max_attempts(type: str) -> None:
    log = Log()
    log.submit(max_attempts=2)
    log.run()
    assert log.say(C if type == "release" else A, type, task_id=T1, attempt=1, reason="gone").accepted
    assert (log.task().state, log.task().agent, log.task().started_at) == ("announced", None, None)
    log.run(attempt=2)
    assert log.say(C if type == "release" else A, type, task_id=T1, attempt=2, reason="gone").accepted
    assert log.task().state == "failed"
    ended = log.attempt(2).result
    assert ended is not None
    assert ended["ended_by"] == "lost"
    assert log.say(B, "retry", task_id=T1, by="alice").accepted
    assert (log.task().state, log.task().lost) == ("announced", 0)
    log.run(attempt=3)


def test_an_award_that_was_never_claimed_is_not_a_lost_attempt() -> None:
    log = Log()
    log.submit(max_attempts=1)
    log.say(A, "award", task_id=T1, attempt=1, agent=B)
    assert log.say(A, "reoffer", task_id=T1, attempt=1).accepted
    assert log.task().state == "announced"


def test_only_the_first_result_of_the_newest_attempt_counts() -> None:
    log = Log()
    log.submit()
    log.run(agent=B)
    assert not log.result(C).accepted
    log.say(A, "reoffer", task_id=T1, attempt=1)
    log.run(agent=C, attempt=2)
    late = log.result(B, attempt=1)
    assert late.reason.startswith("superseded")
    assert log.view.get(Superseded, T1, 1, B) is not None
    assert log.result(C, attempt=2, outcome="failed").accepted
    assert log.result(C, attempt=2).reason.startswith("superseded")
    assert log.task().state == "failed"


def test_a_result_after_the_lease_counts_until_another_has_the_task() -> None:
    log = Log()
    log.submit()
    log.run()
    log.say(A, "reoffer", task_id=T1, attempt=1)
    assert log.result().accepted
    assert (log.task().state, log.task().agent) == ("completed", C)


def test_a_released_attempt_has_no_result() -> None:
    log = Log()
    log.submit()
    log.run()
    log.say(C, "release", task_id=T1, attempt=1)
    assert log.result().reason.startswith("superseded")


def test_cancel_wins_unless_a_result_was_there() -> None:
    log = Log()
    log.submit()
    log.run()
    assert log.say(B, "cancel", task_id=T1, by="alice").accepted
    assert (log.task().state, log.attempt(1).state) == ("cancelled", "cancelled")
    assert log.result().reason.startswith("superseded")
    assert log.result(outcome="cancelled", ended_by="cancel").accepted
    assert log.result(outcome="cancelled", ended_by="cancel").reason.startswith("superseded")
    log.submit(T2)
    log.run(T2)
    log.result(task_id=T2)
    assert log.say(B, "cancel", task_id=T2, by="alice").reason.startswith("ended")


def test_a_cancel_heard_by_gossip_needs_the_submitter() -> None:
    log = Log()
    log.submit(submitter=STRANGER)
    assert not log.say(B, "cancel", task_id=T1, signer="peer-y").accepted
    assert log.say(B, "cancel", task_id=T1, signer=STRANGER).accepted


def test_a_cancel_before_its_task_is_remembered_for_an_hour() -> None:
    log = Log()
    assert log.say(B, "cancel", task_id=T1, by="alice").accepted
    log.submit()
    assert log.task().state == "cancelled"
    log.say(B, "cancel", task_id=T2, by="alice")
    log.stamp += bounds.CANCEL_KEPT_MS
    log.submit(T2)
    assert log.task(T2).state == "announced"


def test_expiry_is_an_entry_and_needs_the_time() -> None:
    log = Log()
    log.submit(start_by="1970-01-01T00:30:00Z")
    assert not log.say(A, "expire", task_id=T1).accepted
    log.stamp = 1_800_000 - STEP_MS
    assert log.say(A, "expire", task_id=T1).accepted
    assert log.task().state == "expired"


def test_an_entry_counts_once() -> None:
    log = Log()
    log.submit()
    first = log.say(A, "award", id="same", task_id=T1, attempt=1, agent=C)
    again = log.say(A, "award", id="same", task_id=T1, attempt=1, agent=C)
    assert first.accepted
    assert again.accepted
    assert again.repeated
    assert again.effects == ()
    refused = log.say(C, "claim", id="other", task_id=T2, attempt=1)
    assert log.say(C, "claim", id="other", task_id=T2, attempt=1).reason == refused.reason


def test_an_old_entry_is_nothing() -> None:
    log = Log()
    assert not log.say(B, "retry", seen=-SEEN_MAX_AGE - 1, task_id=T1).effects


def test_an_unknown_type_is_applied_as_nothing() -> None:
    log = Log()
    outcome = log.say(A, "news", id="n")
    assert (outcome.accepted, outcome.effects, outcome.beyond) == (False, (), None)
    assert outcome.reason.startswith("unknown")
    # Not even its id is remembered: what a later release makes of the type changes nothing here.
    assert log.say(B, "retry", id="n", task_id=T1).repeated is False


def test_a_type_counts_from_the_version_of_the_table_that_it_came_with(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    log = Log()
    monkeypatch.setattr(transitions, "SINCE", {"retry": 2})
    assert log.say(B, "retry", task_id=T1).reason.startswith("unknown: this version")
    log.raise_version()
    assert log.say(B, "retry", task_id=T1).reason == "unknown: no such task"


def test_the_tables_version_rises_once_all_members_know_the_next() -> None:
    log = Log()
    for peer in (A, B):
        assert log.say(peer, "member", agent_id="x", table_version=9).accepted
    assert "not every member" in log.say(A, "table_version", version=2).reason
    assert "leader" in log.say(B, "table_version", version=2).reason
    assert "next version" in log.say(A, "table_version", version=3).reason
    beyond = TABLE_VERSION + 1
    assert log.say(C, "member", agent_id="c", table_version=beyond).accepted
    for version in range(2, beyond):
        assert log.say(A, "table_version", version=version).accepted
    # A release that does not know the next stops there, and at nothing else.
    outcome = log.say(A, "table_version", version=beyond)
    assert (outcome.accepted, outcome.beyond, outcome.effects) == (False, beyond, ())


def test_no_member_can_stop_the_others_with_a_version() -> None:
    log = Log()
    assert log.say(B, "member", agent_id="b", table_version=2**31).accepted
    for author in (A, B, C):
        assert log.say(author, "table_version", version=2).beyond is None


def test_the_list_of_types_is_that_of_the_rules() -> None:
    assert transitions._FACTS.keys() == transitions._RULES.keys() == PROPOSABLE | OF_THE_CORE
    assert transitions._LEADER_ONLY < PROPOSABLE | OF_THE_CORE


@pytest.mark.parametrize("type", ["", "invalid"])
def test_empty_and_invalid_entries_are_nothing(type: str) -> None:
    assert not Log().say(A, type).effects


def test_bodies_are_checked() -> None:
    log = Log()
    assert "body" in log.say(A, "award", task_id="no id", attempt=1, agent=C).reason
    assert log.submit(title="").reason.startswith("invalid")


def test_the_caps_name_their_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "OPEN_MAX_PER_SUBMITTER", 2)
    monkeypatch.setattr(bounds, "OPEN_MAX_PER_MESH", 3)
    log = Log()
    assert log.submit(new_id(), submitted_by="alice").accepted
    assert log.submit(T1, submitted_by="alice").accepted
    assert log.submit(T2, submitted_by="alice").reason == "limit: 2 open tasks of alice"
    assert log.submit(new_id(), submitted_by="bob").accepted
    assert log.submit(T2, submitted_by="carol").reason == "limit: 3 open tasks in the mesh"
    log.say(B, "cancel", task_id=T1)
    assert log.submit(T2, submitted_by="alice").accepted


def test_waiting_reasons_change_nothing_else() -> None:
    log = Log()
    log.submit()
    before = log.task()
    assert log.say(A, "waiting", tasks=[{"task_id": T1, "reason": "nobody fits"}]).tasks == (T1,)
    assert log.task().reason == "nobody fits"
    assert log.task().changes == before.changes
    log.run()
    assert log.say(A, "waiting", tasks=[{"task_id": T1, "reason": "nobody fits"}]).tasks == ()


def test_members_speak_about_themselves() -> None:
    log = Log()
    log.say(B, "member", agent_id="bee", role="developer", max_tasks=7, accepting=True, images=["i"])
    member = log.view.get(Member, B)
    assert member is not None
    assert (member.agent_id, member.max_tasks, member.accepting, member.raft_id) == ("bee", 7, True, 3)
    assert log.say(A, "presence", peer=B, present=False).accepted
    assert not log.say(A, "presence", peer=B, present=False).accepted
    assert log.say(A, "voter", peer=B, voter=True).members


def test_decisions_are_listed_once_and_by_the_executor() -> None:
    log = Log()
    log.submit()
    log.run()
    body = {"task_id": T1, "attempt": 1, "hash": "0" * 64, "address": "ucxl://x", "kind": "task_result"}
    assert not log.say(B, "decision", **body).accepted
    assert log.say(C, "decision", **body).accepted
    assert not log.say(C, "decision", **body).accepted
    assert log.task().decision == "ucxl://x"
    assert log.view.get(Decision, "0" * 64) is not None


def test_strangers_have_a_share_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "OPEN_MAX_PER_STRANGER", 2)
    monkeypatch.setattr(bounds, "OPEN_MAX_OF_STRANGERS", 3)
    monkeypatch.setattr(bounds, "OPEN_MAX_PER_MESH", 2)
    log = Log()
    ids = [new_id() for _ in range(4)]
    assert log.submit(ids[0], submitter="peer-x").accepted
    assert log.submit(ids[1], submitter="peer-x").accepted
    assert log.submit(T1, submitter="peer-x").reason == "limit: 2 open tasks of peer-x, who is no member"
    assert log.submit(ids[2], submitter="peer-y").accepted
    assert log.submit(T1, submitter="peer-z").reason == "limit: 3 open tasks of all who are no members"
    # Members have all of their own room left, and leave the strangers theirs.
    assert log.submit(T1).accepted
    assert log.submit(T2, submitted_by="peer-x").accepted
    assert log.submit(new_id()).reason == "limit: 2 open tasks in the mesh"
    log.say(B, "cancel", task_id=ids[0], signer="peer-x")
    assert log.submit(ids[3], submitter="peer-z").accepted


def test_a_strangers_task_ends_in_the_share_that_it_began_in() -> None:
    log = Log()
    log.submit(submitter=STRANGER)
    # It joins meanwhile.
    assert log.say(A, "join", peer=STRANGER).accepted
    log.say(B, "cancel", task_id=T1)
    names = {counter.name for counter in log.view.records[Counter].values() if isinstance(counter, Counter)}
    assert names == {"members:1"}


def test_a_strangers_task_that_nobody_took_within_an_hour_is_gone() -> None:
    log = Log()
    log.submit(submitter=STRANGER)
    log.submit(T2)
    log.stamp += bounds.STRANGER_WAIT_MS - 3 * STEP_MS
    assert log.say(A, "expire", task_id=T1).reason == "the task may still begin"
    # An award that is declined is not a beginning.
    log.say(A, "award", task_id=T1, attempt=1, agent=C)
    assert log.say(A, "expire", task_id=T1).reason == "the task does not wait"
    log.say(C, "decline", task_id=T1, attempt=1)
    assert log.say(A, "expire", task_id=T1).accepted
    assert (log.task().state, log.task().reason) == ("expired", "no member took it within an hour")
    assert not log.say(A, "expire", task_id=T2).accepted
    # Who tries it again by hand answers for it, and it may wait.
    assert log.say(B, "retry", task_id=T1, by="alice").accepted
    assert not log.say(A, "expire", task_id=T1).accepted
    assert log.view.get(Counter, bounds.STRANGERS) is None


def test_a_strangers_task_that_was_begun_may_wait_again() -> None:
    log = Log()
    log.submit(submitter=STRANGER)
    log.run()
    log.say(C, "release", task_id=T1, attempt=1)
    log.stamp += 2 * bounds.STRANGER_WAIT_MS
    assert log.say(A, "expire", task_id=T1).reason == "the task may still begin"


def test_a_task_waits_only_for_tasks_that_are_there() -> None:
    log = Log()
    for author, submitter in ((B, B), (B, STRANGER)):
        refused = log.submit(author=author, submitter=submitter, depends_on=[T2])
        assert refused.reason == f"invalid: task.depends_on: there is no task {T2}"
    assert "depends_on" in log.submit(depends_on=[T1]).reason
    assert log.submit(T2).accepted
    assert log.submit(depends_on=[T2]).accepted


def ended_badly(log: Log, how: str) -> None:
    """T1 ends in one of the ways that are no success."""
    if how == "failed":
        log.run()
        assert log.result(outcome="failed", reason="exit code 3").accepted
    elif how == "cancelled":
        assert log.say(B, "cancel", task_id=T1, reason="not needed").accepted
    else:
        log.stamp += 10_000_000
        assert log.say(A, "expire", task_id=T1).accepted


@pytest.mark.parametrize(
    ("how", "why"),
    [
        ("failed", "failed: exit code 3"),
        ("cancelled", "was cancelled: not needed"),
        ("expired", "expired: not begun in time"),
    ],
)
def test_a_task_fails_with_what_it_depends_on(how: str, why: str) -> None:
    log = Log()
    log.submit(start_by="1970-01-01T01:00:00Z")
    assert log.submit(T2, depends_on=[T1]).accepted
    early = log.say(A, "dependency_failed", task_id=T2).reason
    assert early == "no task that it depends on has ended without success"
    ended_badly(log, how)
    assert log.say(A, "dependency_failed", task_id=T2).accepted
    ended = log.task(T2)
    assert (ended.state, ended.reason) == ("failed", f"depends on task {T1}, which {why}")
    assert (ended.finished_at, ended.attempt, ended.agent) == (log.stamp, 0, None)
    assert log.say(A, "dependency_failed", task_id=T2).reason == "ended: the task is failed"
    # It counts no longer as open.
    counter = log.view.get(Counter, bounds.MESH)
    assert counter is not None
    assert counter.value == 0
    # By hand, in the order of what depends on what.
    refused = log.say(B, "retry", task_id=T2).reason
    assert refused == f"the task depends on task {T1}, which {why}; try that one again first"
    assert log.say(B, "retry", task_id=T1).accepted
    assert log.say(B, "retry", task_id=T2).accepted


def test_a_task_that_runs_is_not_ended_for_a_dependency() -> None:
    log = Log()
    log.submit()
    log.submit(T2, depends_on=[T1])
    log.run()
    assert log.result().accepted
    assert not log.say(A, "dependency_failed", task_id=T2).accepted
    log.run(T2)
    assert log.say(A, "dependency_failed", task_id=T2).reason == "the task does not wait"


def test_the_reasons_of_a_chain_stay_short() -> None:
    log = Log()
    ids = [new_id(0, bytes([9, n]) * 5) for n in range(40)]
    for n, task_id in enumerate(ids):
        assert log.submit(task_id, depends_on=ids[n - 1 : n]).accepted
    log.say(B, "cancel", task_id=ids[0], reason="x" * 2000)
    for task_id in ids[1:]:
        assert log.say(A, "dependency_failed", task_id=task_id).accepted
    assert all(len(log.task(task_id).reason) < 400 for task_id in ids[1:])


def test_a_task_that_silences_its_executors_is_not_offered_a_third_time() -> None:
    log = Log()
    log.submit(max_attempts=100)
    log.run()
    assert log.say(C, "release", task_id=T1, attempt=1, reason="no answer", cause="unresponsive").accepted
    assert log.task().state == "announced"
    log.run(attempt=2)
    # What ends otherwise does not count.
    assert log.say(C, "release", task_id=T1, attempt=2, reason="gone").accepted
    log.run(agent=B, attempt=3)
    assert log.say(B, "release", task_id=T1, attempt=3, reason="no answer", cause="unresponsive").accepted
    assert log.task().state == "failed"
    assert log.task().reason == "given up: the executor stopped answering in 2 attempts: no answer"
    ended = log.attempt(3).result
    assert ended is not None
    assert (ended["outcome"], ended["ended_by"]) == ("failed", "lost")
    assert log.say(B, "retry", task_id=T1).accepted
    log.run(attempt=4)
    log.say(C, "release", task_id=T1, attempt=4, cause="unresponsive")
    assert log.task().state == "announced"
    assert "cause" in log.say(C, "release", task_id=T1, attempt=4, cause="bored").reason


def test_what_an_ended_task_left_is_removed_by_hand() -> None:
    log = Log()
    log.submit()
    assert log.say(B, "remove", task_id=T2).reason == "unknown: no such task"
    assert log.say(B, "remove", task_id=T1).reason == "open: the task is announced"
    log.run()
    assert log.result().accepted
    assert log.say(B, "remove", task_id=T1, by="alice").accepted
    first = log.view.get(Removed, T1)
    assert first is not None
    assert first.by == "alice"
    # Once more changes nothing; the result stays.
    assert log.say(A, "remove", task_id=T1, by="bob").accepted
    assert log.view.get(Removed, T1) == first
    assert log.attempt(1).result is not None


def test_a_task_that_is_tried_again_keeps_what_comes_of_it() -> None:
    log = Log()
    log.submit()
    log.run()
    log.result(outcome="failed")
    assert log.say(B, "remove", task_id=T1).accepted
    assert log.say(B, "retry", task_id=T1).accepted
    assert log.view.get(Removed, T1) is None


COMMAND = {"command": "true", "exit_code": 0, "duration_s": 0.1}
ARTIFACT = {"path": "out/report.xml", "size": 12, "sha256": "0" * 64}
UNFIT_RESULTS: list[tuple[str, dict[str, object]]] = [
    ("artifacts", {"artifacts": [{}]}),
    ("artifacts", {"artifacts": [{**ARTIFACT, "path": "a\nb"}]}),
    ("artifacts", {"artifacts": [{**ARTIFACT, "path": "a\x9b2J"}]}),
    ("artifacts", {"artifacts": [{**ARTIFACT, "path": ""}]}),
    ("artifacts", {"artifacts": [{**ARTIFACT, "size": -1}]}),
    ("artifacts", {"artifacts": [{**ARTIFACT, "size": "12"}]}),
    ("artifacts", {"artifacts": [{**ARTIFACT, "sha256": "A" * 64}]}),
    ("artifacts", {"artifacts": [ARTIFACT] * 1001}),
    ("artifacts", {"artifacts": {"0": ARTIFACT}}),
    ("artifacts", {"artifacts": [{**ARTIFACT, "mode": "4755"}]}),
    ("artifacts", {"artifacts": [{**ARTIFACT, "mode": 0o644}]}),
    ("left_out", {"left_out": [{"path": "a\x1b[2J", "reason": "r"}]}),
    ("left_out", {"left_out": [{"path": "a"}]}),
    ("left_out", {"left_out": [{"path": "a", "reason": "r"}] * 101}),
    ("artifacts_blob", {"artifacts_blob": {"sha256": "0" * 63, "size": 1, "count": 1}}),
    ("artifacts_blob", {"artifacts_blob": {"sha256": "0" * 64, "size": 2**40, "count": 1}}),
    ("commands", {"commands": [{}]}),
    ("commands", {"commands": [{**COMMAND, "exit_code": "0"}]}),
    ("commands", {"commands": [{**COMMAND, "duration_s": -1}]}),
    ("commands", {"commands": ["true"]}),
    ("usage", {"usage": {"cpu_s": "1"}}),
    ("usage", {"usage": {"CPU\n": 1}}),
    ("usage", {"usage": {"cpu_s": True}}),
    ("usage", {"usage": []}),
    ("timings", {"timings": {"running_s": -1}}),
    ("exit_code", {"exit_code": 2**40}),
    ("exit_code", {"exit_code": True}),
    ("summary", {"summary": 5}),
    ("decision", {"decision": "x" * 1025}),
    ("context", {"context": [1]}),
    ("ended_by", {"ended_by": "magic"}),
]


@pytest.mark.parametrize(("field", "more"), UNFIT_RESULTS, ids=lambda value: str(value)[:40])
def test_a_result_has_types_to_its_last_field(field: str, more: dict[str, object]) -> None:
    log = Log()
    log.submit()
    log.run()
    body = {"task_id": T1, "attempt": 1, "outcome": "completed", "exit_code": 0, **more}
    assert log.say(C, "result", **body).reason == f"the body does not fit: {field}: not a value of this field"
    # The attempt goes on, and its executor may say its result in another form.
    assert log.task().state == "running"
    assert log.result(commands=[COMMAND], artifacts=[ARTIFACT], usage={"cpu_s": 1, "memory": 0.5}).accepted
    kept = log.attempt(1).result
    assert kept is not None
    assert (kept["artifacts"], kept["usage"]) == ([ARTIFACT], {"cpu_s": 1, "memory": 0.5})
    # As results were kept before artifacts had modes and others could be left out.
    assert not {"left_out", "artifacts_blob"} & kept.keys()


def test_a_result_names_what_was_left_out_and_the_blob_of_its_list() -> None:
    log = Log()
    log.submit()
    log.run()
    left_out = [{"path": "*.xml", "reason": "no file fits this pattern"}]
    blob = {"sha256": "1" * 64, "size": 100, "count": 3}
    mode = {**ARTIFACT, "mode": "0755"}
    assert log.result(artifacts=[mode], left_out=left_out, artifacts_blob=blob).accepted
    kept = log.attempt(1).result
    assert kept is not None
    assert (kept["artifacts"], kept["left_out"], kept["artifacts_blob"]) == ([mode], left_out, blob)
