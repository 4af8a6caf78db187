"""Tokens, problems, bodies, submission and the routes about the mesh."""

from __future__ import annotations

import asyncio
import errno
import gzip
import hashlib
import io
import os
import sqlite3
import tarfile
import threading
from typing import Any

import orjson
import pytest

from chorus.api.guard import JSON_MAX_BYTES
from chorus.hub import Request
from chorus.process import metrics
from chorus.testing import hostile_archives as hostile

from .conftest import T0, TASK_ID, Surface, attempt_row, task_row

LICENCE = "dev-0123456789abcdef"


def archive(size: int = 10) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        member = tarfile.TarInfo("f")
        member.size = size
        tar.addfile(member, io.BytesIO(b"x" * size))
    return buffer.getvalue()


@pytest.mark.parametrize("path", ["/api/v1/tasks", "/api/v1/status", "/docs", "/openapi.json", "/nothing"])
@pytest.mark.parametrize("authorization", ["", "Bearer wrong", "Basic a-token-for-tests-only"])
async def test_everything_needs_the_token(surface: Surface, path: str, authorization: str) -> None:
    answer = await surface.api.get(path, headers={"Authorization": authorization})
    assert answer.status_code == 401
    assert answer.headers["content-type"] == "application/problem+json"
    assert "WWW-Authenticate" in answer.headers
    assert answer.json()["status"] == 401


async def test_metrics_need_no_token_and_name_the_contract(surface: Surface) -> None:
    answer = await surface.api.get("/metrics", headers={"Authorization": ""})
    assert answer.status_code == 200
    names = {line.split("{")[0].split(" ")[0] for line in answer.text.splitlines() if line[:1] != "#"}
    for name in metrics.CONTRACT:
        assert name in names or f"{name}_count" in names


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Host": "evil.example"},
    ],
)
async def test_other_sites_are_refused(surface: Surface, headers: dict[str, str]) -> None:
    answer = await surface.api.get("/api/v1/tasks", headers=headers)
    assert answer.status_code == 403


async def test_what_is_not_there_is_a_problem(surface: Surface) -> None:
    for path in ("/nothing", "/api/v1/tasks/nope", f"/api/v1/tasks/{TASK_ID}", "/api/v1/decisions/zz"):
        answer = await surface.api.get(path)
        assert (answer.status_code, answer.headers["content-type"]) == (404, "application/problem+json")
    answer = await surface.api.put("/api/v1/tasks")
    assert answer.status_code == 405
    assert answer.json()["title"] == "Method Not Allowed"


async def test_a_task_is_submitted_as_json(surface: Surface) -> None:
    answer = await surface.api.post("/api/v1/tasks", json={"title": "t", "commands": ["true"]})
    assert answer.status_code == 201
    task_id = answer.json()["task_id"]
    assert answer.headers["location"] == f"/api/v1/tasks/{task_id}"
    assert surface.submitted[0]["task"]["task_id"] == task_id
    assert surface.submitted[0]["submitted_by"] == "a"


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        (b"{", 400, None),
        (b"\xff", 400, None),
        (b"[]", 422, ""),
        (b"{}", 422, "title"),
        (b'{"title":"t","nonsense":1}', 422, "nonsense"),
        (b'{"title":"t","commands":[""]}', 422, "commands.0"),
        (b'{"title":"t","source":{"kind":"blob","sha256":"' + b"0" * 64 + b'"}}', 422, "source.sha256"),
    ],
)
async def test_bad_tasks_name_the_field(
    surface: Surface, body: bytes, status: int, field: str | None
) -> None:
    answer = await surface.api.post(
        "/api/v1/tasks", content=body, headers={"Content-Type": "application/json"}
    )
    assert answer.status_code == status
    if field is not None:
        assert field in [error["field"] for error in answer.json()["errors"]]
    assert not surface.submitted


async def test_large_bodies_are_refused(surface: Surface) -> None:
    answer = await surface.api.post("/api/v1/tasks", content=b" " * (1024 * 1024 + 1))
    assert answer.status_code == 413

    async def unannounced() -> Any:
        for _ in range(20):
            yield b" " * 65536

    answer = await surface.api.post("/api/v1/tasks", content=unannounced())
    assert answer.status_code == 413


