"""An identity that must vote no longer is replaced, whole, and what it had is kept."""

from __future__ import annotations

from pathlib import Path

import pytest

from chorus.agent.problems import StartupError
from chorus.agent.replacement import replace_if_lost
from chorus.config import Paths
from chorus.process import membership
from chorus.process.membership import DamagedVoteFile, UnreadableVoteFile, VoteFile, goes_on, why_lost
from chorus.table.entries import Entry
from chorus.table.store import TableStore

PEER = "peer-a"
ENTRIES = 5


def key_of(path: Path) -> str:
    return path.read_text()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Paths:
    """A member's folder; the vote file's text is what the core would say of it."""
    paths = Paths(tmp_path / "data", tmp_path / "run")
    paths.core.mkdir(parents=True)
    paths.identity_key.write_text(PEER)
    paths.vote_file.write_text(f"m {PEER} {ENTRIES} ")
    (paths.core / "log").mkdir()
    (paths.core / "peers.json").write_text("[]")
    store = TableStore(paths.table_db)
    body = {"mesh": "m", "settings": {}, "agent": {"agent_id": "a"}}
    entries = [Entry(1, 1, "found", "id", PEER, 0, body)]
    entries += [Entry(n, 1, "", "", "", 0, None) for n in range(2, ENTRIES + 1)]
    store.apply_batch(entries)
    store.close()

    def read(path: Path) -> VoteFile | None:
        if not path.exists() or not (text := path.read_text()):
            return None
        if text == "damaged":
            raise DamagedVoteFile("not redb")
        if text == "in use":
            raise UnreadableVoteFile("in use")
        if text == "removed":
            return VoteFile("m", PEER, ENTRIES, "", "it was away")
        mesh, owner, last, lost = text.split(" ", 3)
        return VoteFile(mesh, owner, int(last), lost)

    monkeypatch.setattr(membership, "read_vote_file", read)
    return paths


def test_a_folder_that_fits_together_stays(folder: Paths) -> None:
    assert replace_if_lost(folder, key_of) == ""
    assert goes_on(folder, key_of)
    assert not folder.replaced.exists()
    # The log may be ahead of the table, and a table that is gone is made anew.
    folder.vote_file.write_text(f"m {PEER} {ENTRIES + 9} ")
    assert replace_if_lost(folder, key_of) == ""
    folder.table_db.unlink()
    assert replace_if_lost(folder, key_of) == ""
    folder.table_db.write_text("no SQLite file, and long enough to be none" * 100)
    assert replace_if_lost(folder, key_of) == ""


def test_a_new_folder_has_nothing_to_lose(tmp_path: Path) -> None:
    paths = Paths(tmp_path / "data", tmp_path / "run")
    paths.data.mkdir()
    assert replace_if_lost(paths, key_of) == ""
    assert not goes_on(paths, key_of)


@pytest.mark.parametrize(
    ("vote", "why"),
    [
        (None, "is missing"),
        ("", "is missing"),
        ("damaged", "is damaged"),
        (f"m {PEER} {ENTRIES - 1} ", "older copy"),
        ("m peer-b 9 ", "not the key of peer-b"),
        (f"other {PEER} 9 ", "of mesh other"),
        (f"m {PEER} 9 said by the leader", "said by the leader"),
    ],
)
def test_votes_that_do_not_fit_cost_the_identity(folder: Paths, vote: str | None, why: str) -> None:
    folder.vote_file.unlink() if vote is None else folder.vote_file.write_text(vote)
    assert not goes_on(folder, key_of)
    said = replace_if_lost(folder, key_of)
    assert why in said
    (kept,) = folder.replaced.iterdir()
    assert str(kept) in said
    assert (kept / "identity.key").read_text() == PEER
    assert (kept / "table.sqlite").exists()
    assert sorted(path.name for path in folder.data.iterdir()) == ["core", "replaced"]
    assert [path.name for path in folder.core.iterdir()] == ["peers.json"]
    assert why_lost(folder, key_of) == ""


def test_a_removed_agent_keeps_its_identity_and_is_in_no_mesh(folder: Paths) -> None:
    folder.vote_file.write_text("removed")
    assert why_lost(folder, key_of) == ""
    assert not goes_on(folder, key_of)


def test_an_agent_that_is_to_leave_its_mesh_does_not_go_on_in_it(folder: Paths) -> None:
    assert goes_on(folder, key_of)
    folder.departure.write_text("{}")
    assert not goes_on(folder, key_of)


def test_a_missing_key_costs_the_votes_too(folder: Paths) -> None:
    folder.identity_key.unlink()
    assert "not the key of" in replace_if_lost(folder, key_of)
    assert not folder.vote_file.exists()


def test_what_a_process_asked_for_is_done_at_the_next_start_and_once(folder: Paths) -> None:
    folder.identity_lost.write_text("a leader says so\n")
    assert "a leader says so" in replace_if_lost(folder, key_of)
    assert not folder.identity_lost.exists()
    assert replace_if_lost(folder, key_of) == ""
    # As after a crash in the middle: the rest goes too, into a folder of its own.
    folder.identity_key.write_text(PEER)
    folder.identity_lost.write_text("")
    replace_if_lost(folder, key_of)
    assert not folder.identity_key.exists()
    assert len(list(folder.replaced.iterdir())) == 2


def test_a_vote_file_that_cannot_be_read_changes_nothing(folder: Paths) -> None:
    folder.vote_file.write_text("in use")
    with pytest.raises(StartupError) as raised:
        replace_if_lost(folder, key_of)
    assert "raft.redb" in raised.value.lines[0]
    assert folder.identity_key.exists()
