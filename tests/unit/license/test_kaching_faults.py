"""A lease against a real KACHING in a process of its own: right, wrong, slow, silent, lying, garbage and
restarted, at a start and while the agent runs.
"""

from __future__ import annotations

import itertools
import json
import stat
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from chorus.core import Identity
from chorus.license.keys import read_keys
from chorus.license.lease import Clocks, Holder, Lease
from chorus.license.refusals import LicenceRefused, Reason
from chorus.testing.kaching import LICENSE, KachingProcess

# Generous where an answer comes; short where none does.
DEADLINE_S, SHORT_S = 30.0, 0.3
SECRET = "a secret of the cluster, long enough"
GRACE_S = 3600.0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KachingProcess]:
    with KachingProcess(tmp_path_factory.mktemp("kaching")) as running:
        yield running


@pytest.fixture
def license_id(server: KachingProcess, numbers: Iterator[int]) -> Iterator[str]:
    """A licence of its own for each test, of a server that behaves."""
    yield server.create(f"{LICENSE}-{next(numbers)}", cluster_secret=SECRET, lease_ttl_s=30)
    server.misbehave("none")


@pytest.fixture(scope="module")
def numbers() -> Iterator[int]:
    return itertools.count()


class Agent:
    """An agent as far as licences are concerned: an identity, a folder, clocks that a test sets."""

    def __init__(self, server: KachingProcess, license_id: str, folder: Path) -> None:
        self.server, self.folder = server, folder
        self.identity = Identity.load_or_create(folder / "identity.key")
        self.away_s = 0.0
        self.deadline_s = DEADLINE_S
        self.set_s = 0.0
        self.holder = Holder(
            license_id=license_id,
            cluster_id="",
            agent_id="a",
            peer_id=self.identity.peer_id,
            version="0",
            secret=b"",
            keys=read_keys(server.public_key),
            grace_s=GRACE_S,
        )

    @property
    def file(self) -> Path:
        return self.folder / "license.json"

    def lease(self, **changed: Any) -> Lease:
        clocks = Clocks(wall=lambda: time.time() + self.set_s, ticks=lambda: time.monotonic() + self.away_s)
        return Lease(
            replace(self.holder, **changed),
            self.server.url,
            self.identity.sign,
            self.file,
            clocks=clocks,
            deadline_s=self.deadline_s,
        )

    async def refused(self, **changed: Any) -> LicenceRefused:
        with pytest.raises(LicenceRefused) as caught:
            await self.lease(**changed).start()
        return caught.value


@pytest.fixture
def agent(server: KachingProcess, license_id: str, tmp_path: Path) -> Agent:
    return Agent(server, license_id, tmp_path)


async def test_a_licence_gives_cluster_secret_and_lease(agent: Agent, server: KachingProcess) -> None:
    lease = agent.lease()
    granted = await lease.start()
    assert (granted.claims.cluster_id, granted.secret) == ("c1", SECRET.encode())
    assert [held["peer_id"] for held in server.leases() if held["id"] == granted.claims.lease_id] == [
        agent.identity.peer_id
    ]
    assert (lease.status.state, lease.status.checks, lease.status.failures) == ("valid", 1, {})
    assert stat.S_IMODE(agent.file.stat().st_mode) == 0o600
    await lease.check()
    assert (lease.state.name, lease.status.checks) == ("valid", 2)
    assert await lease.give_back() == ""
    assert granted.claims.lease_id not in {held["id"] for held in server.leases()}


