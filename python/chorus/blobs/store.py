"""Bytes on disk by their SHA-256: written aside, synced, renamed into place; counted by `ledger`.

A yes means it is on the disk.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import shutil
from collections.abc import AsyncIterable, AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from chorus.blobs.ledger import OWN, RESERVE_BYTES, BlobSpaceFull, Ledger
from chorus.config.files import sync_folder
from chorus.config.groups.network import BLOBS_BYTES

# One blob: a source archive or a task's input. What is larger does not belong into a task.
BLOB_MAX_BYTES = 512 * 1024 * 1024
READ_CHUNK_BYTES = 256 * 1024

_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Blob:
    """A stored blob."""

    sha256: str
    size: int


class BlobTooLarge(Exception):
    """More bytes than allowed."""


class BlobMismatch(Exception):
    """The bytes do not have the hash they were announced with."""


class BlobStore:
    """The blobs of one agent. Several processes may use the same folder."""

    def __init__(self, folder: Path, total_max_bytes: int = BLOBS_BYTES) -> None:
        self.folder = folder
        self.ledger = Ledger(folder.with_name(f"{folder.name}.sqlite"), self._new, total_max_bytes)

    def path(self, sha256: str) -> Path:
        """Where the blob lies, or would; raises ValueError for what is no hash."""
        if not _SHA256.fullmatch(sha256):
            raise ValueError("not a SHA-256 in lower-case hexadecimal")
        return self.folder / sha256[:2] / sha256

    def has(self, sha256: str) -> bool:
        """Whether the blob is here."""
        return self.path(sha256).is_file()

    def size(self, sha256: str) -> int:
        """Its size in bytes; raises FileNotFoundError when it is not here."""
        return self.path(sha256).stat().st_size

    async def put(
        self,
        chunks: AsyncIterable[bytes],
        *,
        sha256: str | None = None,
        limit: int = BLOB_MAX_BYTES,
        owner: str = OWN,
    ) -> Blob:
        """Stores the bytes; with `sha256` only if they have that hash. On the disk when this returns.

        `owner` is the member whose share they take. Raises BlobSpaceFull as soon as they would exceed it or
        the space of all, BlobTooLarge, BlobMismatch, and OSError for the disk.
        """
        digest, size, reserved = hashlib.sha256(), 0, 0
        aside, file = await asyncio.to_thread(self.ledger.begin, owner)
        try:
            # Open to the end: its lock says that the writer lives.
            with file:
                async for chunk in chunks:
                    size += len(chunk)
                    if size > limit:
                        raise BlobTooLarge(f"more than {limit} bytes")
                    if size > reserved:
                        reserved = await asyncio.to_thread(self._reserve, file, owner, size)
                    await asyncio.to_thread(_take, file, digest, chunk)
                if not size:
                    await asyncio.to_thread(self._reserve, file, owner, size)
                await asyncio.to_thread(_sync, file, size)
                found = digest.hexdigest()
                if sha256 is not None and found != sha256:
                    raise BlobMismatch(f"the bytes hash to {found}, not to {sha256}")
                await asyncio.to_thread(self._settle, aside, found, owner, size)
        except BaseException:
            with suppress(FileNotFoundError):
                aside.unlink()
            raise
        return Blob(found, size)

    async def put_bytes(self, data: bytes) -> Blob:
        """Stores bytes that are in memory."""

        async def once() -> AsyncIterator[bytes]:
            yield data

        return await self.put(once())

    async def read(self, sha256: str) -> AsyncIterator[bytes]:
        """The blob's bytes in chunks; raises FileNotFoundError when it is not here."""
        with self.path(sha256).open("rb") as file:
            while chunk := await asyncio.to_thread(file.read, READ_CHUNK_BYTES):
                yield chunk

    async def keep(self, sha256: str) -> bool:
        """Whether the blob is here; if so it stays for another while, as something is about to name it."""

        def here() -> bool:
            if not self.has(sha256):
                return False
            # A full disk takes no note; what came or was named within the last hour stays all the same.
            with suppress(OSError):
                self.ledger.touch(sha256)
            return self.has(sha256)

        return await asyncio.to_thread(here)

    def remove(self, sha256: str) -> bool:
        """Removes the blob and frees its space; returns whether it was here."""
        return self.ledger.remove(self.path(sha256))

    def recover(self) -> None:
        """Removes what an earlier life was cut off in writing, and counts what is there; only while nobody
        else uses the folder.
        """
        shutil.rmtree(self._new, ignore_errors=True)
        present = {path.name: path.stat().st_size for path in self.folder.glob("[0-9a-f][0-9a-f]/*")}
        self.ledger.recover({name: size for name, size in present.items() if _SHA256.fullmatch(name)})
        self.ledger.close()

    @property
    def _new(self) -> Path:
        # Beside the blobs, so that the rename stays inside one file system.
        return self.folder / "new"

    def _reserve(self, file: BinaryIO, owner: str, size: int) -> int:
        step = -(-max(size, 1) // RESERVE_BYTES) * RESERVE_BYTES
        try:
            self.ledger.reserve(file.fileno(), owner, step)
        except BlobSpaceFull:
            # The last of the space is not taken in steps.
            self.ledger.reserve(file.fileno(), owner, size)
            return size
        return step

    def _settle(self, aside: Path, sha256: str, owner: str, size: int) -> None:
        place = self.path(sha256)
        place.parent.mkdir(exist_ok=True)
        self.ledger.settle(aside, place, owner, size)
        for folder in (place.parent, self.folder):
            sync_folder(folder)


def _take(file: BinaryIO, digest: hashlib._Hash, chunk: bytes) -> None:
    file.write(chunk)
    digest.update(chunk)


def _sync(file: BinaryIO, size: int) -> None:
    file.flush()
    # What was reserved beyond the end goes.
    file.truncate(size)
    os.fsync(file.fileno())
