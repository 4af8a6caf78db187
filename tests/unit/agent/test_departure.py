"""An agent leaves its mesh: what it keeps, what it brings along, and that no kill changes the outcome."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from chorus.agent.departure import _entry, depart_if_asked
from chorus.agent.problems import StartupError
from chorus.agent.replacement import replace_if_lost
from chorus.config import MeshSettings, Paths
from chorus.core import CoreError
from chorus.process import membership
from chorus.process.departure import Departure, Kind, write_departure
from chorus.process.membership import DamagedVoteFile, UnreadableVoteFile, VoteFile, goes_on, why_lost
from chorus.table import export
from chorus.table.carried import Header, Line
from chorus.table.members import TABLE_VERSION
from chorus.table.records import Known
from chorus.table.store import TableStore
from chorus.wire.ids import new_id

MESH, PEER = "mesh-1", "peer-a"
OWN = MeshSettings(voters=3)
# The table has applied so many entries, and the log has some more that were never committed here.
APPLIED, LAST = 4, 7


ID = "01J0000000000000000000000{}"


def entry(index: int, type: str = "cancel", body: Any = None) -> dict[str, Any]:
    return {
        "index": index, "term": 1, "stamp": index, "type": type, "id": ID.format(index), "author": PEER,
        "seen": 0, "body": body or {}, "reason": "",
    }  # fmt: skip


LOG = [
    entry(1, "found", {"settings": {"voters": 7}, "agent": {"agent_id": "a"}}),
    *(entry(index) for index in range(2, LAST + 1)),
]


def read_log(path: Path, first: int, limit: int) -> list[bytes]:
    """In place of the core's: the vote file holds the log as JSON; two entries at a time."""
    content = path.read_text()
    if content == "damaged":
        error = CoreError("no log")
        error.code = "tampered"
        raise error
    log = json.loads(content)
    return [orjson.dumps(each) for each in log if each["index"] >= first][: min(limit, 2)]


def export_known(store: TableStore, *, origin: str, recovers: bool, own: str | None) -> Iterator[Line]:
    """In place of the table's: an entry for each one that was applied."""
    assert own == PEER
    for known in store.records(Known):
        yield Line(f"{origin}/{known.id}", "import_task", {"index": known.idx})


@pytest.fixture
def paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Paths:
    """A member's folder."""
    paths = Paths(tmp_path / "data", tmp_path / "run")
    (paths.core / "log").mkdir(parents=True)
    (paths.core / "log" / "1").write_text("audit")
    (paths.core / "peers.json").write_text("[]")
    for kept in (paths.identity_key, paths.executor_db, paths.curator_db):
        kept.write_text(PEER)
    for folder in (paths.blobs, paths.tasks):
        folder.mkdir()
        (folder / "one").write_text("1")
    paths.vote_file.write_text(json.dumps(LOG))
    store = TableStore(paths.table_db)
    apply(store, LOG[:APPLIED])
    store.close()

    def read(path: Path) -> VoteFile | None:
        content = path.read_text()
        if content == "damaged":
            raise DamagedVoteFile("not redb")
        if content == "in use":
            raise UnreadableVoteFile("in use")
        return VoteFile(MESH, PEER, LAST, "", "removed")

    monkeypatch.setattr(membership, "read_vote_file", read)
    monkeypatch.setattr(export, "export", export_known)
    return paths


def apply(store: TableStore, log: list[dict[str, Any]]) -> None:
    store.apply_batch([_entry(orjson.dumps(each), MESH) for each in log])


def ask(paths: Paths, kind: Kind, mesh: str = MESH) -> None:
    write_departure(paths.departure, Departure(kind=kind, mesh=mesh, to="mesh-2", why="because of a test"))


def depart(paths: Paths) -> str:
    return depart_if_asked(paths, lambda key: key.read_text(), OWN, read_log).said


def carried(paths: Paths) -> tuple[dict[str, Any], list[int]]:
    head, *lines = map(orjson.loads, paths.carried.read_bytes().splitlines())
    return head, [line["body"]["index"] for line in lines]


