"""The rules for versions at UCXL addresses, and their form of an address against the parser."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from table_mesh import T1, A, B, C, Log

from chorus.table.records import Address, Decision, Version
from chorus.table.ucxl import place_of

HERE = "ucxl://b:developer@p:t/*^/notes/a.md"
HASH = "a" * 64


def write(log: Log, author: str = B, address: str = HERE, **more: Any) -> Any:
    body = {"hash": HASH, "size": 3, "content_type": "text/plain", **more}
    return log.say(author, "version", address=address, **body)


def versions(log: Log, address: str = HERE) -> list[Version]:
    found = [log.view.get(Version, address, number) for number in range(1, 10)]
    return [version for version in found if version is not None]


def test_versions_are_numbered_by_rank_whoever_writes() -> None:
    log = Log()
    for author in (B, C, B):
        outcome = write(log, author)
        assert outcome.accepted
        assert outcome.versions
    write(log, C, "ucxl://b:developer@p:t/*^/notes/b.md")
    assert [(v.version, v.author, v.agent_id) for v in versions(log)] == [
        (1, B, "b"),
        (2, C, "c"),
        (3, B, "b"),
    ]
    head = log.view.get(Address, HERE)
    assert head is not None
    assert (head.latest, head.deleted, head.idx) == (3, False, 5)
    assert (head.agent, head.role, head.project, head.task, head.path) == (
        "b",
        "developer",
        "p",
        "t",
        "notes/a.md",
    )
    assert [(v.at_ms, v.idx) for v in versions(log)][-1] == (log.entries[6].stamp_ms, 7)


def test_the_authors_role_is_the_one_the_mesh_knows() -> None:
    log = Log()
    log.say(C, "member", agent_id="c", role="reviewer")
    write(log, C, role="admin", agent_id="somebody")
    assert (versions(log)[0].role, versions(log)[0].agent_id) == ("reviewer", "c")


@pytest.mark.parametrize(
    ("before", "flags", "reason"),
    [
        (0, {"create": True}, ""),
        (1, {"create": True}, "exists: version 1 is there"),
        (-1, {"create": True}, ""),
        (2, {"expect": 2}, ""),
        (2, {"expect": 1}, "conflict: the latest is version 2, not 1"),
        (0, {"expect": 0}, ""),
        (1, {"live": True}, ""),
        (0, {"live": True}, "missing: nothing was written there"),
        (-1, {"live": True}, "missing: deleted by version 2"),
        (1, {"tombstone": True}, ""),
        (0, {"tombstone": True}, "missing: nothing was written there"),
        (-1, {"tombstone": True}, "missing: deleted by version 2"),
        (0, {"hash": ""}, "the body does not fit: hash: missing"),
    ],
)
def test_what_the_writer_expects_is_checked(before: int, flags: dict[str, Any], reason: str) -> None:
    """`before`: so many versions are there; -1: one and its tombstone."""
    log = Log()
    for _ in range(abs(before)):
        write(log)
    if before < 0:
        write(log, tombstone=True)
    there = len(versions(log))
    outcome = write(log, **flags)
    assert (outcome.accepted, outcome.reason) == (not reason, reason)
    assert len(versions(log)) == there + outcome.accepted
    if outcome.accepted:
        assert versions(log)[-1].deleted == ("tombstone" in flags)


def test_a_tombstone_is_a_version_and_history_stays() -> None:
    log = Log()
    write(log)
    write(log, C, tombstone=True, hash=HASH)
    write(log, hash="b" * 64)
    assert [(v.hash[:1], v.deleted, v.size) for v in versions(log)] == [
        ("a", False, 3), ("", True, 0), ("b", False, 3)
    ]  # fmt: skip


@pytest.mark.parametrize(
    "address",
    [
        "ucxl://any:developer@p:t/*^/x", "ucxl://b:any@p:t/*^/x", "ucxl://b:d@any:t/*^/x", "ucxl://b:d@p:any/*^/x",
        "ucxl://b:d@p:t/*~/x", "ucxl://b:d@p:t/*~1/x", "ucxl://b:d@p:t/~~0/x", "ucxl://b:d@p:t/*^",
        "ucxl://b:d@p/*^/x", "ucxl://b:d@p:t/*^/../x", "ucxl://b:d@p:t/*^//x", "ucxl://b:d@p:t/*^/x y",
        "ucxl://b:d@p:t/*^/x\n", "", "x",
    ],
)  # fmt: skip
def test_nothing_can_be_written_elsewhere(address: str) -> None:
    log = Log()
    outcome = write(log, address=address)
    assert not outcome.accepted
    assert outcome.reason.startswith("address: ")


def test_only_members_write() -> None:
    assert not write(Log(), "peer-x").accepted


def test_a_decision_is_a_version_at_its_address() -> None:
    log = Log()
    log.submit()
    log.run()
    address = f"ucxl://c:agent@chorus:{T1}/*^/1/decision.json"
    said = {"task_id": T1, "attempt": 1, "kind": "task_result", "hash": HASH, "size": 900}
    assert log.say(C, "decision", address=address, **said).versions
    (version,) = versions(log, address)
    assert (version.kind, version.hash, version.stored, version.author) == ("decision", HASH, HASH, C)
    assert (version.size, version.content_type) == (900, "application/json")
    # The same record again is no second version, and one without a place is a decision all the same.
    assert not log.say(C, "decision", address=address, **said).accepted
    assert len(versions(log, address)) == 1
    other = {**said, "hash": "b" * 64, "kind": "hmmm_outcome"}
    assert log.say(C, "decision", address="ucxl://any", **other).accepted
    assert log.view.get(Decision, "b" * 64) is not None


def test_a_repeated_entry_is_one_version() -> None:
    log = Log()
    assert log.say(A, "version", id="once", address=HERE, hash=HASH).accepted
    assert log.say(A, "version", id="once", address=HERE, hash=HASH).repeated
    assert len(versions(log)) == 1


_WORD = st.one_of(
    st.sampled_from(["any", "a", "anya", "Any", "", "a b", "é", "x" * 129]), st.text(max_size=4)
)
_PATH = st.one_of(
    st.sampled_from(["", "a", "a/", "a/b.c", "..", "a/./b", "a//b", "/a", ".a"]), st.text(max_size=6)
)


@settings(deadline=None)
@given(_WORD, _WORD, _WORD, _WORD, st.sampled_from(["*^", "*^", "*^", "*~", "*~1", "~~1", "^^0", ""]), _PATH)
def test_the_rules_take_what_the_parser_takes(
    agent: str, role: str, project: str, task: str, temporal: str, path: str
) -> None:
    core = pytest.importorskip("chorus.core")
    text = f"ucxl://{agent}:{role}@{project}:{task}/{temporal}/{path}"
    try:
        parsed = core.Ucxl.parse(text)
    except core.UcxlError:
        assert place_of(text) is None
        return
    writable = not parsed.is_pattern and parsed.temporal == "*^"
    place = place_of(text)
    assert (place is not None) == writable
    if place is not None:
        assert tuple(place) == (parsed.agent, parsed.role, parsed.project, parsed.task, parsed.path)
