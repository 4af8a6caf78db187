"""What the blobs of one agent take of its disk, and who brought them: kept beside the blobs, in SQLite.

Several processes write blobs at once; SQLite's write lock makes counting and taking space one step for all of
them. What is being written is counted by its file, whose lock says that its writer lives; so nothing stays
counted when a process is killed.
"""

from __future__ import annotations

import errno
import fcntl
import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

# A blob takes at least a block of the file system.
BLOCK_BYTES: Final = 4096
# Space is taken in steps, so that counting costs little and a small blob does not block the last megabytes.
RESERVE_BYTES: Final = 4 * 1024 * 1024
# One member's copies may take this share of the space: eight of them never leave an agent without any.
MEMBER_SHARES: Final = 8
# The owner of a blob that came over this agent's own API or was fetched by it: bound by the total alone.
OWN: Final = ""
_BUSY_S: Final = 5.0

_CREATE: Final = """
CREATE TABLE IF NOT EXISTS blobs (
    sha256 TEXT PRIMARY KEY, owner TEXT NOT NULL, bytes INTEGER NOT NULL, used_ms INTEGER NOT NULL
) WITHOUT ROWID
"""
_INDEX: Final = "CREATE INDEX IF NOT EXISTS blobs_owner ON blobs(owner, bytes)"


class BlobSpaceFull(Exception):
    """The blobs' space, or a member's share of it, is used up."""

    def __init__(self, what: str, limit_bytes: int) -> None:
        super().__init__(f"{what} may take {limit_bytes} bytes here, and they are in use")
        self.limit_bytes = limit_bytes


@dataclass(frozen=True, slots=True)
class Kept:
    """A blob as the ledger knows it. `used_ms` is when it came or was last named by a submission."""

    sha256: str
    owner: str
    bytes: int