def check_left(paths: Paths) -> None:
    """Nothing of the old mesh is in the folder, and all that serves in the next one is."""
    here = {path.name for path in paths.data.iterdir()}
    assert here - {"carried.jsonl", "founding.json"} == {
        "core", "replaced", "identity.key", "executor.sqlite", "curator.sqlite", "blobs", "tasks",
    }  # fmt: skip
    assert {path.name for path in paths.core.iterdir()} == {"log", "peers.json"}
    assert why_lost(paths, lambda key: key.read_text()) == ""
    assert not goes_on(paths, lambda key: key.read_text())
    assert replace_if_lost(paths, lambda key: key.read_text()) == ""


@pytest.mark.parametrize("kind", ["removed", "rejoin", "recovered"])
def test_what_counts_in_the_old_mesh_alone_moves_aside(paths: Paths, kind: Kind) -> None:
    ask(paths, kind)
    said = depart(paths)
    assert "because of a test" in said
    check_left(paths)
    (kept,) = paths.replaced.iterdir()
    assert str(kept) in said
    assert json.loads((kept / "core" / "raft.redb").read_text()) == LOG
    assert (kept / "table.sqlite").exists()
    assert not paths.carried.exists()
    assert not paths.founding_instruction.exists()
    assert depart(paths) == ""


def test_a_lone_agent_brings_along_what_it_has_to_the_end_of_its_log(paths: Paths) -> None:
    ask(paths, "merge")
    assert f"brings {LAST} entries" in depart(paths)
    check_left(paths)
    assert carried(paths) == ({"origin": MESH, "recovers": False}, list(range(1, LAST + 1)))
    assert paths.carried.stat().st_mode & 0o777 == 0o600
    assert not paths.founding_instruction.exists()


def test_a_recovery_leaves_word_which_mesh_to_found(paths: Paths) -> None:
    ask(paths, "recover")
    depart(paths)
    check_left(paths)
    assert carried(paths) == ({"origin": MESH, "recovers": True}, list(range(1, LAST + 1)))
    instruction = json.loads(paths.founding_instruction.read_text())
    assert instruction["recovers"] == [MESH]
    # The mesh's settings and not this agent's own.
    assert instruction["settings"] == MeshSettings(voters=7).to_entry()


class Killed(BaseException):
    pass


def killed_before(monkeypatch: pytest.MonkeyPatch, number: int) -> Callable[[], int]:
    """Ends the process, as it were, before the step of that number that changes the disk; counts them."""
    count = 0

    def stepping(real: Callable[..., Any]) -> Callable[..., Any]:
        def step(*args: Any, **more: Any) -> Any:
            nonlocal count
            count += 1
            if count == number:
                raise Killed
            return real(*args, **more)

        return step

    for name in ("rename", "unlink", "fsync", "mkdir", "open"):
        monkeypatch.setattr(os, name, stepping(getattr(os, name)))
    return lambda: count


