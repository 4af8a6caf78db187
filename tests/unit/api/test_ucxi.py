"""UCXI's surface where three agents would be too whole: broken content, hostile entries, no memory, no index,
and the form of every error. The table is a real one; what it is told is applied by the real rules.
"""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from chorus.api.context import UCXL
from chorus.api.ucxi_answers import Code
from chorus.decisions.content import content_max_bytes, sealed_to
from chorus.hub import DhtValue, HubError, Reply, Request
from chorus.hub.errors import error_from
from chorus.table.entries import Entry
from chorus.table.reader import TableReader
from chorus.table.store import TableStore

from .conftest import Surface

A = "ucxl://a:agent@p:t/*^/x"


class World:
    """A surface over a table of its own, written by whoever proposes."""

    def __init__(self, surface: Surface, store: TableStore) -> None:
        self.surface, self.store = surface, store
        self.fails: list[HubError] = []
        self.peer = surface.hub.peer_id
        self.say("found", {"mesh": "m", "agent": {"agent_id": "a", "role": "developer"}}, id="found")

    def say(self, type: str, body: dict[str, Any], *, id: str) -> Reply:
        index = self.store.applied + 1
        entry = Entry(index, 1_000 * index, type, id, self.peer, index - 1, body)
        (outcome,) = self.store.apply_batch([entry])
        return Reply({"index": index, "accepted": outcome.accepted, "reason": outcome.reason})

    async def coordinator(self, request: Request) -> Reply:
        assert request.method == "table.propose"
        if self.fails:
            raise self.fails.pop()
        return self.say(request.head["type"], orjson.loads(request.payload), id=request.head["id"])

    async def ask(self, method: str, route: str, address: str | None = A, **more: Any) -> httpx.Response:
        params = {**({} if address is None else {"address": address}), **more.pop("params", {})}
        return await self.surface.api.request(method, f"/ucxi/v1/{route}", params=params, **more)

    async def put(self, address: str = A, content: bytes = b"x", **headers: str) -> httpx.Response:
        return await self.ask("PUT", "put", address, content=content, headers=headers)


@pytest.fixture
async def world(surface: Surface, tmp_path: Path) -> AsyncIterator[World]:
    store = TableStore(tmp_path / "ucxl.sqlite")
    surface.context.table = TableReader(tmp_path / "ucxl.sqlite")
    made = World(surface, store)
    await surface.mesh.hub("a", "coordinator").offer("coordinator", made.coordinator)
    yield made
    surface.context.table.close()
    store.close()


def code(answer: httpx.Response) -> str:
    (inner,) = answer.json().values()
    found = str(inner["code"])
    assert Code(found).status == answer.status_code
    return found.removeprefix("UCXL-")


async def test_a_version_is_written_read_and_gone(world: World) -> None:
    answer = await world.put(content=b"one", **{"Content-Type": "text/plain"})
    assert (code(answer), answer.headers["etag"][:3]) == ("201-CREATED", '"1-')
    data = (await world.ask("GET", "get")).json()["response"]["data"]
    assert (data["content"], data["role"], data["agent_id"]) == ("one", "developer", "a")
    assert code(await world.put(content=b"two")) == "200-SUCCESS"
    assert code(await world.ask("DELETE", "delete")) == "204-NO_CONTENT"
    gone = await world.ask("GET", "get")
    assert (code(gone), gone.json()["error"]["details"]["deleted_by"]) == ("404-NOT_FOUND", 3)


@pytest.mark.parametrize(
    ("trouble", "status"),
    [
        ("not_found", "404-RESOLUTION_FAILED"),
        ("tampered", "404-RESOLUTION_FAILED"),
        ("not_permitted", "403-FORBIDDEN"),
        ("timeout", "503-SERVICE_UNAVAILABLE"),
        ("unavailable", "503-SERVICE_UNAVAILABLE"),
        ("quorum_failed", "503-SERVICE_UNAVAILABLE"),
        ("internal", "500-INTERNAL"),
    ],
)
async def test_content_that_cannot_be_had(
    world: World, monkeypatch: pytest.MonkeyPatch, trouble: str, status: str
) -> None:
    await world.put()

    async def fails(*_: Any, **__: Any) -> DhtValue:
        raise error_from(trouble, "so it is")

    monkeypatch.setattr(world.surface.hub, "dht_get", fails)
    answer = await world.ask("GET", "get")
    assert code(answer) == status
    assert "so it is" in answer.text
    assert ("Retry-After" in answer.headers) == (answer.status_code == 503)