async def test_other_kinds_of_bodies_are_refused(surface: Surface) -> None:
    answer = await surface.api.post("/api/v1/tasks", content=b"a", headers={"Content-Type": "text/plain"})
    assert answer.status_code == 415
    for kind in ("multipart/form-data", "multipart/form-data; boundary=x"):
        answer = await surface.api.post("/api/v1/tasks", content=b"junk", headers={"Content-Type": kind})
        assert answer.status_code == 400


@pytest.mark.parametrize("size", [0, 10, 3_000_000])
async def test_a_source_goes_to_the_blobs_whole(surface: Surface, size: int) -> None:
    content = archive(size)
    files = {"task": (None, b'{"title":"t"}'), "source": ("s.tar", content)}
    answer = await surface.api.post("/api/v1/tasks", files=files)
    assert answer.status_code == 201, answer.text
    source = surface.submitted[0]["task"]["source"]
    assert source["sha256"] == hashlib.sha256(content).hexdigest()
    assert surface.context.blobs.path(source["sha256"]).read_bytes() == content


@pytest.mark.parametrize(
    "files",
    [
        {"source": ("s.tar", archive())},
        {"task": (None, b'{"title":"t"}'), "source": ("s.tar", b"no archive")},
        {"task": (None, b'{"title":"t"}'), "other": (None, b"")},
        {"task": (None, b'{"title":"t","source":{"kind":"inline","files":{}}}'), "source": ("s", archive())},
        {
            "task": (None, b'{"title":"t","source":{"kind":"archive","sha256":"' + b"0" * 64 + b'"}}'),
            "source": ("s", archive()),
        },
    ],
)
async def test_bad_parts_are_refused(surface: Surface, files: dict[str, Any]) -> None:
    answer = await surface.api.post("/api/v1/tasks", files=files)
    assert answer.status_code == 422
    assert not surface.submitted


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("gnu_long_name", "allowed"),
        ("pax_header", "allowed"),
        ("content", "resources.disk_mb"),
        ("up", "../up"),
    ],
)
async def test_an_archive_that_no_sandbox_takes_is_no_task(surface: Surface, name: str, said: str) -> None:
    source = hostile.plain({"../up": b""}) if name == "up" else hostile.BOMBS[name]()
    task = b'{"title":"t","resources":{"disk_mb":64}}'
    for _ in range(2):
        files = {"task": (None, task), "source": ("s.tar.gz", source)}
        answer = await surface.api.post("/api/v1/tasks", files=files)
        assert answer.status_code == 422
        [problem] = answer.json()["errors"]
        assert problem["field"] == "source"
        assert said in problem["message"]
    assert not surface.submitted


DAMAGED = {
    "cut in a member": archive(5000)[:3000],
    "cut before the end": archive(10)[:1024],
    "cut in gzip": gzip.compress(archive(5000))[:-9],
    "wrong checksum of gzip": gzip.compress(archive(5000))[:-8] + bytes(8),
    "wrong checksum of a header": b"g" + archive()[1:],
    "second archive": gzip.compress(archive()) + gzip.compress(archive()),
    "garbage behind": gzip.compress(archive()) + b"more",
    "nothing": b"",
    "nothing in gzip": gzip.compress(b""),
}


@pytest.mark.parametrize("name", list(DAMAGED))
async def test_a_damaged_source_is_no_task_however_it_comes(surface: Surface, name: str) -> None:
    files = {"task": (None, b'{"title":"t"}'), "source": ("s", DAMAGED[name])}
    sent = await surface.api.post("/api/v1/tasks", files=files)
    blob = await surface.context.blobs.put_bytes(DAMAGED[name])
    for kind in ("archive", "blob"):
        task = {"title": "t", "source": {"kind": kind, "sha256": blob.sha256}}
        answer = await surface.api.post("/api/v1/tasks", json=task)
        assert sent.status_code == answer.status_code == 422
        assert [error["field"] for error in answer.json()["errors"]] == ["source"]
    assert not surface.submitted