@pytest.mark.parametrize("kind", ["removed", "merge", "recover"])
def test_a_kill_between_any_two_steps_changes_nothing(
    paths: Paths, kind: Kind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pristine = tmp_path / "pristine"
    shutil.copytree(paths.data, pristine)
    for number in itertools.count(1):
        shutil.rmtree(paths.data)
        shutil.copytree(pristine, paths.data)
        ask(paths, kind)
        with monkeypatch.context() as patched:
            steps = killed_before(patched, number)
            with contextlib.suppress(Killed):
                depart(paths)
        depart(paths)
        check_left(paths)
        (kept,) = paths.replaced.iterdir()
        assert json.loads((kept / "core" / "raft.redb").read_text()) == LOG
        with sqlite3.connect(kept / "table.sqlite") as table:
            assert table.execute("SELECT value FROM meta WHERE name = 'applied'").fetchone()[0] >= APPLIED
        if kind != "removed":
            head, indexes = carried(paths)
            assert (head["recovers"], indexes) == (kind == "recover", list(range(1, LAST + 1)))
        assert paths.founding_instruction.exists() == (kind == "recover")
        if steps() < number:
            assert number > 10
            return


def test_a_damaged_table_is_made_anew_from_the_log(paths: Paths) -> None:
    paths.table_db.write_bytes(b"no SQLite file, and long enough to be none" * 100)
    ask(paths, "recover")
    assert f"brings {LAST} entries" in depart(paths)
    check_left(paths)
    assert carried(paths)[1] == list(range(1, LAST + 1))


def test_of_a_damaged_log_the_table_is_left(paths: Paths) -> None:
    paths.vote_file.write_text("damaged")
    ask(paths, "recover")
    assert f"cannot be read beyond entry {APPLIED}" in depart(paths)
    check_left(paths)
    assert carried(paths)[1] == list(range(1, APPLIED + 1))


def test_with_both_damaged_it_goes_on_without(paths: Paths) -> None:
    paths.vote_file.write_text("damaged")
    paths.table_db.write_bytes(b"no SQLite file, and long enough to be none" * 100)
    ask(paths, "recover")
    said = depart(paths)
    assert "does not come along" in said
    check_left(paths)
    assert not paths.carried.exists()
    assert json.loads(paths.founding_instruction.read_text()) == {
        "recovers": [MESH],
        "settings": OWN.to_entry(),
    }
    assert len(list(paths.replaced.glob("*/table.sqlite"))) >= 1
    assert len(list(paths.replaced.glob("*/core/raft.redb"))) == 1


def test_a_vote_file_that_cannot_be_read_now_changes_nothing(paths: Paths) -> None:
    paths.vote_file.write_text("in use")
    ask(paths, "removed")
    before = sorted(paths.data.rglob("*"))
    with pytest.raises(StartupError, match=r"raft\.redb: in use"):
        depart(paths)
    assert sorted(paths.data.rglob("*")) == before


def test_a_note_about_another_mesh_moves_nothing(paths: Paths) -> None:
    ask(paths, "removed", mesh="mesh-0")
    assert "stays in mesh mesh-1" in depart(paths)
    assert paths.vote_file.exists()
    assert not paths.departure.exists()


def test_a_note_that_says_nothing_is_put_aside(paths: Paths) -> None:
    paths.departure.write_text('{"kind": "holiday", "mesh": "mesh-1"}')
    assert "kind" in depart(paths)
    assert paths.vote_file.exists()
    assert not paths.departure.exists()
    assert paths.departure.with_suffix(".unreadable").exists()


def test_a_table_of_a_later_release_is_not_left_behind(paths: Paths) -> None:
    said = [
        ("leader", {"term": 2}),
        ("member", {"agent_id": "a", "table_version": TABLE_VERSION + 1}),
        *(("table_version", {"version": version}) for version in range(2, TABLE_VERSION + 2)),
    ]
    raised = [entry(LAST + place, *what) for place, what in enumerate(said, 1)]
    paths.vote_file.write_text(json.dumps([*LOG, *raised]))
    ask(paths, "merge")
    with pytest.raises(StartupError, match="install a newer one"):
        depart(paths)
    assert paths.departure.exists()
    assert paths.vote_file.exists()


def test_what_an_earlier_departure_brought_and_nobody_has_yet_comes_along_too(paths: Paths) -> None:
    def member(peer: str) -> Line:
        return Line(new_id(), "import_member", {"peer": peer, "index": peer})

    # The founder is in the table.
    lines = [
        member(PEER).encode(),
        member("peer-b").encode(),
        b"[\n",
        Line(new_id(), "import_part", {}).encode(),
    ]
    paths.carried.write_bytes(b"".join([Header("mesh-0", False).encode(), *lines]))
    ask(paths, "merge")
    depart(paths)
    head, indexes = carried(paths)
    assert head == {"origin": MESH, "recovers": False}
    assert indexes == [*range(1, LAST + 1), "peer-b"]


@pytest.mark.parametrize(("recovers", "stays"), [(True, False), (False, True)])
def test_what_a_recovery_was_to_bring_stays_with_its_mesh(paths: Paths, recovers: bool, stays: bool) -> None:
    paths.carried.write_bytes(orjson.dumps({"origin": "mesh-0", "recovers": recovers}) + b"\n")
    paths.founding_instruction.write_text("{}")
    ask(paths, "rejoin")
    depart(paths)
    assert paths.carried.exists() == stays
    assert not paths.founding_instruction.exists()


def test_the_note_is_private_and_whole(paths: Paths) -> None:
    ask(paths, "merge")
    assert paths.departure.stat().st_mode & 0o777 == 0o600
    assert json.loads(paths.departure.read_text()) == {
        "kind": "merge",
        "mesh": MESH,
        "to": "mesh-2",
        "why": "because of a test",
    }
