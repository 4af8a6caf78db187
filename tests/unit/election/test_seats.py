"""A leader with a licence of KACHING takes in who shows a token of its own for a lease that is free."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from license.tokens import fresh

from chorus.config.masked import SecretText
from chorus.election.seats import Seats
from chorus.hub import HubInvalid, HubNotPermitted, HubRefused, Request
from chorus.license import cache
from chorus.license.status import LicenceStatus, save
from chorus.testing.fake_hub import FakeHub, FakeMesh

from .world import World, process, world

KEY = Ed25519PrivateKey.generate()
LICENSED = {
    "license_kind": "production",
    "kaching_public_key": SecretText(f"k1={KEY.public_key().public_bytes_raw().hex()}"),
    "cluster_id": "c1",
    "license_grace_s": 3600.0,
}


def start(w: World, name: str, lease: str | None = None, **changed: Any) -> None:
    """An agent whose parent has got a token for this lease, of its own unless something is changed."""
    folder = w.folder / name
    folder.mkdir(exist_ok=True)
    if lease is not None:
        token = fresh(KEY, **{"peer_id": f"peer-{name}", "lease_id": lease, **changed})
        cache.save(folder / "license.json", cache.Kept(token=token, lease=lease))
    w.start(name, **LICENSED)


async def refused(w: World, name: str, word: str) -> None:
    await w.until(lambda: word in w.elections[name].search.why, f"refused because of {word}")
    assert name not in w.members


async def test_members_have_tokens_and_leases_of_their_own(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        for name in "abc":
            start(w, name, f"lease-{name}")
        await w.until(lambda: w.members == ["a", "b", "c"], "all in")


@pytest.mark.parametrize(
    ("lease", "changed", "word"),
    [
        (None, {}, "CHORUS_KACHING_URL"),
        ("lease-b", {"peer_id": "peer-c"}, "made out to another agent"),
        ("lease-b", {"cluster_id": "c2"}, "another cluster"),
        ("lease-b", {"permissions": ["agent:read"]}, "agent:run"),
        ("lease-b", {"exp": time.time() - 100}, "has expired"),
        # Counted from when the tests were collected, which may be long ago.
        ("lease-b", {"nbf": time.time() + 1e6}, "not valid yet"),
        ("lease-a", {}, "the lease is another member's"),
    ],
)
async def test_any_other_is_refused_by_name(
    tmp_path: Path, lease: str | None, changed: dict[str, Any], word: str
) -> None:
    async with world(tmp_path) as w:
        start(w, "a", "lease-a")
        await w.until(lambda: w.members == ["a"], "founded")
        start(w, "b", lease, **changed)
        await refused(w, "b", word)


async def test_a_token_that_another_key_signed_is_refused(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        start(w, "a", "lease-a")
        await w.until(lambda: w.members == ["a"], "founded")
        other = fresh(Ed25519PrivateKey.generate(), peer_id="peer-b")
        (tmp_path / "b").mkdir()
        cache.save(tmp_path / "b" / "license.json", cache.Kept(token=other, lease="lease-1"))
        w.start("b", **LICENSED)
        await refused(w, "b", "signature does not fit")


async def test_a_new_leader_knows_the_leases_of_members_that_it_did_not_take_in(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        for name in "abc":
            start(w, name, f"lease-{name}")
        await w.until(lambda: len(w.voters) == 3, "all vote")
        await w.call("a", "transfer", to="peer-c")
        start(w, "d", "lease-b")
        await refused(w, "d", "the lease is another member's")
        start(w, "e", "lease-e")
        await w.until(lambda: "e" in w.members, "one of its own")


async def test_a_development_licence_asks_for_no_token(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        w.start("a")
        w.start("b")
        await w.until(lambda: w.members == ["a", "b"], "both in")
        said = (await w.mesh.hub("a", "x").request("peer-b", "mesh", "lease", {})).head
        assert said == {"lease": None}


async def test_only_members_are_told_of_leases(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        start(w, "a", "lease-a")
        await w.until(lambda: w.members == ["a"], "founded")
        with pytest.raises(HubNotPermitted):
            await w.mesh.hub("s", "stranger").request("peer-a", "mesh", "lease", {})


def seats(folder: Path, hub: FakeHub, wall: Callable[[], float] = time.time) -> Seats:
    return Seats(process(folder, "a", hub.peer_id, **LICENSED).settings, hub, wall=wall)


async def test_while_kaching_is_away_the_last_tokens_count_for_as_long_as_the_grace(tmp_path: Path) -> None:
    hub = FakeMesh().hub("a", "election")
    (tmp_path / "a").mkdir()
    token = fresh(KEY, peer_id="peer-b")
    late = seats(tmp_path, hub, lambda: time.time() + 600 + 3000)
    with pytest.raises(HubRefused, match="expired"):
        late.check("peer-b", token)
    save(tmp_path / "a" / "license.json", LicenceStatus("grace"))
    assert late.check("peer-b", token) == "lease-1"
    with pytest.raises(HubRefused, match="expired"):
        seats(tmp_path, hub, lambda: time.time() + 600 + 3700).check("peer-b", token)


@pytest.mark.parametrize("token", [None, "", 7, ["x"], {}, "x", "a.b.c", "\ud800", "x" * 100_000])
async def test_anything_in_the_place_of_a_token_is_refused(tmp_path: Path, token: object) -> None:
    with pytest.raises(HubRefused):
        seats(tmp_path, FakeMesh().hub("a", "election")).check("peer-b", token)


async def test_a_member_that_does_not_answer_holds_the_lease_it_came_with(tmp_path: Path) -> None:
    mesh = FakeMesh()
    leader, mute = seats(tmp_path, mesh.hub("a", "election")), mesh.hub("b", "election")

    async def serve(request: Request) -> dict[str, Any]:
        raise HubInvalid("the stand-in does not know this")

    await mute.offer("mesh", serve, peers=True)
    leader.took("peer-b", "lease-b")
    with pytest.raises(HubRefused, match="another member"):
        await leader.check_free("lease-b", ["peer-b"])
    await leader.check_free("lease-c", ["peer-b"])
    leader.forget_all_but(["peer-a"])
    await leader.check_free("lease-b", ["peer-b"])
