"""The index follows the table, whatever happens to its file, the DHT and the process."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sqlite3
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("chorus._core")

from chorus.core import UcxlError
from chorus.curator import feed as feeding
from chorus.curator import words, writer
from chorus.curator.feed import Feed
from chorus.curator.form import FORM_VERSION
from chorus.curator.index import IndexReader, Matter
from chorus.hub import HubError, HubNotFound, HubNotPermitted
from chorus.process.logs import Logger
from chorus.table.reader import TableReader
from chorus.testing.decided import STAMP_MS, Decided
from chorus.testing.decision_records import made, signed

DEADLINE_S = 60.0
LOG = Logger(logging.getLogger("test-feed"))


class Place:
    """One agent's table, DHT and index."""

    def __init__(self, folder: Path) -> None:
        self.table_path, self.path = folder / "table.sqlite", folder / "curator.sqlite"
        self.table = Decided(self.table_path)
        self.hub = self.table.mesh.hub("a", "coordinator")
        self.now = STAMP_MS
        self.asked: list[str] = []
        self.away: dict[str, HubError] = {}
        get = self.hub.dht_get

        async def dht_get(kind: str, name: str, **more: Any) -> Any:
            self.asked.append(name)
            if name in self.away:
                raise self.away[name]
            return await get(kind, name, **more)

        self.hub.dht_get = dht_get  # type: ignore[method-assign]

    @contextlib.asynccontextmanager
    async def feeding(self, role: str = "") -> AsyncIterator[Feed]:
        feed = Feed(
            self.hub, TableReader(self.table_path), self.path, lambda: role, LOG, wall_ms=lambda: self.now
        )
        running = asyncio.create_task(feed.run())
        try:
            yield feed
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    async def until(self, feed: Feed, true: Callable[[dict[str, int]], bool]) -> dict[str, int]:
        async with asyncio.timeout(DEADLINE_S):
            while not (counts := await feed.counts()) or not true(counts):
                assert not feed.trouble, feed.trouble
                feed.wake()
                await asyncio.sleep(0.005)
        return counts

    async def next_due(self, feed: Feed) -> int:
        """When what is pending is asked for again, once the last answer to that is written down."""
        async with asyncio.timeout(DEADLINE_S):
            while True:
                due = await feed._call(feed._index.next_due_ms)  # type: ignore[union-attr]
                if due is not None and due > self.now:
                    return due
                await asyncio.sleep(0.005)

    async def settled(self, feed: Feed, documents: int) -> dict[str, int]:
        return await self.until(feed, lambda now: (now["documents"], now["pending"]) == (documents, 0))


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


async def test_what_is_listed_is_found(place: Place) -> None:
    old = place.table.decide("b", title="count the words", project="books")
    async with place.feeding() as feed:
        await place.settled(feed, 1)
        new = place.table.decide("c", title="weigh the words", summary="heavier than thought")
        await place.settled(feed, 2)
    reader = IndexReader(place.path)
    assert {hit.hash for hit in reader.search("words")} == {old, new}
    (hit,) = reader.search("COUNT words")
    assert (hit.hash, hit.kind, hit.version) == (old, "task_result", 1)
    assert hit.address.startswith("ucxl://b:agent@books:")
    assert "count" in hit.snippet
    assert [hit.hash for hit in reader.search("heavier")] == [new]
    assert reader.search("words absent") == reader.search("") == reader.search('"') == []


async def test_words_without_spaces_between_them_are_found(place: Place) -> None:
    japanese = place.table.decide("b", title="Python言語で単語を数える", summary="速い実装を選んだ。")
    chinese = place.table.decide("c", title="统计词语", summary="选择了更快的实现")
    korean = place.table.decide("c", title="단어를 세다", summary="빠른 구현")
    async with place.feeding() as feed:
        await place.settled(feed, 3)
    reader = IndexReader(place.path)
    for text, found in {
        "単語": {japanese}, "語": {japanese}, "python": {japanese}, "Python 数える": {japanese},
        "言語で": {japanese}, "で言語": set(), "词语": {chinese}, "更快": {chinese}, "快 统计": {chinese},
        "단어": {korean}, "단어를": {korean}, "구현 단어": {korean}, "単 語": {japanese},
    }.items():  # fmt: skip
        assert {hit.hash for hit in reader.search(text)} == found, text
    (hit,) = reader.search("単語")
    assert "Python言語で単語を数える" in hit.snippet
    (candidate,) = reader.matching(Matter(title=tuple(words.words("単語の表"))))
    assert (candidate.hash, candidate.title, candidate.words) == (
        japanese,
        "Python言語で単語を数える",
        ("単語",),
    )


async def test_a_pattern_narrows_a_search(place: Place) -> None:
    for name, project in (("b", "books"), ("c", "books"), ("c", "maps")):
        place.table.decide(name, title="count", project=project)
    async with place.feeding() as feed:
        await place.settled(feed, 3)
    reader = IndexReader(place.path)

    def found(pattern: str, **more: Any) -> int:
        return len(reader.search("count", pattern=pattern, **more))

    assert found("ucxl://any:any@any:any/*~/") == 3
    assert found("ucxl://any:any@books:any/*~/") == 2
    assert found("ucxl://c:any@books:any/*~/1/") == 1
    assert found("ucxl://c:any@books:any/*~/2/") == 0
    assert found("ucxl://any:any@any:any/*~/", kinds=["content"]) == 0
    assert found("ucxl://any:any@any:any/*~/", kinds=["task_result"]) == 3
    with pytest.raises(UcxlError):
        found("books")