async def test_content_that_is_not_what_its_entry_says(world: World) -> None:
    await world.put()
    (key,) = world.surface.mesh.records
    value = world.surface.mesh.records[key]
    world.surface.mesh.records[key] = dataclasses.replace(value, payload=b"another")
    assert code(await world.ask("GET", "get")) == "404-RESOLUTION_FAILED"


@pytest.mark.parametrize("trouble", ["no_leader", "timeout", "no_mesh", "not_leader"])
async def test_without_a_leader_writing_says_so(world: World, trouble: str) -> None:
    world.fails = [error_from(trouble, "none")]
    answer = await world.put()
    assert (code(answer), answer.headers["retry-after"]) == ("503-SERVICE_UNAVAILABLE", "1")
    assert answer.json()["error"]["cause"] == f"{trouble}: none"


@pytest.mark.parametrize("trouble", ["unavailable", "closed"])
async def test_a_coordinator_that_comes_back_is_asked_again(world: World, trouble: str) -> None:
    world.fails = [error_from(trouble, "killed")] * 2
    assert code(await world.put()) == "201-CREATED"


async def test_a_repeat_under_its_key_counts_once(world: World) -> None:
    for _ in range(2):
        answer = await world.put(**{"Idempotency-Key": "k"})
        assert answer.json()["response"]["data"]["version"] == 1
    assert code(await world.put(content=b"y", **{"Idempotency-Key": "k"})) == "409-CONFLICT"


async def test_more_content_than_there_is_memory_for_waits(world: World) -> None:
    await world.put(content=b"x" * 100)
    with world.surface.context.room.taken(2**40):
        # A content's worth is taken whatever was announced.
        free = world.surface.context.room._free
        world.surface.context.room._free = 10
        for answer in (await world.put(content=b"x" * 100), await world.ask("GET", "get")):
            assert (code(answer), answer.headers["retry-after"]) == ("429-TOO_MANY_REQUESTS", "1")
        world.surface.context.room._free = free
    assert code(await world.ask("GET", "get")) == "200-SUCCESS"


async def test_a_foreign_entry_puts_nothing_into_headers(world: World) -> None:
    body = {
        "address": A, "hash": "0" * 64, "content_type": "text/html\r\nSet-Cookie: a=b", "size": 2**53,
    }  # fmt: skip
    assert world.say("version", body, id="hostile").head["accepted"]
    data = (await world.ask("GET", "discover")).json()["response"]["data"]
    assert data["version"] == 1
    listed = (await world.ask("GET", "query")).json()["response"]["data"]["items"]
    assert [item["content_type"] for item in listed] == ["application/octet-stream"]


async def test_a_role_that_is_none_is_no_error_of_ours(world: World) -> None:
    address = f"ucxl://a:{'r' * 100}@p:t/*^/x"
    world.say("version", {"address": address, "hash": "0" * 64}, id="long")
    assert code(await world.ask("GET", "get", address)) == "400-INVALID_ADDRESS"


async def test_raw_content_does_not_run_in_a_browser(world: World) -> None:
    await world.put(content=b"<script>", **{"Content-Type": "text/html"})
    answer = await world.ask("GET", "get", params={"raw": "true"})
    assert (answer.content, answer.headers["content-type"]) == (b"<script>", "text/html")
    assert answer.headers["content-security-policy"].startswith("sandbox")
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("role", ["agent", "developer"])
async def test_the_limit_is_what_can_be_sealed_at_once(world: World, role: str) -> None:
    limit = content_max_bytes(role)
    assert (limit < 16 * 1024 * 1024) == (sealed_to(role) is not None)
    address = f"ucxl://a:{role}@p:t/*^/large"
    assert code(await world.put(address, b"x" * limit)) == "201-CREATED"
    assert code(await world.put(address, b"x" * (limit + 1))) == "413-PAYLOAD_TOO_LARGE"