@pytest.mark.parametrize(
    "source",
    [
        bytes(10240),
        gzip.compress(bytes(1024)),
        gzip.compress(archive(5000)[:700]) + gzip.compress(archive(5000)[700:]),
        hostile.header(b"old", magic=b"") + bytes(1024),
    ],
)
async def test_a_source_that_is_whole_is_a_task(surface: Surface, source: bytes) -> None:
    files = {"task": (None, b'{"title":"t"}'), "source": ("s", source)}
    answer = await surface.api.post("/api/v1/tasks", files=files)
    assert answer.status_code == 201, answer.text


async def test_another_kind_of_archive_is_named(surface: Surface) -> None:
    files = {"task": (None, b'{"title":"t"}'), "source": ("s.zip", b"PK\3\4" + bytes(600))}
    answer = await surface.api.post("/api/v1/tasks", files=files)
    assert answer.status_code == 422
    assert "zip" in answer.json()["errors"][0]["message"]


async def test_a_source_that_was_well_is_measured_against_each_tasks_disk(surface: Surface) -> None:
    source = archive(3_000_000)
    for disk_mb, status in ((64, 201), (64, 201), (2, 422)):
        task = b'{"title":"t","resources":{"disk_mb":%d}}' % disk_mb
        files = {"task": (None, task), "source": ("s.tar", source)}
        assert (await surface.api.post("/api/v1/tasks", files=files)).status_code == status


async def test_large_inline_files_and_input_become_blobs(surface: Surface) -> None:
    files = {"b.txt": "x" * 70_000, "a/run.sh": "#!/bin/sh\n"}
    for _ in range(2):
        answer = await surface.api.post(
            "/api/v1/tasks",
            json={"title": "t", "source": {"kind": "inline", "files": files}, "stdin": "z" * 70_000},
        )
        assert answer.status_code == 201, answer.text
    first, second = (head["task"] for head in surface.submitted)
    assert first["source"]["kind"] == "blob"
    assert first["source"]["sha256"] == second["source"]["sha256"]
    with tarfile.open(surface.context.blobs.path(first["source"]["sha256"])) as tar:
        assert [(member.name, member.mode) for member in tar] == [("a/run.sh", 0o755), ("b.txt", 0o644)]
    assert surface.context.blobs.path(first["stdin_sha256"]).read_bytes() == b"z" * 70_000


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", f"/api/v1/tasks/{TASK_ID}/cancel"),
        ("POST", f"/api/v1/tasks/{TASK_ID}/retry"),
        ("POST", f"/api/v1/decisions/{'0' * 64}/votes"),
        ("POST", "/ucxi/v1/announce"),
        ("GET", "/api/v1/tasks"),
        ("GET", "/ucxi/v1/put"),
        ("POST", "/api/v1/nothing"),
    ],
)
async def test_a_kind_of_body_raises_the_limit_of_no_other_route(
    surface: Surface, method: str, path: str
) -> None:
    for kind in ("multipart/form-data; boundary=x", "multipart/mixed; boundary=x", "application/json"):
        content = bytes(JSON_MAX_BYTES + 1)
        answer = await surface.api.request(method, path, headers={"Content-Type": kind}, content=content)
        assert answer.status_code == 413, (kind, answer.text)
        assert f"larger than {JSON_MAX_BYTES} bytes" in answer.text