# What the server does, the reason that is told, and whether KACHING's word alone says so: then no older token
# carries the agent on.
FAULTS: list[tuple[str, dict[str, Any], Reason, bool]] = [
    ("slow", {"delay_s": 30}, Reason.SLOW, False),
    ("silent", {}, Reason.SLOW, False),
    ("closed", {}, Reason.GARBAGE, False),
    ("error", {"status": 500}, Reason.SERVER_ERROR, False),
    ("error", {"status": 503}, Reason.SERVER_ERROR, False),
    ("error", {"status": 429}, Reason.SERVER_ERROR, False),
    ("redirect", {}, Reason.SERVER_ERROR, False),
    ("garbage", {"garbage": "text"}, Reason.GARBAGE, False),
    ("garbage", {"garbage": "no_token"}, Reason.GARBAGE, False),
    ("garbage", {"garbage": "endless"}, Reason.GARBAGE, False),
    ("garbage", {"garbage": "cut"}, Reason.GARBAGE, False),
    ("garbage", {"garbage": "deep"}, Reason.GARBAGE, False),
    ("lying", {"algorithm": "none"}, Reason.WRONG_ALGORITHM, False),
    ("lying", {"algorithm": "HS256"}, Reason.WRONG_ALGORITHM, False),
    ("lying", {"algorithm": "ES256"}, Reason.WRONG_ALGORITHM, False),
    ("lying", {"other_key": True}, Reason.BAD_SIGNATURE, False),
    ("lying", {"claims": {"sub": "another"}}, Reason.WRONG_LICENCE, False),
    ("lying", {"claims": {"peer_id": "12D3KooWother"}}, Reason.WRONG_PEER, False),
    ("lying", {"claims": {"nonce": "another"}}, Reason.REPLAYED_NONCE, False),
    ("lying", {"claims": {"exp": 1_000_000}}, Reason.EXPIRED, False),
    ("lying", {"claims": {"nbf": 4_000_000_000}}, Reason.NOT_YET_VALID, False),
    ("lying", {"claims": {"exp": None}}, Reason.MALFORMED_TOKEN, False),
    ("lying", {"claims": {"lease_ttl_s": 0}}, Reason.MALFORMED_TOKEN, False),
    ("lying", {"claims": {"cluster_secret_sha256": "0" * 64}}, Reason.WRONG_SECRET, False),
    ("lying", {"claims": {"aud": "someone"}}, Reason.WRONG_AUDIENCE, True),
    ("lying", {"claims": {"permissions": ["agent:read"]}}, Reason.PERMISSION_MISSING, True),
    ("error", {"status": 403}, Reason.REFUSED, True),
]


@pytest.mark.parametrize(("fault", "how", "reason", "word"), FAULTS)
async def test_the_table_of_faults(
    agent: Agent, server: KachingProcess, fault: str, how: dict[str, Any], reason: Reason, word: bool
) -> None:
    waits = SHORT_S if reason is Reason.SLOW else DEADLINE_S
    server.misbehave(fault, **how)
    agent.deadline_s = waits
    first = await agent.refused()
    assert first.reason is reason
    server.misbehave("none")
    agent.deadline_s = DEADLINE_S
    lease = agent.lease()
    await lease.start()
    server.misbehave(fault, **how)
    # While it runs.
    agent.deadline_s = lease._kaching._deadline_s = waits
    await lease.check()
    assert lease.state.name == ("expired" if word else "grace")
    assert (lease.status.reason, lease.status.failures) == (reason.value, {reason.value: 1})
    assert lease.status.detail.partition(": ")[2] == str(first).partition(": ")[2]
    # At another start: the token of the last check carries it, or is gone.
    if word:
        assert (await agent.refused()).reason is reason
    else:
        again = agent.lease()
        assert (await again.start()).secret == SECRET.encode()
        assert again.state.name == "grace"
    server.misbehave("none")
    lease._kaching._deadline_s = DEADLINE_S
    await lease.check()
    assert lease.state.name == ("expired" if word else "valid")


async def test_a_replayed_answer_does_not_count(agent: Agent, server: KachingProcess) -> None:
    lease = agent.lease()
    await lease.start()
    server.misbehave("lying", replay=True)
    await lease.check()
    assert (lease.state.name, lease.state.reason) == ("grace", Reason.REPLAYED_NONCE)