async def test_nothing_is_fetched_twice_after_a_restart(place: Place) -> None:
    hashes = {place.table.decide("b", title=f"task {n}") for n in range(5)}
    async with place.feeding() as feed:
        await place.settled(feed, 5)
    assert sorted(place.asked) == sorted(hashes)
    another = place.table.decide("b", title="one more")
    async with place.feeding() as feed:
        await place.settled(feed, 6)
    assert place.asked[5:] == [another]


async def test_a_killed_process_goes_on_where_it_was(place: Place) -> None:
    for n in range(40):
        place.table.decide("b", title=f"task {n}")
    # Cut off again and again, each time a little later.
    for moments in range(12):
        async with place.feeding() as feed:
            for _ in range(moments):
                await asyncio.sleep(0.002)
                feed.wake()
    async with place.feeding() as feed:
        await place.settled(feed, 40)


@pytest.mark.parametrize("harm", ["gone", "no index", "torn", "a later form", "an earlier form"])
async def test_a_file_that_is_lost_is_made_anew(place: Place, harm: str) -> None:
    place.table.decide("b", title="count the words")
    async with place.feeding() as feed:
        await place.settled(feed, 1)
    reader = IndexReader(place.path)
    assert len(reader.search("words")) == 1
    match harm:
        case "gone":
            place.path.unlink()
        case "no index":
            place.path.write_bytes(b"this is no database" * 1000)
        case "torn":
            content = bytearray(place.path.read_bytes())
            content[4096:] = bytes(len(content) - 4096)
            place.path.write_bytes(content)
        case "a later form" | "an earlier form":
            content = bytearray(place.path.read_bytes())
            content[60:64] = (99 if harm == "a later form" else FORM_VERSION - 1).to_bytes(
                4, "big"
            )  # user_version
            place.path.write_bytes(content)
    for end in ("-wal", "-shm"):
        place.path.with_name(place.path.name + end).unlink(missing_ok=True)
    # Until it is made anew a reader finds something or nothing, and goes on.
    reader.search("words")
    async with place.feeding() as feed:
        await place.settled(feed, 1)
        assert feed.trouble == ""
        assert len(reader.search("words")) == 1
        assert len(IndexReader(place.path).search("words")) == 1


async def test_with_other_keys_everything_is_looked_at_anew(place: Place) -> None:
    name = place.table.decide("b", title="plans of the house", role="architect")
    place.away[name] = HubNotPermitted("sealed for others")
    async with place.feeding("observer") as feed:
        await place.until(feed, lambda now: (now["skipped"], now["pending"]) == (1, 0))
    del place.away[name]
    async with place.feeding("observer") as feed:
        await place.settled(feed, 0)
    async with place.feeding("architect") as feed:
        await place.settled(feed, 1)
    assert len(IndexReader(place.path).search("house")) == 1


async def test_another_role_while_it_runs_has_everything_looked_at_anew(place: Place) -> None:
    name = place.table.decide("b", title="plans of the house", role="architect")
    place.away[name] = HubNotPermitted("sealed for others")
    async with place.feeding("observer") as feed:
        await place.until(feed, lambda now: (now["skipped"], now["pending"]) == (1, 0))
        del place.away[name]
        feed._whose = lambda: "architect"
        feed.wake()
        await place.settled(feed, 1)
    assert len(IndexReader(place.path).search("house")) == 1


async def test_the_index_of_another_mesh_is_not_taken_over(place: Place, tmp_path: Path) -> None:
    place.table.decide("b", title="count the words")
    async with place.feeding() as feed:
        await place.settled(feed, 1)
    place.table_path = tmp_path / "other.sqlite"
    place.table = Decided(place.table_path, place.table.mesh, "another")
    new = place.table.decide("b", title="weigh the words")
    async with place.feeding() as feed:
        await place.until(feed, lambda _: [h.hash for h in feed.reader.search("words")] == [new])
        await place.settled(feed, 1)


async def test_what_cannot_be_had_yet_is_tried_again_ever_more_seldom(place: Place) -> None:
    name = place.table.decide("b", title="late")
    place.away[name] = HubNotFound("nobody holds it now")
    async with place.feeding() as feed:
        waits = []
        for tries in range(1, 13):
            # Woken as often as one likes, it is asked for when its time has come.
            await place.until(feed, lambda _, tries=tries: len(place.asked) == tries)  # type: ignore[misc]
            due = await place.next_due(feed)
            waits.append(due - place.now)
            place.now = due
        assert waits[:4] == [1000, 2000, 4000, 8000]
        assert waits[-1] == feeding.RETRY_MAX_MS
        place.away.clear()
        await place.settled(feed, 1)