async def test_a_list_has_tasks_in_short_and_is_read_beside_the_loop(
    surface: Surface, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = {"title": "t", "commands": ["true"], "description": "long", "project": "p"}
    task |= {"source": {"kind": "inline", "files": {"a": "b"}}, "env": {"A": "b"}}
    result = {"exit_code": 0, "ended_by": "exit", "summary": "s", "commands": [{"command": "true"}]}
    surface.table.row = task_row(task=task, state="completed", finished_at=T0, result=result, decision="ucxl")
    threads = []
    tasks = surface.table.tasks

    def noticed(**wanted: Any) -> Any:
        threads.append(threading.current_thread())
        return tasks(**wanted)

    monkeypatch.setattr(surface.table, "tasks", noticed)
    (item,) = (await surface.api.get("/api/v1/tasks?limit=500")).json()["items"]
    whole = (await surface.api.get(f"/api/v1/tasks/{TASK_ID}")).json()
    assert threads != [threading.main_thread()]
    assert len(threads) == 1
    left_out = {"commands", "description", "source", "env", "attempts", "lost"}
    assert {name: whole[name] for name in whole if name not in left_out | {"result"}} == {
        name: value for name, value in item.items() if name != "result"
    }
    assert item["result"] == {"exit_code": 0, "ended_by": "exit", "summary": "s", "decision": "ucxl"}


@pytest.mark.parametrize("content", [b"", b"a line\n", bytes(range(256)) * 400])
async def test_standard_input_comes_as_a_part(surface: Surface, content: bytes) -> None:
    files = {"task": (None, b'{"title":"t"}'), "stdin": ("stdin", content)}
    answer = await surface.api.post("/api/v1/tasks", files=files)
    assert answer.status_code == 201, answer.text
    [head] = surface.submitted
    assert head["task"]["stdin"] == ""
    assert surface.context.blobs.path(head["task"]["stdin_sha256"]).read_bytes() == content


@pytest.mark.parametrize(
    ("task", "said"),
    [
        ({"stdin": "x"}, "the part stdin is the standard input"),
        ({"stdin_sha256": "0" * 64}, "the part stdin is the standard input"),
        ({"resources": {"disk_mb": 1}}, "resources.disk_mb: 1"),
    ],
)
async def test_standard_input_that_cannot_be_is_refused(
    surface: Surface, task: dict[str, Any], said: str
) -> None:
    files = {"task": (None, orjson.dumps({"title": "t", **task})), "stdin": ("stdin", b"x" * 1_200_000)}
    answer = await surface.api.post("/api/v1/tasks", files=files)
    assert answer.status_code == 422
    [problem] = answer.json()["errors"]
    assert problem["field"] == "stdin"
    assert said in problem["message"]
    assert not surface.submitted


async def test_cancel(surface: Surface) -> None:
    surface.table.row = task_row()
    assert (await surface.api.post(f"/api/v1/tasks/{TASK_ID}/cancel")).status_code == 202
    answer = await surface.api.post(f"/api/v1/tasks/{TASK_ID}/cancel", json={"why": "x"})
    assert answer.status_code == 422
    surface.table.row = task_row(state="completed", finished_at=1)
    assert (await surface.api.post(f"/api/v1/tasks/{TASK_ID}/cancel")).status_code == 409
    assert (await surface.api.post(f"/api/v1/tasks/{TASK_ID}/retry")).status_code == 409
    surface.table.row = task_row(state="failed", finished_at=1)
    assert (await surface.api.post(f"/api/v1/tasks/{TASK_ID}/retry")).status_code == 202


async def test_a_cancel_that_overtakes_its_task_is_taken(surface: Surface) -> None:
    answer = await surface.api.post(f"/api/v1/tasks/{TASK_ID}/cancel", json={"reason": "typed wrongly"})
    assert answer.status_code == 202
    said = answer.json()
    assert (said["task_id"], said["state"]) == (TASK_ID, None)
    assert "knows no such task yet" in said["reason"]
    assert (await surface.api.post("/api/v1/tasks/x/cancel")).status_code == 404
    # A retry has nothing to wait for.
    assert (await surface.api.post(f"/api/v1/tasks/{TASK_ID}/retry")).status_code == 404


@pytest.mark.parametrize("query", ["state=no", "limit=0", "limit=x", "cursor=x"])
async def test_bad_filters_name_the_parameter(surface: Surface, query: str) -> None:
    answer = await surface.api.get(f"/api/v1/tasks?{query}")
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == query.partition("=")[0]


async def test_the_mesh_is_shown(surface: Surface) -> None:
    surface.table.row = task_row()
    for path in ("status", "tasks", "agents", "peers", "members", "election", "decisions", "log"):
        answer = await surface.api.get(f"/api/v1/{path}")
        assert answer.status_code == 200, (path, answer.text)
        if path not in ("status", "election"):
            assert set(answer.json()) >= {"items", "next"}
    assert (await surface.api.get("/api/v1/status")).json()["mesh"]["leader"] == "a"
    assert (await surface.api.get("/openapi.json")).status_code == 200


async def test_probes(surface: Surface) -> None:
    assert (await surface.probes.get("/healthz")).status_code == 200
    answer = await surface.probes.get("/health")
    assert answer.status_code == 200
    body = answer.json()
    assert set(body) >= {
        "status", "ready", "agent_id", "version", "license", "p2p", "dht", "election", "coordinator", "api",
        "docker", "ai", "tasks", "last_heartbeat", "checks",
    }  # fmt: skip
    assert body["status"] == "healthy"
    assert (await surface.probes.get("/ready")).status_code == 200
    surface.mesh.cut("a", "b")
    await surface.observer.observe()
    assert (await surface.probes.get("/health")).json()["status"] == "unhealthy"
    answer = await surface.probes.get("/ready")
    assert answer.status_code == 503
    assert any("peer" in reason for reason in answer.json()["reasons"])
    assert (await surface.probes.get("/healthz")).status_code == 200


async def test_health_has_the_details_of_the_contract(surface: Surface) -> None:
    async def election(request: Request) -> dict[str, Any]:
        return {"ok": True, "detail": "", "last_heartbeat": "2026-01-01T00:00:00.000Z"}

    await surface.mesh.hub("a", "election").offer("election", election)
    surface.table.running_on = lambda peer: [attempt_row(1), attempt_row(2)]  # type: ignore[method-assign]
    await surface.observer.observe()
    asking = surface.observer._dht_task
    assert asking is not None
    await asking
    await surface.observer.observe()
    body = (await surface.probes.get("/health")).json()
    assert body["p2p"] == {"connected": True, "peers": 1}
    assert body["dht"]["reachable"] is True
    assert body["tasks"] == {"active": 2, "max": 3, "available": 1}
    assert body["last_heartbeat"] == "2026-01-01T00:00:00.000Z"
    # At most capacity is there: it is healthy, and takes no task.
    surface.table.running_on = lambda peer: [attempt_row(n) for n in range(3)]  # type: ignore[method-assign]
    await surface.observer.observe()
    assert (await surface.probes.get("/health")).status_code == 200
    answer = await surface.probes.get("/ready")
    assert (answer.status_code, answer.json()["reasons"]) == (503, ["capacity: 3 of 3 tasks active"])


@pytest.mark.parametrize("more_environ", [{"CHORUS_LICENSE_ID": LICENCE, "CHORUS_P2P_HOST": "0.0.0.0"}])
async def test_what_is_shown_of_the_licence(surface: Surface) -> None:
    await surface.observer.observe()
    health = await surface.probes.get("/health")
    shown = health.json()["license"]
    assert (shown["valid"], shown["id"], shown["kind"]) == (True, "development …cdef", "development")
    assert (shown["state"], shown["until"]) == ("valid", None)
    [warning] = health.json()["warnings"]
    assert "0.0.0.0" in warning
    status = await surface.api.get("/api/v1/status")
    assert status.json()["license"] == shown
    pages = [health, status, await surface.api.get("/metrics"), await surface.probes.get("/ready")]
    for page in pages:
        assert LICENCE not in page.text


async def test_an_unforeseen_error_ends_only_its_request(
    surface: Surface, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*args: Any, **named: Any) -> Any:
        raise RuntimeError("nobody foresaw it")

    monkeypatch.setattr(surface.table, "tasks", fail)
    before = metrics.HTTP_REQUESTS.labels("GET", "500")._value.get()
    for _ in range(20):
        answer = await surface.api.get("/api/v1/tasks")
        assert (answer.status_code, answer.headers["content-type"]) == (500, "application/problem+json")
    assert metrics.HTTP_REQUESTS.labels("GET", "500")._value.get() == before + 20
    # Told once and counted after that, however many there are.
    told = [record for record in caplog.records if record.exc_info]
    assert len(told) == 1
    assert (await surface.api.get("/api/v1/status")).status_code == 200


async def test_an_odd_answer_of_a_sibling_costs_one_look(
    surface: Surface, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = asyncio.Queue[None]()

    async def odd() -> Any:
        looks.put_nowait(None)
        return ["no", "state"]

    monkeypatch.setattr(surface.hub, "net_state", odd)
    running = asyncio.create_task(surface.observer.run())
    async with asyncio.timeout(30):
        for _ in range(3):
            await looks.get()
    assert not running.done()
    running.cancel()


def test_orjson_escapes_newlines() -> None:
    # Server-sent events rely on it: `data` is one line.
    assert b"\n" not in orjson.dumps({"text": "a\nb\r\u2028"})


@pytest.mark.parametrize(("number", "status"), [(errno.ENOSPC, 507), (errno.EROFS, 503), (errno.EPERM, 500)])
async def test_a_disk_that_takes_no_source(
    surface: Surface, monkeypatch: pytest.MonkeyPatch, number: int, status: int
) -> None:
    async def fail(*args: Any, **named: Any) -> Any:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(surface.context.blobs, "put", fail)
    # More than lies in buffers: the answer comes while the client still sends.
    files = {"task": (None, '{"title": "t", "commands": ["true"]}'), "source": ("s.tar", b"x" * 16_000_000)}
    answer = await surface.api.post("/api/v1/tasks", files=files)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    if status != 500:
        assert os.strerror(number) in answer.json()["detail"]


@pytest.mark.parametrize("more_environ", [{"CHORUS_BLOBS_SIZE": "1MB"}])
async def test_sources_have_a_limit_together(surface: Surface) -> None:
    source = io.BytesIO()
    with tarfile.open(fileobj=source, mode="w") as archive:
        member = tarfile.TarInfo("f")
        member.size = 2_000_000
        archive.addfile(member, io.BytesIO(bytes(member.size)))
    files = {"task": (None, '{"title": "t", "commands": ["true"]}'), "source": ("s.tar", source.getvalue())}
    answer = await surface.api.post("/api/v1/tasks", files=files)
    assert answer.status_code == 507
    assert answer.json()["limit"] == 1024 * 1024
    assert "CHORUS_BLOBS_SIZE" in answer.json()["detail"]
    assert surface.context.blobs.ledger.used_bytes() == {}


async def test_a_table_that_cannot_be_read(surface: Surface, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any, **named: Any) -> Any:
        raise sqlite3.OperationalError("disk I/O error")

    surface.table.row = task_row()
    for name in ("task", "running_on", "member"):
        monkeypatch.setattr(surface.table, name, fail)
    answer = await surface.api.get(f"/api/v1/tasks/{TASK_ID}")
    assert answer.status_code == 503
    assert "disk I/O error" in answer.json()["detail"]
    await surface.observer.observe()
    health = await surface.probes.get("/health")
    assert health.status_code == 503
    (check,) = [check for check in health.json()["checks"] if check["name"] == "coordinator"]
    assert (check["ok"], "disk I/O error" in check["detail"]) == (False, True)


async def test_what_the_mesh_refuses_of_a_task_is_named_by_its_field(surface: Surface) -> None:
    task = {"title": "t", "depends_on": [TASK_ID]}
    answer = await surface.api.post("/api/v1/tasks", json=task)
    assert answer.status_code == 422
    assert answer.json()["errors"] == [{"field": "depends_on", "message": "the mesh knows no such task"}]


async def test_times_out_of_bounds_are_named(surface: Surface) -> None:
    answer = await surface.api.post(
        "/api/v1/tasks", json={"title": "t", "start_by": "9999-12-31T23:59:59-14:00"}
    )
    assert answer.status_code == 422
    (error,) = answer.json()["errors"]
    assert (error["field"], error["message"]) == ("start_by", "give a time of the years 1970 to 9998")
