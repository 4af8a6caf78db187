"""Artifacts over HTTP: parts, conditions, all as one tar, and lists that lie in a blob."""

from __future__ import annotations

import hashlib
import io
import tarfile
import time
from dataclasses import replace
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chorus.api.ranges import Unsatisfiable, not_modified, part
from chorus.hub import HubNotFound, Request
from chorus.table.rows import StateChange

from .conftest import TASK_ID, Surface, attempt_row, task_row

BASE = f"/api/v1/tasks/{TASK_ID}"
CONTENT = b"0123456789"
ETAG = f'"{hashlib.sha256(CONTENT).hexdigest()}"'
PATH = f"{BASE}/artifacts/out/a.txt"


def item(path: str, content: bytes, mode: str | None = None) -> dict[str, Any]:
    made = {"path": path, "size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    return made if mode is None else {**made, "mode": mode}


def has_result(surface: Surface, result: dict[str, Any], content: bytes = b"") -> None:
    """A task that ended so, whose executor serves this content."""
    ended: dict[str, Any] = {"state": "completed", "finished_at": 1_700_000_000_000, "agent": "peer-b"}
    surface.table.row = task_row(attempt=1, agent_id="b", result=result, **ended)
    surface.table.attempt_rows = [attempt_row(state="completed", finished_at=1)]
    surface.executor.stdout = content


@pytest.fixture
def one(surface: Surface) -> Surface:
    has_result(surface, {"artifacts": [item("out/a.txt", CONTENT)]}, CONTENT)
    return surface


@pytest.mark.parametrize(
    ("asked", "content", "said"),
    [
        ("bytes=0-3", b"0123", "bytes 0-3/10"),
        ("bytes=8-", b"89", "bytes 8-9/10"),
        ("bytes=-3", b"789", "bytes 7-9/10"),
        ("bytes=5-100", b"56789", "bytes 5-9/10"),
        ("bytes=-100", CONTENT, "bytes 0-9/10"),
    ],
)
async def test_a_range_is_a_part(one: Surface, asked: str, content: bytes, said: str) -> None:
    answer = await one.api.get(PATH, headers={"Range": asked})
    assert (answer.status_code, answer.content) == (206, content)
    assert answer.headers["content-range"] == said
    assert answer.headers["content-length"] == str(len(content))
    assert answer.headers["etag"] == ETAG


@pytest.mark.parametrize(
    "asked", ["bytes=1-2,5-6", "lines=1-2", "bytes=", "bytes=-", "bytes=5-2", "x", "bytes=a-b"]
)
async def test_what_is_no_single_range_gets_everything(one: Surface, asked: str) -> None:
    answer = await one.api.get(PATH, headers={"Range": asked})
    assert (answer.status_code, answer.content) == (200, CONTENT)
    assert answer.headers["accept-ranges"] == "bytes"


@pytest.mark.parametrize("asked", ["bytes=10-", "bytes=-0", "bytes=999999999999-"])
async def test_a_range_outside_of_it_says_how_much_there_is(one: Surface, asked: str) -> None:
    answer = await one.api.get(PATH, headers={"Range": asked})
    assert answer.status_code == 416
    assert answer.headers["content-range"] == "bytes */10"


async def test_a_range_of_what_has_changed_is_everything(one: Surface) -> None:
    for tag, status in ((ETAG, 206), ('"other"', 200), (f"W/{ETAG}", 200)):
        answer = await one.api.get(PATH, headers={"Range": "bytes=0-1", "If-Range": tag})
        assert answer.status_code == status


@pytest.mark.parametrize("tags", ["*", ETAG, f"W/{ETAG}", f'"x", {ETAG}'])
async def test_what_the_client_has_is_not_sent(one: Surface, tags: str) -> None:
    answer = await one.api.get(PATH, headers={"If-None-Match": tags, "Range": "bytes=0-1"})
    assert (answer.status_code, answer.content) == (304, b"")
    assert answer.headers["etag"] == ETAG
    assert (await one.api.get(PATH, headers={"If-None-Match": '"x"'})).status_code == 200


async def test_head_is_get_without_the_content(one: Surface) -> None:
    for path in (PATH, f"{BASE}/artifacts.tar"):
        head, got = await one.api.head(path), await one.api.get(path)
        assert (head.status_code, head.content) == (200, b"")
        for name in ("content-length", "content-type", "etag", "content-disposition"):
            assert head.headers[name] == got.headers[name]
        assert int(got.headers["content-length"]) == len(got.content)
    assert (await one.api.head(f"{BASE}/artifacts/none")).status_code == 404
    one.executor.away = True
    assert (await one.api.head(PATH)).status_code == 503
    assert (await one.api.head(f"{BASE}/artifacts.tar")).status_code == 503


@given(st.integers(0, 50), st.one_of(st.none(), st.integers(0, 60)), st.one_of(st.none(), st.integers(0, 60)))
def test_a_part_is_what_slicing_gives(size: int, first: int | None, last: int | None) -> None:
    content = bytes(range(size))
    asked = f"bytes={'' if first is None else first}-{'' if last is None else last}"
    if first is None:
        wanted = content[max(0, size - last) :] if last else b""
    else:
        wanted = content[first:] if last is None else content[first : last + 1]
    nothing = first is None and last is None
    try:
        found = part(asked, None, "e", size)
    except Unsatisfiable:
        assert wanted == b""
        return
    if found is None:
        assert nothing or (first is not None and last is not None and last < first)
    else:
        assert content[found[0] : found[0] + found[1]] == wanted != b""


@given(st.text(max_size=30), st.integers(0, 100))
def test_no_header_breaks_it(text: str, size: int) -> None:
    not_modified(text, ETAG)
    for asked in (text, f"bytes={text}"):
        try:
            found = part(asked, None, ETAG, size)
        except Unsatisfiable:
            continue
        assert found is None or (found[0] >= 0 and 0 < found[1] <= size - found[0])


FILES = {"a": b"x" * 600, "bin/run é.sh": b"#!/bin/sh\n", "empty": b"", "d/" + "n" * 255: b"long"}
MODES = {"bin/run é.sh": "0755"}


async def test_all_as_one_tar(surface: Surface) -> None:
    listed = [item(path, content, MODES.get(path)) for path, content in FILES.items()]
    has_result(surface, {"artifacts": listed}, b"".join(FILES.values()))
    answer = await surface.api.get(f"{BASE}/artifacts.tar")
    assert answer.status_code == 200
    with tarfile.open(fileobj=io.BytesIO(answer.content)) as archive:
        for member in archive:
            assert (member.mode, member.mtime) == (0o755 if member.name in MODES else 0o644, 1_700_000_000)
        found = {member.name: archive.extractfile(member).read() for member in archive}  # type: ignore[union-attr]
    assert found == FILES
    assert f'filename="{TASK_ID}.tar"' in answer.headers["content-disposition"]
    again = await surface.api.get(f"{BASE}/artifacts.tar", headers={"If-None-Match": answer.headers["etag"]})
    assert again.status_code == 304


@pytest.mark.parametrize("content", [b"x" * 599, b"y" * 600 + b"#!/bin/sh\nlong"])
async def test_a_tar_of_other_bytes_is_cut_short(surface: Surface, content: bytes) -> None:
    """It never ends as if it were whole."""
    has_result(surface, {"artifacts": [item("a", b"x" * 600), item("b", b"b")]}, content)
    with pytest.raises(Exception, match=r"peer closed|incomplete"):
        await surface.api.get(f"{BASE}/artifacts.tar")


async def test_a_task_without_artifacts_has_no_tar(surface: Surface) -> None:
    has_result(
        surface, {"artifacts": [], "left_out": [{"path": "*.xml", "reason": "no file fits this pattern"}]}
    )
    assert (await surface.api.get(f"{BASE}/artifacts.tar")).status_code == 404
    listed = (await surface.api.get(f"{BASE}/artifacts")).json()
    assert listed["left_out"] == [{"path": "*.xml", "reason": "no file fits this pattern"}]
    assert (await surface.api.get(BASE)).json()["result"]["left_out"] == listed["left_out"]


async def test_a_list_in_a_blob_is_shown_whole(surface: Surface) -> None:
    listed = [item(f"f{number}", b"", "0600") for number in range(3000)]
    left_out = [{"path": "gone", "reason": "it cannot be read"}]
    encoded = orjson.dumps({"artifacts": listed, "left_out": left_out})
    blob = await surface.context.blobs.put_bytes(encoded)
    has_result(surface, {"artifacts_blob": {"sha256": blob.sha256, "size": blob.size, "count": 3000}})
    shown = (await surface.api.get(f"{BASE}/artifacts")).json()
    assert (shown["items"], shown["left_out"]) == (listed, left_out)
    result = (await surface.api.get(BASE)).json()["result"]
    assert (result["artifacts"], result["left_out"]) == (listed, left_out)
    assert (await surface.api.get(f"{BASE}/artifacts/f2999")).status_code == 200
    # Lists of tasks do not fetch it.
    [row] = (await surface.api.get("/api/v1/tasks")).json()["items"]
    assert "artifacts" not in row["result"]


@pytest.mark.parametrize("content", [None, b"{", b"[]", b'{"artifacts": 7}'])
async def test_a_list_that_cannot_be_had_is_said(surface: Surface, content: bytes | None) -> None:
    sha256 = "0" * 64
    if content is not None:
        sha256 = (await surface.context.blobs.put_bytes(content)).sha256
    has_result(surface, {"artifacts_blob": {"sha256": sha256, "size": 1, "count": 1}})
    answer = await surface.api.get(BASE)
    assert answer.status_code == 200
    assert answer.json()["result"]["artifacts"] == []
    assert (await surface.api.get(f"{BASE}/artifacts")).status_code in (200, 404, 502)


async def test_a_list_that_went_with_its_artifacts_is_gone(surface: Surface) -> None:
    async def coordinator(request: Request) -> dict[str, Any]:
        raise HubNotFound("blob from no holder")

    await surface.mesh.hub("a", "coordinator").offer("coordinator", coordinator)
    has_result(surface, {"artifacts_blob": {"sha256": "0" * 64, "size": 1, "count": 1}})
    # It ended in 2023.
    assert (await surface.api.get(f"{BASE}/artifacts")).status_code == 410
    [said] = (await surface.api.get(BASE)).json()["result"]["left_out"]
    assert said["reason"].endswith("has gone with them (CHORUS_RETENTION)")
    row = surface.table.row
    assert row is not None
    surface.table.row = replace(row, finished_at=time.time_ns() // 1_000_000)
    assert (await surface.api.get(f"{BASE}/artifacts")).status_code == 404


async def test_what_an_ended_task_left_is_removed(one: Surface) -> None:
    asked: list[dict[str, Any]] = []
    row = one.table.row
    assert row is not None

    async def coordinator(request: Request) -> dict[str, Any]:
        if request.method == "table.remove":
            asked.append(request.head)
            one.table.row = replace(row, removed_at=1_700_000_000_000, removed_by="a")
        return {}

    await one.mesh.hub("a", "coordinator").offer("coordinator", coordinator)
    answer = await one.api.delete(BASE)
    assert answer.status_code == 200
    assert answer.json()["removed_at"] == "2023-11-14T22:13:20.000Z"
    # Again changes nothing.
    assert (await one.api.delete(BASE)).status_code == 200
    assert asked == [{"task_id": TASK_ID, "by": "a"}]
    for path in (PATH, f"{BASE}/artifacts.tar", f"{BASE}/logs"):
        gone = await one.api.get(path)
        assert gone.status_code == 410
        assert "were removed by a on 2023-11-14T22:13:20.000Z" in gone.json()["detail"]
    # What is said of it stays.
    assert (await one.api.get(BASE)).json()["result"]["artifacts"]
    assert (await one.api.get(f"{BASE}/artifacts")).json()["items"]


async def test_a_task_that_goes_on_is_not_removed(surface: Surface) -> None:
    surface.table.row = task_row(state="running")
    answer = await surface.api.delete(BASE)
    assert (answer.status_code, answer.json()["state"]) == (409, "running")
    assert (await surface.api.delete("/api/v1/tasks/01J00000000000000000000009")).status_code == 404


async def test_what_its_time_was_over_for_is_gone_with_the_reason(one: Surface) -> None:
    async def stream(request: Request, stream: Any) -> None:
        raise HubNotFound("gone: it ended long ago (CHORUS_RETENTION)")

    one.table.changes = [
        StateChange(number, state, 1, "")
        for number, state in ((0, "announced"), (1, "announced"), (1, "claimed"), (1, "completed"))
    ]
    await one.mesh.hub("b", "executor").offer("output", one.executor.serve, peers=True, streams=stream)
    for path in (PATH, f"{BASE}/artifacts.tar", f"{BASE}/logs"):
        gone = await one.api.get(path)
        assert (gone.status_code, gone.json()["detail"]) == (410, "it ended long ago (CHORUS_RETENTION)")
    told = (await one.api.get(f"{BASE}/events")).text
    assert '"detail":"it ended long ago (CHORUS_RETENTION)"' in told
    assert "event: end" in told
