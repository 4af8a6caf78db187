"""Blobs on disk and between members."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from chorus.blobs import BlobMismatch, BlobStore, BlobTooLarge
from chorus.blobs.exchange import fetch, has, push, serve_stream
from chorus.hub import DISK_PREFIX, ByteStream, HubError, HubInvalid, HubNotFound, Request
from chorus.testing.fake_hub import FakeHub, FakeMesh

DATA = bytes(range(256)) * 10_000
SHA = hashlib.sha256(DATA).hexdigest()


async def chunks(data: bytes = DATA) -> AsyncIterator[bytes]:
    for start in range(0, len(data), 100_000):
        yield data[start : start + 100_000]


async def test_what_is_put_can_be_read(tmp_path: Path) -> None:
    store = BlobStore(tmp_path / "blobs")
    assert not store.has(SHA)
    blob = await store.put(chunks(), sha256=SHA)
    assert (blob.sha256, blob.size) == (SHA, len(DATA))
    assert store.path(SHA).read_bytes() == DATA
    assert b"".join([chunk async for chunk in store.read(SHA)]) == DATA
    assert await store.put_bytes(DATA) == blob


async def test_nothing_is_left_of_what_is_refused(tmp_path: Path) -> None:
    store = BlobStore(tmp_path / "blobs")
    with pytest.raises(BlobMismatch):
        await store.put(chunks(), sha256="0" * 64)
    with pytest.raises(BlobTooLarge):
        await store.put(chunks(), limit=1000)
    assert [path for path in (tmp_path / "blobs").rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("name", ["", "../x", "A" * 64, "0" * 63])
def test_names_are_hashes(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="SHA-256"):
        BlobStore(tmp_path).path(name)


async def member(mesh: FakeMesh, name: str, folder: Path) -> tuple[FakeHub, BlobStore]:
    store = BlobStore(folder / name)
    hub = mesh.hub(name, "coordinator")

    async def serve(request: Request) -> dict[str, object]:
        return has(store, request)

    async def stream(request: Request, stream: ByteStream) -> None:
        await serve_stream(store, request, stream)

    await hub.offer("coordinator", serve, peers=True, streams=stream)
    return hub, store


async def test_blobs_go_from_member_to_member(tmp_path: Path) -> None:
    mesh = FakeMesh()
    (a, mine), (b, theirs), (c, last) = [await member(mesh, name, tmp_path) for name in "abc"]
    await mine.put(chunks())
    await push(a, mine, SHA, b.peer_id)
    await push(a, mine, SHA, b.peer_id)
    assert theirs.path(SHA).read_bytes() == DATA
    mesh.cut("a", "c")
    await fetch(c, last, SHA, [a.peer_id, c.peer_id, b.peer_id])
    assert last.path(SHA).read_bytes() == DATA


async def test_a_blob_nobody_has_is_named_with_what_each_said(tmp_path: Path) -> None:
    mesh = FakeMesh()
    (a, mine), (b, _) = [await member(mesh, name, tmp_path) for name in "ab"]
    with pytest.raises(HubNotFound, match=b.peer_id):
        await fetch(a, mine, SHA, [b.peer_id])
    with pytest.raises(HubInvalid):
        await a.request(b.peer_id, "coordinator", "blobs.has", {"sha256": "../etc/passwd"})


async def test_a_full_disk_leaves_no_half_blob(small_disk: Path, filler: Callable[[], Path]) -> None:
    store = BlobStore(small_disk / "blobs")
    await store.put_bytes(b"first")
    file = filler()
    with pytest.raises(OSError, match="No space"):
        await store.put(chunks(), sha256=SHA)
    assert not store.has(SHA)
    assert list((small_disk / "blobs" / "new").iterdir()) == []
    mesh = FakeMesh()
    mesh.found("a", None, "b")
    other = BlobStore(small_disk.parent / "other")
    await other.put(chunks())
    holder, here = mesh.hub("a", "coordinator"), mesh.hub("b", "coordinator")

    async def nothing(request: Request) -> dict[str, object]:
        return has(store if request.peer == holder.peer_id else other, request)

    async def serve(request: Request, stream: ByteStream) -> None:
        await serve_stream(store if request.peer == holder.peer_id else other, request, stream)

    for hub in (holder, here):
        await hub.offer("coordinator", nothing, peers=True, streams=serve)
    with pytest.raises(HubError, match="No space") as refused:
        await fetch(here, store, SHA, [holder.peer_id])
    assert refused.value.message.startswith(DISK_PREFIX)
    with pytest.raises(HubError):
        await push(holder, other, SHA, here.peer_id)
    assert list((small_disk / "blobs" / "new").iterdir()) == []
    file.unlink()
    await fetch(here, store, SHA, [holder.peer_id])
    assert store.has(SHA)