async def test_full_text_needs_an_index(world: World, tmp_path: Path) -> None:
    answer = await world.ask("GET", "query", params={"text": "words"})
    assert (code(answer), answer.json()["error"]["details"]) == (
        "503-SERVICE_UNAVAILABLE",
        {"index": "absent"},
    )


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        ("GET", "/ucxi/v1/get", {"Authorization": ""}, "401-UNAUTHORIZED"),
        ("GET", "/ucxi/v1/get", {"Host": "evil.example"}, "403-FORBIDDEN"),
        ("GET", "/ucxi/v1/get", {}, "400-INVALID_ADDRESS"),
        ("PUT", "/ucxi/v1/get", {}, "405-METHOD_NOT_ALLOWED"),
        ("GET", "/ucxi/v1/", {}, "404-NOT_FOUND"),
        ("GET", "/ucxi/nothing", {}, "404-NOT_FOUND"),
        ("PUT", "/ucxi/v1/put", {"Content-Type": "multipart/form-data"}, "413-PAYLOAD_TOO_LARGE"),
    ],
)
async def test_every_error_has_the_form(
    surface: Surface, method: str, path: str, headers: dict[str, str], status: str
) -> None:
    content = b"x" * (16 * 1024 * 1024 + 1) if status.startswith("413") else None
    answer = await surface.api.request(method, path, headers=headers, content=content)
    assert code(answer) == status
    error = answer.json()["error"]
    assert set(error) == {
        "code", "message", "details", "source", "path", "request_id", "timestamp", "cause"
    }  # fmt: skip
    assert (error["source"], error["path"]) == ("ucxi-server", path)


@pytest.mark.parametrize("more_environ", [{"CHORUS_UCXI_ENABLED": "false"}])
async def test_switched_off_it_is_not_there(surface: Surface) -> None:
    answer = await surface.api.get("/ucxi/v1/status")
    assert code(answer) == "404-NOT_FOUND"
    document = (await surface.api.get("/openapi.json")).json()
    assert not [path for path in document["paths"] if path.startswith("/ucxi/")]


async def test_an_error_inside_has_the_form_too(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks(address: str) -> None:
        raise RuntimeError("broken")

    monkeypatch.setattr(world.surface.context.table.ucxl, "head", breaks)
    answer = await world.ask("GET", "get")
    assert code(answer) == "500-INTERNAL"
    assert "broken" not in answer.text


async def test_news_come_when_the_table_says_so(world: World) -> None:
    url, params = "/ucxi/v1/subscribe", {"address": "ucxl://any:any@p:any/*^/"}
    async with world.surface.api.stream("GET", url, params=params) as answer:
        lines = answer.aiter_lines()
        assert await anext(lines) == "retry: 1000"
        await world.put()
        world.surface.context.changes._wake([UCXL])
        found = [line async for line in _until_data(lines)]
    assert found[0] == f"id: {world.store.applied}"
    assert found[1] == "event: version"
    assert orjson.loads(found[2].removeprefix("data: "))["address"] == A.replace("*^", "*~1")


async def _until_data(lines: AsyncIterator[str]) -> AsyncIterator[str]:
    async for line in lines:
        if line:
            yield line
        if line.startswith("data: "):
            return


async def test_every_code_of_a_route_is_documented(surface: Surface) -> None:
    document = (await surface.api.get("/openapi.json")).json()
    routes = {path: item for path, item in document["paths"].items() if path.startswith("/ucxi/")}
    assert len(routes) == 10
    told: set[str] = set()
    for item in routes.values():
        for operation in item.values():
            assert set(operation["responses"]) >= {
                "400",
                "401",
                "403",
                "404",
                "405",
                "413",
                "429",
                "500",
                "503",
            }
            for status, said in operation["responses"].items():
                if status == "304":
                    continue
                (_, content), *_ = said["content"].items()
                assert "example" in content
                if isinstance(content["example"], dict):
                    (inner,) = content["example"].values()
                    assert Code(inner["code"]).status == int(status)
                    told |= set(
                        content["schema"]["properties"].popitem()[1]["properties"]["code"].get("enum", ())
                    )
                    told.add(inner["code"])
    assert told == set(Code)
