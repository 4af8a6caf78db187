"""What blobs may take of the disk: counted over processes and members while they come, freed when they go."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from chorus.blobs import BlobSpaceFull, BlobStore, BlobTooLarge
from chorus.blobs.exchange import fetch, push, serve_stream
from chorus.blobs.exchange import has as has_blob
from chorus.blobs.ledger import BLOCK_BYTES, MEMBER_SHARES, RESERVE_BYTES
from chorus.hub import ByteStream, HubInternal, HubRefused, Request
from chorus.testing.fake_hub import FakeMesh

MIB = 1024 * 1024
TOTAL = 64 * MIB
SHARE = TOTAL // MEMBER_SHARES
LATER_MS = 2**53


async def chunks(size: int, fill: bytes = b"x") -> AsyncIterator[bytes]:
    for at in range(0, size, MIB):
        yield fill * min(MIB, size - at)


def used(store: BlobStore) -> int:
    return sum(store.ledger.used_bytes().values())


async def test_the_total_holds_for_all_processes_that_share_the_folder(tmp_path: Path) -> None:
    one, two = BlobStore(tmp_path / "b", TOTAL), BlobStore(tmp_path / "b", TOTAL)
    first = await one.put(chunks(40 * MIB))
    with pytest.raises(BlobSpaceFull, match=str(TOTAL)):
        await two.put(chunks(25 * MIB, b"y"))
    await two.put(chunks(24 * MIB, b"z"))
    assert used(one) == TOTAL
    with pytest.raises(BlobSpaceFull):
        await one.put(chunks(1))
    assert one.remove(first.sha256)
    assert not two.remove(first.sha256)
    assert used(two) == 24 * MIB
    await two.put(chunks(40 * MIB, b"w"))


async def test_puts_that_are_under_way_count_together(tmp_path: Path) -> None:
    store = BlobStore(tmp_path / "b", TOTAL)
    arrived, go_on = asyncio.Semaphore(0), asyncio.Event()

    async def held(fill: bytes) -> AsyncIterator[bytes]:
        async for chunk in chunks(20 * MIB, fill):
            yield chunk
        arrived.release()
        await go_on.wait()

    puts = [asyncio.create_task(store.put(held(fill))) for fill in (b"1", b"2", b"3")]
    for _ in puts:
        await arrived.acquire()
    with pytest.raises(BlobSpaceFull):
        await store.put(chunks(5 * MIB, b"4"))
    puts[0].cancel()
    await asyncio.gather(puts[0], return_exceptions=True)
    await store.put(chunks(5 * MIB, b"4"))
    go_on.set()
    await asyncio.gather(*puts[1:])
    assert used(store) == 45 * MIB
    assert list((tmp_path / "b" / "new").iterdir()) == []


@pytest.mark.parametrize("size", [0, 1, BLOCK_BYTES, RESERVE_BYTES - 1, RESERVE_BYTES, RESERVE_BYTES + 1])
async def test_what_is_stored_has_its_own_size_whatever_was_reserved(tmp_path: Path, size: int) -> None:
    store = BlobStore(tmp_path / "b", TOTAL)
    blob = await store.put(chunks(size))
    assert store.path(blob.sha256).read_bytes() == b"x" * size
    assert used(store) == max(1, -(-size // BLOCK_BYTES)) * BLOCK_BYTES
    again = await store.put(chunks(size))
    assert (again, used(store)) == (blob, max(1, -(-size // BLOCK_BYTES)) * BLOCK_BYTES)


async def test_a_put_that_fails_frees_what_it_took(tmp_path: Path) -> None:
    store = BlobStore(tmp_path / "b", TOTAL)
    for _ in range(5):
        with pytest.raises(BlobTooLarge):
            await store.put(chunks(30 * MIB), limit=20 * MIB)
    await store.put(chunks(TOTAL))


async def test_a_writer_that_was_killed_counts_no_longer(tmp_path: Path) -> None:
    store = BlobStore(tmp_path / "b", TOTAL)
    program = (
        "import sys, pathlib; from chorus.blobs import BlobStore\n"
        f"store = BlobStore(pathlib.Path(sys.argv[1]), {TOTAL})\n"
        f"path, file = store.ledger.begin('m'); store.ledger.reserve(file.fileno(), 'm', {SHARE})\n"
        "print('written', flush=True); sys.stdin.read()"
    )
    pipe = asyncio.subprocess.PIPE
    words = [sys.executable, "-c", program, str(store.folder)]
    writer = await asyncio.create_subprocess_exec(*words, stdin=pipe, stdout=pipe)
    assert writer.stdout is not None
    assert await writer.stdout.readline() == b"written\n"
    with pytest.raises(BlobSpaceFull, match="one member"):
        await store.put(chunks(1), owner="m")
    writer.kill()
    await writer.wait()
    await store.put(chunks(SHARE), owner="m")
    assert list((tmp_path / "b" / "new").iterdir()) == []


async def test_one_member_has_a_share_and_leaves_the_rest_to_others(tmp_path: Path) -> None:
    store = BlobStore(tmp_path / "b", TOTAL)
    await store.put(chunks(SHARE), owner="m")
    with pytest.raises(BlobSpaceFull, match="one member"):
        await store.put(chunks(1, b"y"), owner="m")
    await store.put(chunks(SHARE, b"z"), owner="n")
    await store.put(chunks(2 * SHARE, b"o"))


async def test_blobs_that_were_there_before_are_counted_and_lost_ones_are_not(tmp_path: Path) -> None:
    store = BlobStore(tmp_path / "b", TOTAL)
    kept, lost = await store.put(chunks(MIB)), await store.put(chunks(2 * MIB, b"y"))
    store.path(lost.sha256).unlink()
    old = hashlib.sha256(b"old").hexdigest()
    store.path(old).parent.mkdir(exist_ok=True)
    store.path(old).write_bytes(b"old")
    store.ledger.close()
    BlobStore(tmp_path / "b", TOTAL).recover()
    assert used(store) == MIB + BLOCK_BYTES
    assert {blob.sha256 for blob in store.ledger.unused_since(LATER_MS)} == {kept.sha256, old}
    store.ledger.close()
    (tmp_path / "b.sqlite").write_bytes(b"no database" * 1000)
    BlobStore(tmp_path / "b", TOTAL).recover()
    assert used(store) == MIB + BLOCK_BYTES
    await store.put(chunks(MIB, b"w"))


async def test_a_blob_is_there_also_when_the_disk_takes_no_note_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = BlobStore(tmp_path / "b", TOTAL)
    blob = await store.put(chunks(10))

    def full(sha256: str) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(store.ledger, "touch", full)
    assert await store.keep(blob.sha256)


async def test_a_blob_that_is_about_to_be_named_is_not_removed(tmp_path: Path) -> None:
    store = BlobStore(tmp_path / "b", TOTAL)
    blob = await store.put(chunks(10))
    [kept] = store.ledger.unused_since(LATER_MS)
    assert await store.keep(blob.sha256)
    assert not store.ledger.remove(store.path(blob.sha256), used_before_ms=1)
    assert store.has(kept.sha256)
    assert store.ledger.remove(store.path(blob.sha256), used_before_ms=LATER_MS)
    assert not await store.keep(blob.sha256)


async def test_members_are_told_of_the_limit(tmp_path: Path) -> None:
    mesh = FakeMesh()
    full, mine = BlobStore(tmp_path / "full", 8 * MIB), BlobStore(tmp_path / "mine", TOTAL)
    a, b = mesh.hub("a", "coordinator"), mesh.hub("b", "coordinator")
    blob = await mine.put(chunks(9 * MIB))

    def serve(store: BlobStore) -> tuple[object, object]:
        async def has(request: Request) -> dict[str, object]:
            return has_blob(store, request)

        async def stream(request: Request, stream: ByteStream) -> None:
            await serve_stream(store, request, stream)

        return has, stream

    for hub, store in ((a, mine), (b, full)):
        has, stream = serve(store)
        await hub.offer("coordinator", has, peers=True, streams=stream)  # type: ignore[arg-type]
    with pytest.raises(HubRefused, match="limit: the blobs of one member"):
        await push(a, mine, blob.sha256, b.peer_id)
    with pytest.raises(HubInternal, match=r"disk: .*all blobs together"):
        await fetch(b, full, blob.sha256, [a.peer_id])
    assert used(full) == 0