@pytest.mark.parametrize("what", ["altered", "sealed for others", "replayed", "moved", "of another"])
async def test_what_is_not_genuine_is_refused_once(
    place: Place, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    table = place.table
    task = table.attempt("b")
    plain = made(identity=table.members["b"], agent_id="b", task_id=task, attempt=1, title="count")
    encoded = signed(plain, table.members["b"])
    match what:
        case "altered":
            name = table.publish("b", encoded, plain)
            table.put("decision", name, encoded.replace(b"count", b"c0unt"), "b")
        case "sealed for others":
            name = table.publish("b", encoded, plain)
            table.put("decision", name, encoded, "b", "admin")
        case "replayed":
            other = table.attempt("b")
            table.publish("b", encoded, plain, task_id=other)
        case "moved":
            table.publish("b", encoded, plain, address="ucxl://b:agent@elsewhere:t/*^/1/decision.json")
        case "of another":
            table.publish("c", encoded, plain, task_id=table.attempt("c"))
    async with place.feeding() as feed:
        await place.until(feed, lambda now: (now["refused"], now["pending"]) == (1, 0))
    assert "not believed" in caplog.text
    assert len(place.asked) == 1
    assert IndexReader(place.path).search("count") == []


async def test_content_is_found_in_its_newest_version(place: Place) -> None:
    import hashlib

    here = "ucxl://b:agent@p:t/*^/docs/x.md"

    def write(text: bytes, address: str = here) -> None:
        name = hashlib.sha256(text).hexdigest()
        place.table.put("content", name, text, "b")
        body = {"address": address, "hash": name, "size": len(text), "content_type": "text/plain"}
        assert place.table.say("b", "version", **body).accepted

    write(b"the first draft")
    write(b"\xff\xfe\x00 no text", "ucxl://b:agent@p:t/*^/image")
    async with place.feeding() as feed:
        await place.settled(feed, 1)
        reader = IndexReader(place.path)
        (hit,) = reader.search("draft")
        assert (hit.address, hit.version, hit.kind) == (here, 1, "content")
        write(b"the second draft")
        await place.until(feed, lambda _: len(reader.search("second")) == 1)
        assert reader.search("first") == []
        assert [hit.version for hit in reader.search("draft")] == [2]
        place.table.say("b", "version", address=here, tombstone=True)
        await place.until(feed, lambda _: not reader.search("draft"))


async def test_much_is_taken_in_pieces(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feeding, "LISTED_MAX", 7)
    monkeypatch.setattr(feeding, "BATCH_MAX", 5)
    for n in range(30):
        place.table.decide("b", title=f"task {n}")
        place.table.say("b", "version", address=f"ucxl://b:agent@p:t/*^/{n}", tombstone=False, hash="0" * 64)
    async with place.feeding() as feed:
        await place.until(feed, lambda now: (now["documents"], now["pending"]) == (30, 30))


async def test_an_index_that_cannot_be_made_anew_is_tried_again(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.table.decide("b", title="count the words")
    monkeypatch.setattr(feeding, "TROUBLE_S", 0.001)
    remove, failures = writer._remove, [OSError("the disk is away"), sqlite3.OperationalError("locked")]

    def failing(path: Path) -> None:
        if failures:
            raise failures.pop()
        remove(path)

    async with place.feeding() as feed:
        await place.settled(feed, 1)
        monkeypatch.setattr(writer, "_remove", failing)
        queue = writer.IndexWriter.queue

        def damaged(*_: Any) -> None:
            monkeypatch.setattr(writer.IndexWriter, "queue", queue)
            error = sqlite3.DatabaseError("database disk image is malformed")
            error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
            raise error

        monkeypatch.setattr(writer.IndexWriter, "queue", damaged)
        monkeypatch.setattr(writer.IndexWriter, "sound", lambda _: len(failures) == 0)
        place.table.decide("b", title="weigh the words")
        async with asyncio.timeout(DEADLINE_S):
            while failures or (await feed.counts()).get("documents") != 2:
                feed.wake()
                await asyncio.sleep(0.005)
    assert len(IndexReader(place.path).search("words")) == 2


@pytest.mark.parametrize("error", [sqlite3.DatabaseError("malformed"), KeyError("odd")])
async def test_what_the_table_fails_with_costs_the_index_nothing(
    place: Place, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    place.table.decide("b", title="count the words")
    monkeypatch.setattr(feeding, "TROUBLE_S", 0.001)
    if isinstance(error, sqlite3.Error):
        error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
    async with place.feeding() as feed:
        await place.settled(feed, 1)
        mesh, errors = TableReader.mesh, [error] * 3

        def failing(reader: TableReader) -> Any:
            if errors:
                raise errors.pop()
            return mesh(reader)

        monkeypatch.setattr(TableReader, "mesh", failing)
        monkeypatch.setattr(writer.IndexWriter, "discard", lambda _: pytest.fail("the index was sound"))
        place.table.decide("b", title="weigh the words")
        async with asyncio.timeout(DEADLINE_S):
            while errors or (await feed.counts())["documents"] != 2:
                feed.wake()
                await asyncio.sleep(0.005)
