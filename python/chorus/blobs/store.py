"""Bytes on disk by their SHA-256: written aside, synced, renamed into place.

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

    def __init__(self, folder: Path) -> None:
        self.folder = folder

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
        self, chunks: AsyncIterable[bytes], *, sha256: str | None = None, limit: int = BLOB_MAX_BYTES
    ) -> Blob:
        """Stores the bytes; with `sha256` only if they have that hash. On the disk when this returns."""
        aside = self._aside()
        digest, size = hashlib.sha256(), 0
        file = await asyncio.to_thread(aside.open, "xb")
        try:
            with file:
                async for chunk in chunks:
                    size += len(chunk)
                    if size > limit:
                        raise BlobTooLarge(f"more than {limit} bytes")
                    await asyncio.to_thread(_take, file, digest, chunk)
                await asyncio.to_thread(_sync, file)
            found = digest.hexdigest()
            if sha256 is not None and found != sha256:
                raise BlobMismatch(f"the bytes hash to {found}, not to {sha256}")
            await asyncio.to_thread(self._settle, aside, found)
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

    def remove_halves(self) -> None:
        """Removes what an earlier life was cut off in writing; only while nobody else uses the folder."""
        shutil.rmtree(self._new, ignore_errors=True)

    @property
    def _new(self) -> Path:
        # Beside the blobs, so that the rename stays inside one file system.
        return self.folder / "new"

    def _aside(self) -> Path:
        self._new.mkdir(parents=True, exist_ok=True)
        return self._new / os.urandom(16).hex()

    def _settle(self, aside: Path, sha256: str) -> None:
        place = self.path(sha256)
        place.parent.mkdir(exist_ok=True)
        aside.replace(place)
        for folder in (place.parent, self.folder):
            handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)


def _take(file: BinaryIO, digest: hashlib._Hash, chunk: bytes) -> None:
    file.write(chunk)
    digest.update(chunk)


def _sync(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())
