"""The election process outlives anything that heartbeats, requests and answers of peers can say."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chorus.election.announce import SIGNERS_MAX
from chorus.hub import Request, guard
from chorus.testing.anything import OBJECTS, RAW, SPOILED, VALUES, ask, examples, raw_message, spoil

from .world import world

ELECTION = "chorus/election/v1"


@pytest.mark.parametrize("spoiled", SPOILED.values(), ids=SPOILED)
async def test_an_election_outlives_every_heartbeat(tmp_path: Path, spoiled: bytes) -> None:
    async with world(tmp_path) as w:
        election = w.start("a")
        await w.until(lambda: w.members == ["a"], "founded")
        spoil(w.mesh, "a", raw_message(ELECTION, "heartbeat", spoiled))
        said = {"score": 0.5, "mesh": "m", "term": 1}

        async def says() -> None:
            foreign = w.mesh.hub("x", "foreign")
            while True:
                await foreign.publish(ELECTION, "heartbeat", said)
                await asyncio.sleep(0.01)

        w.running.append(asyncio.create_task(says()))
        await w.until(lambda: election.news.scores("m", 15.0) == {"peer-x": 0.5}, "heard")


async def test_many_strangers_leave_room_for_a_member(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        election = w.start("a")
        await w.until(lambda: w.members == ["a"], "founded")
        beat = raw_message(ELECTION, "heartbeat", b'{"score": 0.5, "mesh": "m"}')
        for n in range(2 * SIGNERS_MAX):
            election.news.hear(replace(beat, sender=f"stranger-{n}"))
        election.news.hear(replace(beat, sender="member"))
        assert election.news.scores("m", 15.0)["member"] == 0.5
        assert len(election.news.scores("m", 15.0)) == SIGNERS_MAX


@pytest.mark.parametrize(
    "answer",
    [
        {"raft_id": "x"},
        {"raft_id": 7},
        {"raft_id": 7, "founding": "%", "mesh": 3},
        {"raft_id": 7, "founding": "", "members": [[1]]},
        {"leader": "peer-x", "addrs": 5},
        {"leader": [1], "addrs": {"a": 1}},
    ],
)
async def test_an_election_outlives_what_a_peer_answers(tmp_path: Path, answer: dict[str, Any]) -> None:
    joined = asyncio.Event()

    async def lies(request: Request) -> dict[str, Any]:
        if request.method == "info":
            return {"mesh": "m", "none_since": None}
        joined.set()
        return answer

    async with world(tmp_path) as w:
        liar = w.mesh.hub("x", "election")
        await liar.offer("mesh", lies, peers=True)
        w.start("a")
        await w.until(joined.is_set, "asked to be taken in")
        await liar.close()
        w.mesh.cut("a", "x")
        await w.until(lambda: w.members == ["a"], "founded its own when the liar was gone")


def test_anything_said_to_an_election_is_borne(tmp_path: Path) -> None:
    with asyncio.Runner() as runner:

        async def start() -> Any:
            stack = world(tmp_path)
            w = await stack.__aenter__()
            w.start("a")
            await w.until(lambda: w.members == ["a"], "founded")
            return stack, w

        stack, w = runner.run(start())
        news, admission = w.elections["a"].news, w.elections["a"].admission

        @examples
        @given(st.sampled_from(["heartbeat", "vote", "leader", "nonsense"]), RAW)
        def hear(type: str, data: bytes) -> None:
            async def heard() -> None:
                async def one() -> Any:
                    yield raw_message(ELECTION, type, data)

                await guard.each(one(), news.hear, "gossip")

            runner.run(heard())
            assert len(news._heard) <= SIGNERS_MAX

        @examples
        @given(
            st.sampled_from(["info", "challenge", "join", "nonsense"]),
            OBJECTS | VALUES,
            st.binary(max_size=40),
        )
        def answer(method: str, head: Any, body: bytes) -> None:
            runner.run(ask(admission.serve, None, method, head, body))

        hear()
        answer()
        assert not any(task.done() for task in w.running)
        runner.run(stack.__aexit__(None, None, None))
