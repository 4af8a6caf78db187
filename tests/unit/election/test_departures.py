"""Agents that leave their mesh, and meshes that lost a majority of their voters, over the fake hub."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chorus.config import MeshSettings
from chorus.election import departures
from chorus.election.departing import Patience
from chorus.election.departures import Departures
from chorus.election.peers import Peers
from chorus.election.proof import Handshake
from chorus.election.recovering import Log, longest, unreached
from chorus.hub import (
    HubError,
    HubInvalid,
    HubNotFound,
    HubNotPermitted,
    HubRefused,
    HubTampered,
    HubUnavailable,
    Member,
    Request,
)
from chorus.process.departure import Departure, read_departure, write_departure
from chorus.table.reader import TableReader
from chorus.table.rows import MemberRow, MeshRow
from chorus.testing.fake_hub import FakeMesh

from .world import KEY, World, foreign, process, world

FAST = MeshSettings(election_timeout_ms=100, heartbeat_ms=20, absence_ms=1000)


class Table:
    """What the table says, as the test wants it; no coordinator makes one here."""

    def __init__(self, w: World, monkeypatch: pytest.MonkeyPatch) -> None:
        self._w = w
        self.applied, self.ever, self.version = 10**6, 1, 2
        monkeypatch.setattr(TableReader, "applied", lambda _: self.applied)
        monkeypatch.setattr(TableReader, "ever_listed", lambda _: self.ever)
        monkeypatch.setattr(TableReader, "mesh", lambda _: self.mesh())
        monkeypatch.setattr(TableReader, "members", lambda _: self.members())
        monkeypatch.setattr(TableReader, "member", lambda _, peer: self.member(peer))

    def mesh(self) -> MeshRow | None:
        mesh = self._w.mesh.mesh
        return None if mesh is None else MeshRow(mesh, FAST, None, None, 1, 0, self.version)

    def members(self) -> list[MemberRow]:
        return [
            MemberRow(
                agent.peer_id, agent.raft_id, agent.agent_id, "", (), "", 1, (), (), True, "", "0.5.0",
                agent.voter, True, 0, 0,
            )
            for agent in self._w.mesh.agents.values()
            if agent.raft_id
        ]  # fmt: skip

    def member(self, peer: str) -> MemberRow | None:
        return next((member for member in self.members() if member.peer == peer), None)


@pytest.fixture
async def w(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    for name in "abcd":
        (tmp_path / name).mkdir()
    async with world(tmp_path) as made:
        made.table = Table(made, monkeypatch)  # type: ignore[attr-defined]
        yield made


def note(w: World, name: str) -> Departure | None:
    return read_departure(w.folder / name / "departure.json")


async def left(w: World, name: str) -> Departure:
    await w.until(lambda: w.elections[name].departures.under_way is not None, "leaves")
    found = note(w, name)
    assert found is not None
    return found


def leaderless(w: World, *, voters: tuple[str, ...] = ("b", "c"), me: str = "a") -> None:
    """A mesh of three, fast to notice, whose agent `me` alone is here."""
    w.mesh.found(voters[0], FAST, *voters[1:])
    agent = w.mesh.agent(me)
    w.mesh.append("join", agent.peer_id, {"peer": agent.peer_id, "agent_id": me})
    agent.raft_id, agent.voter = len(w.mesh.entries), me not in "d"
    for voter in voters:
        w.mesh.cut(me, voter)
    w.mesh.elect(None)


# Meshes that began apart


async def test_a_lone_mesh_joins_a_larger_one_and_admits_nobody_any_more(w: World) -> None:
    election = w.start("a")
    await w.until(lambda: w.members == ["a"], "founded")
    await foreign(w, "x", "mesh-other")
    departure = await left(w, "a")
    assert (departure.kind, departure.mesh, departure.to) == ("merge", w.mesh.mesh, "mesh-other")
    assert "leaving mesh" in (await w.call("a", "health"))["detail"]
    assert not (await w.call("a", "health"))["ok"]
    said = (await w.mesh.hub("s", "x").request("peer-a", "mesh", "info")).head
    assert (said["accepting"], said["lone"]) == (False, True)
    newcomer = w.start("b")
    await w.until(lambda: "takes nobody in" in newcomer.search.why, "waits")
    assert election.departures.under_way == departure


@pytest.mark.parametrize(("other", "leaves"), [("0", True), ("z", False)])
async def test_of_two_lone_meshes_the_younger_goes(w: World, other: str, leaves: bool) -> None:
    election = w.start("a")
    await w.until(lambda: w.members == ["a"], "founded")
    await foreign(w, "x", other, lone=True)
    await w.until(lambda: bool(election.neighbours.others), "met")
    if leaves:
        assert (await left(w, "a")).to == other
    else:
        await election.departures.look()
        assert note(w, "a") is None


async def test_a_mesh_that_had_another_member_does_not_join_by_itself(w: World) -> None:
    w.table.ever = 2  # type: ignore[attr-defined]
    election = w.start("a")
    await w.until(lambda: w.members == ["a"], "founded")
    await foreign(w, "x", "mesh-other")
    await w.until(lambda: bool(election.neighbours.others), "met")
    await election.departures.look()
    assert note(w, "a") is None
    assert "chorusctl members rejoin" in (await w.call("a", "health"))["warnings"][0]
    # A person decides.
    said = await w.call("a", "rejoin")
    assert (said["kind"], said["to"]) == ("rejoin", "mesh-other")
    assert note(w, "a") is not None
    with pytest.raises(HubRefused, match="already"):
        await w.call("a", "rejoin")


async def test_there_is_nothing_to_rejoin_alone(w: World) -> None:
    w.start("a")
    await w.until(lambda: w.members == ["a"], "founded")
    with pytest.raises(HubRefused, match="no connected peer"):
        await w.call("a", "rejoin")


async def test_who_says_that_it_has_a_mesh_without_the_secret_moves_nobody(w: World) -> None:
    election = w.start("a")
    await w.until(lambda: w.members == ["a"], "founded")
    await foreign(w, "x", "mesh-other", key=b"another key")
    await election.departures.look()
    assert election.neighbours.others == []
    assert note(w, "a") is None


async def test_a_member_that_comes_just_before_keeps_the_mesh(w: World) -> None:
    """The decision is looked at again when nobody can join any more."""
    election = w.start("a")
    await w.until(lambda: w.members == ["a"], "founded")
    async with election.admission.changing:
        await foreign(w, "x", "mesh-other")
        await w.until(lambda: bool(election.neighbours.others), "met, and waits to leave")
        w.table.ever = 2  # type: ignore[attr-defined]
    await election.departures.look()
    assert note(w, "a") is None


# Removed


async def test_an_agent_whose_own_log_says_that_it_was_removed_leaves(w: World) -> None:
    w.start("a")
    await w.until(lambda: w.members == ["a"], "founded")
    w.start("b")
    await w.until(lambda: w.members == ["a", "b"], "joined")
    with pytest.raises(HubRefused, match="present: stop it first"):
        await w.call("b", "remove", id="b")
    assert await w.call("b", "remove", id="b", force=True) == {"peer": "peer-b", "agent_id": "b"}
    departure = await left(w, "b")
    assert (departure.kind, departure.mesh, departure.to) == ("removed", w.mesh.mesh, None)
    assert w.members == ["a"]


async def test_an_agent_removed_while_cut_off_hears_it_from_a_member(w: World) -> None:
    leaderless(w)
    w.start("a")
    await foreign(w, "x", w.mesh.mesh, removed=True)
    assert (await left(w, "a")).kind == "removed"


async def test_a_false_word_of_removal_is_not_believed(w: World) -> None:
    leaderless(w)
    election = w.start("a")
    await foreign(w, "x", w.mesh.mesh, removed=True, key=b"another key")
    await foreign(w, "y", "mesh-other", removed=True)
    await w.until(lambda: bool(election.neighbours.others), "heard")
    await election.departures.look()
    assert note(w, "a") is None


async def standing(w: World, name: str, raft_id: int, mesh: str | None = None) -> dict[str, Any]:
    head = {"mesh": mesh or w.mesh.mesh, "raft_id": raft_id, "nonce": "A" * 43 + "="}
    return (await w.mesh.hub(name, "x").request("peer-a", "mesh", "standing", head)).head


async def test_a_member_says_who_was_removed_and_who_may_still_come(w: World) -> None:
    w.start("a")
    await w.until(lambda: w.members == ["a"], "founded")
    w.table.applied = 20  # type: ignore[attr-defined]
    shown = Handshake(str(w.mesh.mesh), "peer-a", "peer-s", "A" * 43 + "=")
    for raft_id, removed in ((1, False), (20, True), (21, False)):
        said = await standing(w, "s", raft_id)
        assert said["removed"] is removed, raft_id
        assert said["proof"] == shown.of_standing(KEY, raft_id, removed)
    assert not (await standing(w, "s", 20, "mesh-other"))["removed"]


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(
    removed=st.booleans(),
    mesh=st.sampled_from(["mesh-x", "mesh-y", None]),
    spoiled=st.sampled_from(["removed", "mesh", "raft_id", "peer", "asker", "nonce", "key", "purpose"]),
)
async def test_a_standing_with_another_ones_proof_is_refused(
    tmp_path: Path, removed: bool, mesh: str | None, spoiled: str
) -> None:
    world_of_two = FakeMesh()
    member, hub = world_of_two.hub("s", "x"), world_of_two.hub("a", "election")

    async def said(request: Request) -> dict[str, Any]:
        nonce = str(request.head["nonce"])
        shown = Handshake(
            f"{mesh}-" if spoiled == "mesh" else mesh or "",
            "peer-t" if spoiled == "peer" else "peer-s",
            "peer-t" if spoiled == "asker" else "peer-a",
            nonce[::-1] if spoiled == "nonce" else nonce,
        )
        key = b"another key" if spoiled == "key" else KEY
        proof = shown.of_standing(key, 8 if spoiled == "raft_id" else 7, removed != (spoiled == "removed"))
        if spoiled == "purpose":
            proof = shown.of_holder(KEY)
        return {"mesh": mesh, "removed": removed, "proof": proof}

    await member.offer("mesh", said, peers=True)
    peers = Peers(process(tmp_path, "a", hub.peer_id), hub)
    with pytest.raises(HubTampered):
        await peers.standing("peer-s", "mesh-x", 7)
    assert not peers.is_holder("peer-s")


# Recovered, and gone


async def test_an_agent_of_a_recovered_mesh_joins_the_one_that_goes_on(w: World) -> None:
    leaderless(w)
    w.start("a")
    await foreign(w, "x", "mesh-heir", recovers=["mesh-later", w.mesh.mesh], accepting=False)
    departure = await left(w, "a")
    assert (departure.kind, departure.to) == ("recovered", "mesh-heir")


async def test_it_stays_where_there_is_a_leader(w: World) -> None:
    w.table.ever = 3  # type: ignore[attr-defined]
    election = w.start("a")
    await w.until(lambda: w.members == ["a"], "founded")
    await foreign(w, "x", "mesh-heir", recovers=[w.mesh.mesh])
    await w.until(lambda: bool(election.neighbours.others), "met")
    await election.departures.look()
    assert note(w, "a") is None
    assert "is to end" in (await w.call("a", "health"))["warnings"][0]


@pytest.mark.parametrize("rejoin", [True, False])
async def test_an_agent_of_a_mesh_that_is_gone_joins_another_if_that_is_wanted(
    w: World, rejoin: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    patience = Patience(leaderless_s=0.2, alone_s=0.2)
    monkeypatch.setattr(Patience, "of", lambda _: patience)
    leaderless(w)
    election = w.start("a", rejoin=rejoin)
    await foreign(w, "x", "mesh-other")
    if rejoin:
        assert (await left(w, "a")).kind == "rejoin"
        return
    await w.until(lambda: any("mesh is gone" in said for said in election.departures.warnings()), "says so")
    (warning,) = (await w.call("a", "health"))["warnings"]
    assert "if its own mesh is gone, chorusctl members rejoin" in warning
    assert note(w, "a") is None
    assert (await w.call("a", "rejoin"))["kind"] == "rejoin"


async def test_what_was_decided_before_the_process_began_anew_stays_decided(w: World) -> None:
    decided = Departure(kind="merge", mesh="mesh-mine", to="mesh-other", why="for a reason")
    write_departure(w.folder / "a" / "departure.json", decided)
    election = w.start("a")
    await w.until(lambda: w.members == ["a"], "founded")
    assert election.departures.under_way == decided
    assert "for a reason" in (await w.call("a", "health"))["detail"]
    with pytest.raises(HubRefused, match="already"):
        await w.call("a", "rejoin")


# A majority lost


def test_the_longest_log_is_the_one_that_would_win_an_election() -> None:
    logs = [Log("a", 3, 90, 90), Log("b", 4, 80, 80), Log("c", 4, 80, 70)]
    assert longest(logs, "c").peer == "c"
    assert longest(logs, "a").peer == "c"
    assert longest([Log("a", 3, 90, 90), Log("b", 3, 91, 80)], "a").peer == "b"


@pytest.mark.parametrize(
    ("voters", "reached", "lost"),
    [("abc", "ab", ""), ("abc", "a", "bc"), ("abc", "abc", ""), ("a", "b", "a"), ("abcd", "ab", "cd")],
)
def test_a_majority_is_lost_when_the_others_are_too_few(voters: str, reached: str, lost: str) -> None:
    members = [Member(number, peer, True) for number, peer in enumerate(voters)]
    assert unreached([*members, Member(99, "z", False)], set(reached)) == list(lost)


async def test_health_names_the_lost_and_the_command(w: World) -> None:
    leaderless(w)
    w.start("a")
    election = w.elections["a"]
    await w.until(lambda: bool(election.recovering._lost), "noticed")
    await w.until(lambda: bool(election.recovering.problem(election._status)), "said")
    detail = (await w.call("a", "health"))["detail"]
    assert "2 of its 3 voters cannot be reached: b, c" in detail
    assert "chorusctl members recover" in detail
    w.mesh.heal()
    w.mesh.elect("b")
    await w.until(lambda: not election.recovering.problem(election._status), "well again")


async def test_of_two_agents_the_one_without_a_vote_names_the_other(w: World) -> None:
    leaderless(w, voters=("b",), me="d")
    election = w.start("d")
    await w.until(lambda: bool(election.recovering.problem(election._status)), "said")
    assert "1 of its 1 voters cannot be reached: b" in (await w.call("d", "health"))["detail"]


async def test_recovery_is_planned_and_done_on_a_survivor(w: World) -> None:
    leaderless(w)
    w.start("a")
    await w.until(lambda: bool(w.elections["a"].recovering._lost), "noticed")
    plan = await w.call("a", "recovery")
    assert plan["needed"]
    assert plan["leader"] is None
    assert [(voter["agent_id"], voter["reachable"]) for voter in plan["voters"]] == [
        ("b", False),
        ("c", False),
        ("a", True),
    ]
    assert plan["longest"] == plan["this"]["agent_id"] == "a"
    assert plan["this"]["last"] == len(w.mesh.entries)
    assert "b, c" in plan["why"]
    with pytest.raises(HubInvalid, match="mesh"):
        await w.call("a", "recover", mesh="mesh-other")
    with pytest.raises(HubInvalid, match="mesh"):
        await w.call("a", "recover")
    said = await w.call("a", "recover", mesh=w.mesh.mesh)
    assert (said["kind"], said["mesh"], said["to"]) == ("recover", w.mesh.mesh, None)
    assert note(w, "a") is not None


async def test_nothing_is_recovered_while_the_mesh_can_help_itself(w: World) -> None:
    w.start("a")
    await w.until(lambda: w.members == ["a"], "founded")
    plan = await w.call("a", "recovery")
    assert (plan["needed"], plan["leader"]) == (False, "a")
    with pytest.raises(HubRefused, match="has a leader"):
        await w.call("a", "recover", mesh=w.mesh.mesh, force=True)
    w.start("b")
    await w.until(lambda: w.members == ["a", "b"], "joined")
    w.mesh.elect(None)
    with pytest.raises(HubRefused, match="can be reached"):
        await w.call("b", "recover", mesh=w.mesh.mesh, force=True)
    assert note(w, "a") is None


async def test_who_has_less_of_the_log_does_not_recover_unless_forced(w: World) -> None:
    leaderless(w, voters=("b", "c", "d"))
    w.start("a")
    w.mesh.heal()
    w.mesh.cut("a", "b")
    w.mesh.cut("a", "c")
    hub = w.mesh.hub("d", "election")

    async def last(request: Request) -> dict[str, Any]:
        if request.method != "last":
            raise HubUnavailable("the stand-in does not know this")
        return {"mesh": w.mesh.mesh, "last": 10**6, "term": 10**6, "applied": 1}

    await hub.offer("mesh", last, peers=True)
    await w.until(lambda: "election" in w.mesh.agents["a"].offers, "serves")
    plan = await w.call("a", "recovery")
    assert (plan["needed"], plan["longest"]) == (True, "d")
    assert [log["agent_id"] for log in plan["reachable"]] == ["d"]
    with pytest.raises(HubRefused, match="d has more of the log"):
        await w.call("a", "recover", mesh=w.mesh.mesh)
    assert (await w.call("a", "recover", mesh=w.mesh.mesh, force=True))["kind"] == "recover"


async def test_without_a_mesh_there_is_nothing_to_recover(w: World) -> None:
    w.start("a", join_wait_s=600.0)
    await w.until(lambda: "election" in w.mesh.agents["a"].offers, "serves")
    plan = await w.call("a", "recovery")
    assert (plan["mesh"], plan["needed"], plan["voters"]) == (None, False, [])
    with pytest.raises(HubError, match="no mesh"):
        await w.call("a", "recover", mesh="mesh-x")


# A mesh founded from a lost one


async def test_an_agent_that_is_told_to_founds_at_once_and_removes_the_instruction(w: World) -> None:
    told = w.folder / "a" / "founding.json"
    theirs = MeshSettings(voters=3, absence_ms=7_000)
    told.write_bytes(orjson.dumps({"recovers": ["mesh-b", "mesh-a"], "settings": theirs.to_entry()}))
    (w.folder / "a" / "carried.jsonl").write_bytes(b'{"origin": "mesh-b", "recovers": true}\n')
    w.start("a", join_wait_s=600.0)
    await w.until(lambda: w.members == ["a"], "founded")
    await w.until(lambda: not told.exists(), "and told no more")
    assert w.mesh.settings == theirs
    said = (await w.mesh.hub("s", "x").request("peer-a", "mesh", "info")).head
    assert said == {
        "mesh": w.mesh.mesh,
        "lone": False,
        "recovers": ["mesh-b", "mesh-a"],
        "leader": True,
        "accepting": False,
    }
    newcomer = w.start("b")
    await w.until(lambda: "takes nobody in" in newcomer.search.why, "waits while things are brought in")
    (w.folder / "a" / "carried.jsonl").unlink()
    await w.until(lambda: w.members == ["a", "b"], "and joins then")


async def test_an_instruction_that_cannot_be_read_is_said(w: World) -> None:
    (w.folder / "a" / "founding.json").write_text("{}")
    election = w.start("a", join_wait_s=0.0)
    await w.until(lambda: "founding.json" in election.search.why, "said")
    assert w.members == []
    (w.folder / "a" / "founding.json").unlink()
    await w.until(lambda: w.members == ["a"], "and goes on without it")


# Removal


async def test_the_leader_removes_who_is_away_and_takes_its_vote_first(w: World) -> None:
    for name in "abc":
        w.start(name)
    await w.until(lambda: len(w.voters) == 3, "all vote")
    w.mesh.cut("a", "c")
    await w.call("b", "remove", id="peer-c")
    assert w.members == ["a", "b"]
    said = [(e.head["type"]) for e in w.mesh.entries if e.head["type"] in ("voter", "removal")]
    assert said[-2:] == ["voter", "removal"]
    with pytest.raises(HubNotFound, match="lists no member c"):
        await w.call("a", "remove", id="c")
    for odd in ({}, {"id": 7}, {"id": ""}, {"id": "x" * 200}, {"id": "b", "force": 1}):
        with pytest.raises(HubInvalid):
            await w.call("a", "remove", **odd)
    with pytest.raises(HubRefused, match="chorusctl election transfer"):
        await w.call("b", "remove", id="a", force=True)


async def test_members_of_earlier_releases_hold_removal_back(w: World) -> None:
    w.table.version = 1  # type: ignore[attr-defined]
    for name in "ab":
        w.start(name)
    await w.until(lambda: w.members == ["a", "b"], "both in")
    with pytest.raises(HubRefused, match=r"b 0\.5\.0"):
        await w.call("a", "remove", id="b", force=True)
    assert w.members == ["a", "b"]


async def test_who_is_away_for_the_whole_absence_is_removed(
    w: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chorus.config.MeshSettings.of_founder", lambda _: FAST)
    for name in "abc":
        w.start(name)
    await w.until(lambda: w.members == ["a", "b", "c"], "all in")
    w.mesh.cut("a", "c")
    await w.until(lambda: w.members == ["a", "b"], "removed")
    await w.until(lambda: w.voters == ["a"], "two agents have one voter")

    def told() -> bool:
        return any(
            type == "member_change" and (data["peer"], data["change"]) == ("peer-c", "removed")
            for _, _, type, data in w.mesh.published
        )

    await w.until(told, "and told")


async def test_a_name_that_two_wear_is_removed_by_peer_id(w: World) -> None:
    for name in "ab":
        w.start(name)
    await w.until(lambda: w.members == ["a", "b"], "both in")
    w.mesh.agents["b"].agent_id = "a"
    with pytest.raises(HubRefused, match="peer-b"):
        await w.call("a", "remove", id="a")


@pytest.mark.parametrize("method", ["last", "remove"])
async def test_strangers_are_not_served_what_is_for_members(w: World, method: str) -> None:
    w.start("a")
    await w.until(lambda: w.members == ["a"], "founded")
    with pytest.raises(HubNotPermitted):
        await w.mesh.hub("s", "x").request("peer-a", "mesh", method, {"peer": "peer-a", "force": True})


def test_a_carry_file_that_cannot_be_opened_admits_nobody(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "carried.jsonl").mkdir()
    departures = Departures.__new__(Departures)
    departures.under_way = None
    departures._process = process(tmp_path, "a", "peer-a")
    assert "cannot be read" in departures.closed()


# How often it looks


async def test_a_calm_mesh_is_looked_at_when_something_happens(
    w: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(departures, "CALM_LOOK_S", 3600.0)
    w.mesh.found("b", FAST, "a")
    own = w.start("a").departures
    await w.until(lambda: own._calm, "it is calm")
    await foreign(w, "x", "mesh-other")
    await w.until(lambda: bool(own.warnings()), "the other mesh is noticed")
    del w.mesh.agents["x"]
    w.mesh.emit({"kind": "peer_down", "peer": "peer-x"})
    await w.until(lambda: own._calm and not own.warnings(), "it is calm again")
    w.mesh.elect(None)
    await w.until(lambda: own._leaderless_s > 0, "the loss of the leader is noticed")