class Ledger:
    """Counts blobs and what is being written. Its methods block for a moment: not for the event loop."""

    def __init__(self, path: Path, new: Path, total_max_bytes: int) -> None:
        self.total_max_bytes = total_max_bytes
        self.member_max_bytes = total_max_bytes // MEMBER_SHARES
        self._path, self._new = path, new
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None

    def begin(self, owner: str) -> tuple[Path, BinaryIO]:
        """A new file to write into, locked while its writer lives. It is the owner's."""
        with self._transaction():
            self._new.mkdir(parents=True, exist_ok=True)
            aside = self._new / f"{os.urandom(16).hex()}.{owner}"
            file = aside.open("xb")
            fcntl.flock(file, fcntl.LOCK_EX)
            return aside, file

    def reserve(self, file: int, owner: str, size: int) -> None:
        """Makes the open file count for `size` bytes; raises BlobSpaceFull, and OSError for the disk."""
        with self._transaction() as connection:
            others = dict(connection.execute("SELECT owner, sum(bytes) FROM blobs GROUP BY owner").fetchall())
            mine = os.fstat(file).st_ino
            for writer, taken, inode in self._being_written():
                if inode != mine:
                    others[writer] = others.get(writer, 0) + taken
            if sum(others.values()) + blocks(size) > self.total_max_bytes:
                raise BlobSpaceFull("all blobs together", self.total_max_bytes)
            if owner != OWN and others.get(owner, 0) + blocks(size) > self.member_max_bytes:
                raise BlobSpaceFull("the blobs of one member", self.member_max_bytes)
            # A sparse file: the number stands where every process sees it.
            os.ftruncate(file, size)

    def settle(self, aside: Path, place: Path, owner: str, size: int) -> None:
        """Puts the written file in its place and counts it as a blob from then on."""
        new = False
        try:
            with self._transaction() as connection:
                new = not place.is_file()
                connection.execute(
                    "INSERT INTO blobs VALUES (?, ?, ?, ?)"
                    " ON CONFLICT(sha256) DO UPDATE SET used_ms = excluded.used_ms",
                    (place.name, owner, blocks(size), _now_ms()),
                )
                if new:
                    aside.replace(place)
                else:
                    aside.unlink()
        except OSError:
            # Not counted, so not kept.
            if new:
                place.unlink(missing_ok=True)
            raise

    def touch(self, sha256: str) -> None:
        """The blob is about to be named: it counts as fresh."""
        with self._transaction() as connection:
            connection.execute("UPDATE blobs SET used_ms = ? WHERE sha256 = ?", (_now_ms(), sha256))

    def remove(self, place: Path, used_before_ms: int | None = None) -> bool:
        """Removes a blob and frees its space; with `used_before_ms` only if it was not used since."""
        with self._transaction() as connection:
            done = connection.execute(
                "DELETE FROM blobs WHERE sha256 = ? AND used_ms < ?",
                (place.name, _now_ms() + 1 if used_before_ms is None else used_before_ms),
            )
            if not done.rowcount:
                return False
            place.unlink(missing_ok=True)
            return True

    def all(self) -> list[str]:
        """The hashes of all blobs."""
        with self._transaction() as connection:
            return [str(row[0]) for row in connection.execute("SELECT sha256 FROM blobs ORDER BY sha256")]

    def unused_since(self, before_ms: int) -> list[Kept]:
        """The blobs that were last used before then, oldest first."""
        with self._transaction() as connection:
            rows = connection.execute(
                "SELECT sha256, owner, bytes FROM blobs WHERE used_ms < ? ORDER BY used_ms", (before_ms,)
            ).fetchall()
        return [Kept(*row) for row in rows]

    def used_bytes(self) -> dict[str, int]:
        """Bytes by owner, without what is being written."""
        with self._transaction() as connection:
            return dict(connection.execute("SELECT owner, sum(bytes) FROM blobs GROUP BY owner").fetchall())

    def recover(self, present: dict[str, int]) -> None:
        """At a start, when nobody else uses it: a damaged ledger is made anew; its disk may be full."""
        for attempt in (1, 2):
            try:
                return self.match(present)
            except OSError as error:
                self.close()
                if error.errno == errno.ENOSPC or attempt == 2:
                    return  # whoever writes a blob is told
                for end in ("", "-wal", "-shm"):
                    self._path.with_name(self._path.name + end).unlink(missing_ok=True)

    def match(self, present: dict[str, int]) -> None:
        """Makes the ledger say what is there (hash to size): blobs of an earlier version, and none lost."""
        with self._transaction() as connection:
            known = {row[0] for row in connection.execute("SELECT sha256 FROM blobs").fetchall()}
            connection.executemany(
                "DELETE FROM blobs WHERE sha256 = ?", [(sha256,) for sha256 in known - present.keys()]
            )
            connection.executemany(
                "INSERT INTO blobs VALUES (?, ?, ?, ?)",
                [(sha, OWN, blocks(size), _now_ms()) for sha, size in present.items() if sha not in known],
            )

    def close(self) -> None:
        """Closes the file."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def _being_written(self) -> Iterator[tuple[str, int, int]]:
        """(owner, bytes, inode) of every file that a living process writes; what others left goes."""
        try:
            listed = list(os.scandir(self._new))
        except FileNotFoundError:
            return
        for item in listed:
            try:
                handle = os.open(item.path, os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                continue
            try:
                fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                found = os.fstat(handle)
                yield item.name.partition(".")[2], blocks(found.st_size), found.st_ino
            else:
                # Its writer is gone: files are made and locked inside a transaction.
                Path(item.path).unlink(missing_ok=True)
            finally:
                os.close(handle)

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                connection = self._connection or self._open()
                connection.execute("BEGIN IMMEDIATE")
            except sqlite3.Error as error:
                raise _disk_error(error) from error
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException as error:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                if isinstance(error, sqlite3.Error):
                    raise _disk_error(error) from error
                raise

    def _open(self) -> sqlite3.Connection:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(
            self._path, isolation_level=None, check_same_thread=False, timeout=_BUSY_S
        )
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            # Found anew from the blobs themselves at the next start.
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute(_CREATE)
            connection.execute(_INDEX)
        except BaseException:
            connection.close()
            raise
        self._connection = connection
        return connection


def blocks(size: int) -> int:
    """What so many bytes take on the disk."""
    return max(1, -(-size // BLOCK_BYTES)) * BLOCK_BYTES


def _disk_error(error: sqlite3.Error) -> OSError:
    """The same as the file system says: callers tell a full disk from a failing one by its number."""
    full = getattr(error, "sqlite_errorname", "") == "SQLITE_FULL"
    number = errno.ENOSPC if full else errno.EIO
    return OSError(number, os.strerror(number) if full else f"the blobs' ledger: {error}")


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