@pytest.mark.parametrize(
    ("made", "reason"),
    [
        ({"expires": 1.0}, Reason.EXPIRED),
        ({"not_before": 4e9}, Reason.NOT_YET_VALID),
        ({"permissions": ["agent:read"]}, Reason.PERMISSION_MISSING),
        ({"cluster_id": "c2"}, Reason.WRONG_CLUSTER),
        (None, Reason.UNKNOWN),
    ],
)
async def test_each_refusal_is_told_by_name(
    agent: Agent, server: KachingProcess, numbers: Iterator[int], made: dict[str, Any] | None, reason: Reason
) -> None:
    other = f"other-{next(numbers)}"
    if made is not None:
        server.create(other, **made)
    refused = await agent.refused(license_id=other, cluster_id="c1")
    assert refused.reason is reason
    assert ": " in str(refused)
    assert other not in str(refused)


async def test_a_question_that_another_peer_signed_is_refused(agent: Agent, tmp_path: Path) -> None:
    stranger = Identity.load_or_create(tmp_path / "other.key").peer_id
    assert (await agent.refused(peer_id=stranger)).reason is Reason.BAD_SIGNATURE


async def test_who_learns_a_leases_id_can_do_nothing_with_it(
    agent: Agent, server: KachingProcess, license_id: str, tmp_path: Path
) -> None:
    granted = await agent.lease().start()
    (tmp_path / "thief").mkdir()
    thief = Agent(server, license_id, tmp_path / "thief")
    other = thief.lease()
    await other.start()
    with pytest.raises(LicenceRefused) as caught:
        await other._kaching.renew(granted.claims.lease_id, "a nonce")
    assert caught.value.reason is Reason.WRONG_PEER
    with pytest.raises(LicenceRefused):
        await other._kaching.give_back(granted.claims.lease_id)
    assert granted.claims.lease_id in {held["id"] for held in server.leases()}


async def test_suspended_resumed_revoked(agent: Agent, server: KachingProcess, license_id: str) -> None:
    lease = agent.lease()
    await lease.start()
    server.rule("suspend", license_id)
    await lease.check()
    assert (lease.state.name, lease.state.reason) == ("suspended", Reason.SUSPENDED)
    assert (await agent.refused()).reason is Reason.SUSPENDED
    # KACHING's word counts on, also when it is away.
    server.misbehave("closed")
    assert (await agent.refused()).reason is Reason.GARBAGE
    server.misbehave("none")
    server.rule("resume", license_id)
    again = agent.lease()
    await again.start()
    server.rule("revoke", license_id)
    await again.check()
    assert (again.state.name, again.state.reason) == ("expired", Reason.REVOKED)


async def test_seats_are_counted_and_given_back(
    server: KachingProcess, numbers: Iterator[int], tmp_path: Path
) -> None:
    licence = server.create(f"small-{next(numbers)}", max_agents=1)
    agents = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        agents.append(Agent(server, licence, tmp_path / name))
    lease = agents[0].lease()
    await lease.start()
    assert (await agents[1].refused()).reason is Reason.SEATS_USED_UP
    # Killed and started again: it is the same seat.
    lease = agents[0].lease()
    await lease.start()
    await lease.give_back()
    await agents[1].lease().start()


async def test_a_lease_that_the_server_lost_is_asked_for_anew(agent: Agent, server: KachingProcess) -> None:
    lease = agent.lease()
    first = await lease.start()
    await agent.lease()._kaching.give_back(first.claims.lease_id)
    await lease.check()
    assert lease.state.name == "valid"
    assert lease._granted is not None
    assert lease._granted.claims.lease_id != first.claims.lease_id


async def test_the_servers_key_may_change_while_both_are_pinned(agent: Agent, server: KachingProcess) -> None:
    lease = agent.lease()
    await lease.start()
    server.public_key = server.ask("POST", "key/rotate")["public_key"]
    await lease.check()
    assert lease.state.name == "valid"
    server.public_key = server.ask("POST", "key/rotate")["public_key"]
    await lease.check()
    assert (lease.state.name, lease.state.reason) == ("grace", Reason.UNKNOWN_KEY)


