"""Decision records over HTTP: lists and their filters, words, votes, contexts."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("chorus._core")

from chorus.api.ucxi_text import Texts
from chorus.curator import documents
from chorus.curator.feed import place_of
from chorus.curator.writer import IndexWriter
from chorus.hub import HubRefused, Request
from chorus.table.reader import TableReader
from chorus.testing.decided import STAMP_MS, Decided
from chorus.wire.times import rfc3339

from .conftest import Surface


@dataclass
class Place:
    """A surface over a table with decisions."""

    surface: Surface
    table: Decided
    index: IndexWriter
    asked: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    answer: Any = None

    async def get(self, path: str, **params: Any) -> Any:
        answer = await self.surface.api.get(f"/api/v1/{path}", params=params)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def hashes(self, **params: Any) -> list[str]:
        return [item["hash"] for item in (await self.get("decisions", **params))["items"]]

    def indexed(self, name: str, title: str) -> None:
        row = self.surface.context.table.decision(name)
        assert row is not None
        document = documents.Document(
            row.index, name, row.address, 1, row.kind, "b", "agent", place_of(row.address).project, "t",
            row.author, row.at_ms, title, "", "",
        )  # fmt: skip
        self.index.settle([document])


@pytest.fixture
async def place(surface: Surface, tmp_path: Path) -> Place:
    table = Decided(tmp_path / "table.sqlite", surface.mesh)
    surface.context.table = TableReader(tmp_path / "table.sqlite")
    surface.context.texts = Texts(tmp_path / "curator.sqlite")
    made = Place(surface, table, IndexWriter(tmp_path / "curator.sqlite", ""))

    async def coordinator(request: Request) -> Any:
        made.asked.append((request.method, request.head))
        if isinstance(made.answer, Exception):
            raise made.answer
        return made.answer

    await surface.mesh.hub("a", "coordinator").offer("coordinator", coordinator)
    return made


async def test_lists_filter_by_everything_that_is_asked_for(place: Place) -> None:
    table = place.table
    first = table.decide("b", title="one", project="books")
    task = table.attempt("c", project="my maps")
    second = table.decide("c", task, title="two", project="my maps")
    third = table.decide("c", task, kind="hmmm_outcome", project="my maps")
    fourth = table.decide("b", title="four")
    assert await place.hashes() == [fourth, third, second, first]
    assert await place.hashes(agent="b") == await place.hashes(agent=table.peer("b")) == [fourth, first]
    assert await place.hashes(project="books") == [first]
    assert await place.hashes(project="my maps") == await place.hashes(project="my-maps") == [third, second]
    assert await place.hashes(project="chorus") == [fourth]
    assert await place.hashes(project="maps") == []
    assert await place.hashes(kind="hmmm_outcome") == [third]
    assert await place.hashes(task_id=task) == [third, second]
    assert await place.hashes(task_id=task, kind="task_result", agent="c", project="my maps") == [second]
    row = place.surface.context.table.decision(third)
    assert row is not None
    assert await place.hashes(since=rfc3339(row.at_ms)) == [fourth, third]
    assert await place.hashes(since=rfc3339(row.at_ms + 1)) == [fourth]
    assert await place.hashes(since=rfc3339(STAMP_MS + 10**9)) == []


async def test_pages_of_a_filtered_list(place: Place) -> None:
    hashes = [place.table.decide("b", title=str(n), project="p") for n in range(5)]
    page = await place.get("decisions", project="p", limit=2)
    found = [item["hash"] for item in page["items"]]
    while page["next"]:
        page = await place.get("decisions", project="p", limit=2, cursor=page["next"])
        found += [item["hash"] for item in page["items"]]
    assert found == hashes[::-1]


async def test_words_are_looked_for_in_the_index(place: Place) -> None:
    first = place.table.decide("b", title="count words", project="p")
    second = place.table.decide("c", title="count letters")
    place.indexed(first, "count words")
    place.indexed(second, "count letters")
    assert set(await place.hashes(text="count")) == {first, second}
    assert await place.hashes(text="WORDS") == [first]
    assert await place.hashes(text="count", project="p") == [first]
    assert await place.hashes(text="count", agent="c") == [second]
    assert await place.hashes(text="count", kind="vote") == []
    assert await place.hashes(text='") OR "1') == []
    place.surface.context.texts = Texts(None)
    answer = await place.surface.api.get("/api/v1/decisions", params={"text": "count"})
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")


@pytest.mark.parametrize(
    "params",
    [{"kind": "whim"}, {"since": "yesterday"}, {"since": "2026-01-01T00:00:00"}, {"limit": 0},
     {"cursor": "x"}, {"text": "a", "cursor": "1"}, {"text": "a" * 1001}, {"agent": "a" * 129}],
)  # fmt: skip
async def test_bad_filters_are_refused(place: Place, params: dict[str, Any]) -> None:
    answer = await place.surface.api.get("/api/v1/decisions", params=params)
    assert answer.status_code == 422
    assert answer.json()["errors"]


async def test_a_record_comes_byte_for_byte(place: Place) -> None:
    name = place.table.decide("b", title="one")
    place.answer = HubRefused("no")
    answer = await place.surface.api.get(f"/api/v1/decisions/{name.upper()}")
    assert answer.content == place.table.mesh.records[f"/chorus/decision/{name}"].payload
    assert answer.headers["chorus-decision-author"] == place.table.peer("b")


async def test_votes_are_cast_and_shown(place: Place) -> None:
    name = place.table.decide("b", title="one")
    path = f"/api/v1/decisions/{name}/votes"
    assert (await place.surface.api.get(path)).status_code == 404
    place.answer = {"ballot": {"state": "open"}}
    body = {"vote": "approve", "reason": "good", "by": "ann", "quorum": 2, "open_s": 60}
    answer = await place.surface.api.post(path, json=body)
    assert (answer.status_code, answer.json()) == (201, {"state": "open"})
    said = {"hash": name, "choice": "approve", "reason": "good", "by": "ann", "quorum": 2, "open_s": 60}
    assert place.asked[-1] == ("votes.cast", said)
    place.answer = HubRefused("ended: the vote is over: approved")
    answer = await place.surface.api.post(path, json={"vote": "reject"})
    assert (answer.status_code, answer.json()["detail"]) == (409, "ended: the vote is over: approved")
    more = ({"vote": "approve", "quorum": 0}, {"vote": "approve", "more": 1})
    for bad in ({}, {"vote": "perhaps"}, *more):
        assert (await place.surface.api.post(path, json=bad)).status_code == 422
    assert (
        await place.surface.api.post("/api/v1/decisions/" + "0" * 64 + "/votes", json=body)
    ).status_code == 404
    # What the table has of it.
    members = [place.table.peer(n) for n in "abc"]
    assert place.table.say("a", "ballot", hash=name, quorum=2, voters=members, open_ms=10**6).accepted
    for member in "bc":
        vote = {"hash": name, "round": 1, "choice": "approve", "by": "ann"}
        assert place.table.say(member, "vote", **vote).accepted
    shown = await place.get(f"decisions/{name}/votes")
    assert (shown["state"], shown["approve"], shown["record"]) == ("approved", 2, None)
    assert [vote["agent_id"] for vote in shown["votes"]] == ["b", "c"]


async def test_a_context_names_who_chose_it(place: Place) -> None:
    task = place.table.attempt("b")
    place.answer = {"task_id": task, "by": place.table.peer("b"), "items": [], "tokens": 0, "left_out": []}
    assert (await place.get("context", task=task, budget=100))["by"] == "b"
    assert place.asked[-1] == ("context", {"task_id": task, "budget_tokens": 100})
    for path, status in (("context", 422), ("context?task=x", 404), (f"context?task={task}&budget=0", 422)):
        assert (await place.surface.api.get(f"/api/v1/{path}")).status_code == status