async def test_the_grace_is_counted_from_the_last_check_whatever_the_clock_says(
    agent: Agent, server: KachingProcess
) -> None:
    lease = agent.lease()
    await lease.start()
    server.misbehave("closed")
    agent.away_s, agent.set_s = GRACE_S - 60, -30 * 86_400
    await lease.check()
    assert lease.state.name == "grace"
    # Another start, by a clock that was set back.
    agent.away_s = 0.0
    again = agent.lease()
    await again.start()
    assert again.state.name == "grace"
    agent.away_s = 61
    await again.check()
    assert again.state.name == "expired"
    assert "CHORUS_LICENSE_GRACE" in again.why
    agent.away_s = 0
    assert "CHORUS_LICENSE_GRACE" in str(await agent.refused())


async def test_the_server_is_asked_once_more_before_the_grace_ends(
    agent: Agent, server: KachingProcess
) -> None:
    agent.deadline_s = 10.0
    lease = agent.lease(grace_s=25.0)
    await lease.start()
    server.misbehave("closed")
    for _ in range(5):
        await lease.check()
    # The breaker has it wait 30 s; the grace ends earlier.
    assert 0 < lease._next_s() <= 25 - 2.5
    agent.away_s = 24.0
    assert lease._next_s() > 1
    assert lease.state.name == "grace"
    agent.away_s = 0.0
    server.misbehave("none")
    await lease.check()
    assert lease.state.name == "valid"


async def test_a_clock_that_jumps_forward_ends_no_running_agent(agent: Agent, server: KachingProcess) -> None:
    lease = agent.lease()
    await lease.start()
    agent.set_s = 30 * 86_400
    await lease.check()
    assert (lease.state.name, lease.state.reason) == ("grace", Reason.EXPIRED)
    agent.set_s = 0
    await lease.check()
    assert lease.state.name == "valid"


async def test_the_secret_of_the_setting_has_to_be_the_licences(agent: Agent) -> None:
    granted = await agent.lease(secret=SECRET.encode()).start()
    assert granted.secret == SECRET.encode()
    refused = await agent.refused(secret=b"another secret of the cluster")
    assert refused.reason is Reason.WRONG_SECRET
    assert "CHORUS_CLUSTER_SECRET" in str(refused)


async def test_a_secret_that_is_not_the_clusters_is_not_taken(agent: Agent, server: KachingProcess) -> None:
    server.misbehave("lying", secret="not the secret of the cluster")
    assert (await agent.refused()).reason is Reason.WRONG_SECRET


async def test_a_token_of_another_agents_folder_does_not_count(
    agent: Agent, server: KachingProcess, license_id: str, tmp_path: Path
) -> None:
    await agent.lease().start()
    (tmp_path / "copy").mkdir()
    copy = Agent(server, license_id, tmp_path / "copy")
    copy.file.write_bytes(agent.file.read_bytes())
    server.misbehave("closed")
    assert (await copy.refused()).reason is Reason.GARBAGE


@pytest.mark.parametrize(
    "content", [b"", b"{", b"\xff", b"[" * 70_000, b'{"token": 3}', b'{"token": "a.b.c"}']
)
async def test_a_cache_that_cannot_be_read_is_none(
    agent: Agent, server: KachingProcess, content: bytes
) -> None:
    agent.file.write_bytes(content)
    server.misbehave("closed")
    await agent.refused()
    server.misbehave("none")
    await agent.lease().start()


async def test_a_server_that_is_gone_and_comes_back_knows_its_leases(tmp_path: Path) -> None:
    with KachingProcess(tmp_path / "kaching") as server:
        agent = Agent(server, server.create(lease_ttl_s=30), tmp_path)
        lease = agent.lease()
        first = await lease.start()
        server.stop()
        await lease.check()
        assert (lease.state.name, lease.state.reason) == ("grace", Reason.UNREACHABLE)
        server.start()
        await lease.check()
        assert lease.state.name == "valid"
        assert [held["id"] for held in server.leases()] == [first.claims.lease_id]


async def test_nothing_secret_is_in_what_is_told(agent: Agent) -> None:
    lease = agent.lease()
    granted = await lease.start()
    told = json.dumps(lease.status.failures) + repr(lease.status)
    assert granted.token not in told
    assert SECRET not in told
