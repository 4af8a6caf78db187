"""Reads tar archives member by member, every length checked before anything of it is read.

Old, POSIX (ustar and pax) and GNU archives. What a member may be called and what becomes of it is left to
others. Python's `tarfile` reads a name or a pax header of any announced size into memory, so it is used for
writing only.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Literal, NamedTuple

from chorus.archives.errors import ArchiveRefused, ArchiveTooLarge, told
from chorus.archives.gunzip import Stream

BLOCK_BYTES = 512
# Enough for any source tree; an archive of a hundred million empty files is an attack.
MEMBERS_MAX = 1_000_000
# A long name or a member's pax records; extended attributes may be there, twice, of 64 KiB in all on Linux.
EXTENSION_BYTES_MAX = 1024 * 1024
# Linux opens no longer path; with its NUL it has 4096 bytes.
NAME_BYTES_MAX = 4095
# What a file system can hold.
_SIZE_MAX = 2**63 - 1
_DIGITS_MAX = 20
# Sizes below it have room in a header, in octal digits.
_OCTAL_SIZES = 8**11
_READ_BYTES = 256 * 1024

Kind = Literal["file", "directory", "symlink", "hardlink", "fifo", "device", "other"]
_KINDS: dict[bytes, Kind] = {
    b"0": "file",
    b"\0": "file",
    b"7": "file",  # contiguous, where a file system knows such
    b"1": "hardlink",
    b"2": "symlink",
    b"3": "device",
    b"4": "device",
    b"5": "directory",
    b"6": "fifo",
}


class Member(NamedTuple):
    """One thing in an archive. `mtime` is in seconds since the epoch."""

    name: str
    kind: Kind
    size: int
    mode: int
    mtime: int
    target: str


class _Extension:
    """What stands before a member about it; empty fields leave what its own header says."""

    def __init__(self) -> None:
        self.name = self.target = b""
        self.records: dict[bytes, bytes] = {}


# The pax records that matter here; the others (times, owners, attributes, comments) are passed over.
_RECORDS = frozenset({b"path", b"linkpath", b"size", b"mtime"})
# Those of the standard that are passed over. No checksum protects a record: any other word without a vendor
# before it may have been one that matters.
_PASSED_OVER = frozenset(
    {b"atime", b"charset", b"comment", b"ctime", b"gid", b"gname", b"hdrcharset", b"uid", b"uname"}
)
_VENDORS = re.compile(rb"([A-Z][A-Za-z0-9_-]*|realtime|security)\.")


class Tar:
    """The members of an archive, once, in their order. `bytes_max` bounds everything that is read of it.

    The members are the whole archive only once the iteration has ended: what is cut short or followed by
    something else is told at the end. Raises ArchiveRefused, and ArchiveTooLarge beyond `bytes_max`; OSError
    of its stream.
    """

    def __init__(self, stream: Stream, bytes_max: int) -> None:
        self._stream = stream
        self.bytes_left = bytes_max
        # Of the present member: what was not read yet, and what fills its last block.
        self._data_left = self._padding = 0
        self._name = b""

    def __iter__(self) -> Iterator[Member]:
        headers = 0
        extension = _Extension()
        extended = False
        while (header := self._header()) is not None:
            headers += 1
            if headers > MEMBERS_MAX:
                raise ArchiveTooLarge(f"more than {MEMBERS_MAX} members")
            kind = header[156:157]
            if kind in (b"L", b"K", b"x", b"X", b"g"):
                self._extend(extension, kind, self._extension(header))
                extended = kind != b"g"
                continue
            yield self._member(header, extension)
            extension, extended = _Extension(), False
            self._skip()
        if extended:
            raise ArchiveRefused("the archive ends too early, after a header that belongs to a member")
        self._end()

    def read(self, size: int) -> bytes:
        """At most so many bytes of the present member's content; none at its end."""
        data = self._some(min(size, self._data_left, _READ_BYTES))
        self._data_left -= len(data)
        return data

    def _skip(self) -> None:
        while self.read(_READ_BYTES):
            pass
        self._exactly(self._padding)

    def _header(self) -> bytes | None:
        """The next header; None at the end, which is a block of zeros.

        Programs write two of them. An archive without one may have lost members.
        """
        self._name = b""
        first = self._stream.read(BLOCK_BYTES)
        if not first:
            raise ArchiveRefused("the archive has no end (two blocks of zeros), so it may be cut short")
        self._spend(len(first))
        header = first + self._exactly(BLOCK_BYTES - len(first))
        if not any(header):
            return None
        if not _genuine(header):
            raise ArchiveRefused("not a tar archive, or damaged: a header's checksum is wrong")
        return header

    def _end(self) -> None:
        """Reads on to the stream's own end, where gzip has its checksum; zeros fill the last record."""
        while data := self._stream.read(_READ_BYTES):
            self._spend(len(data))
            if any(data):
                raise ArchiveRefused(
                    "something follows the archive's end; if these are several archives, make one of them"
                )

    def _extension(self, header: bytes) -> bytes:
        size = _size(header[124:136])
        if size > EXTENSION_BYTES_MAX:
            raise ArchiveRefused(f"a header of {size} bytes; {EXTENSION_BYTES_MAX} are allowed")
        data = self._exactly(size)
        self._exactly(-size % BLOCK_BYTES)
        return data

    def _extend(self, extension: _Extension, kind: bytes, data: bytes) -> None:
        match kind:
            case b"L":
                extension.name = _long(data)
            case b"K":
                extension.target = _long(data)
            case b"g":
                _pax(data)  # of all members together; what is said so in practice is a comment
            case _:
                extension.records.update(_pax(data))

    def _member(self, header: bytes, extension: _Extension) -> Member:
        records = extension.records
        name = records.get(b"path") or extension.name or _own_name(header)
        target = records.get(b"linkpath") or extension.target or _text(header[157:257])
        self._name = name
        if len(name) > NAME_BYTES_MAX or len(target) > NAME_BYTES_MAX:
            raise ArchiveRefused(f"{self._told()}: a name of more than {NAME_BYTES_MAX} bytes")
        if header[156:157] == b"S":
            raise ArchiveRefused(f"{self._told()}: a sparse file; pack it as a plain one")
        kind = _KINDS.get(header[156:157], "other")
        if header[156:157] == b"\0" and name.endswith(b"/"):
            kind = "directory"  # as archives older than a type for folders say it
        # Whatever a link or a folder says of its size, nothing follows it.
        size = 0
        if kind in ("file", "other"):
            said = records.get(b"size")
            size = _size(header[124:136]) if said is None else _agreed(_decimal(said), header[124:136])
            if size > self.bytes_left:
                raise ArchiveTooLarge(f"{self._told()} does not fit")
        self._data_left, self._padding = size, -size % BLOCK_BYTES
        mode = _number(header[100:108]) or 0
        return Member(_decoded(name), kind, size, mode & 0o7777, _mtime(header, records), _decoded(target))

    def _told(self) -> str:
        return told(_decoded(self._name))

    def _some(self, size: int) -> bytes:
        """Between one byte and so many; none only when none are asked for."""
        if not size:
            return b""
        data = self._stream.read(size)
        if not data:
            raise ArchiveRefused(f"the archive ends too early{f', in {self._told()}' if self._name else ''}")
        self._spend(len(data))
        return data

    def _exactly(self, size: int) -> bytes:
        data = bytearray()
        while len(data) < size:
            data += self._some(size - len(data))
        return bytes(data)

    def _spend(self, count: int) -> None:
        self.bytes_left -= count
        if self.bytes_left < 0:
            raise ArchiveTooLarge("the archive does not fit")


def is_header(block: bytes) -> bool:
    """Whether a tar archive may begin so."""
    return len(block) >= BLOCK_BYTES and _genuine(block[:BLOCK_BYTES])


def _genuine(header: bytes) -> bool:
    """Whether a header's checksum is right, of its bytes or, as old programs took them, of signed ones."""
    said = _number(header[148:156])
    total = sum(header) - sum(header[148:156]) + 8 * ord(" ")
    if said == total:
        return True
    return said == total - 256 * sum(byte > 127 for byte in header[:148] + header[156:])


def _text(field: bytes) -> bytes:
    return field.partition(b"\0")[0]


def _long(data: bytes) -> bytes:
    """GNU's long name, ended by NUL. No checksum protects it, so one cut by a NUL is told by what follows."""
    name, _, rest = data.partition(b"\0")
    if not name or any(rest):
        raise ArchiveRefused("a long name that is damaged")
    return name


def _own_name(header: bytes) -> bytes:
    prefix = _text(header[345:500]) if header[257:263] == b"ustar\0" else b""
    return prefix + b"/" + _text(header[:100]) if prefix else _text(header[:100])


def _decoded(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")


def _number(field: bytes) -> int | None:
    """Octal digits, or GNU's binary number behind a first bit; None for what is neither."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    if field[0] == 0xFF:
        return int.from_bytes(field, "big", signed=True)
    digits = field.strip(b" \0")
    return int(digits or b"0", 8) if not digits.strip(b"01234567") else None


def _size(field: bytes) -> int:
    size = _number(field)
    if size is None or not 0 <= size <= _SIZE_MAX:
        raise ArchiveRefused("a header's size is none")
    return size


def _decimal(digits: bytes) -> int:
    if not digits.isdigit() or len(digits) > _DIGITS_MAX or int(digits) > _SIZE_MAX:
        raise ArchiveRefused("a pax header's size is none")
    return int(digits)


def _agreed(size: int, field: bytes) -> int:
    """The size of a pax record. No checksum protects it, so where the header has room for it both must agree.

    Some writers leave the header's own at zero.
    """
    own = _size(field)
    if own not in (0, size) and size < _OCTAL_SIZES:
        raise ArchiveRefused("a header and its pax header differ in the size")
    return size


def _mtime(header: bytes, records: dict[bytes, bytes]) -> int:
    """The whole seconds of a member's time; the epoch for what is none or lies before it."""
    said = records.get(b"mtime")
    if said is None:
        seconds = _number(header[136:148]) or 0
    else:
        whole = said.partition(b".")[0]
        seconds = int(whole) if whole.isdigit() and len(whole) <= _DIGITS_MAX else 0
    # As many octal digits as a header has.
    return seconds if 0 <= seconds < 8**11 else 0


def _pax(data: bytes) -> dict[bytes, bytes]:
    """The records that matter of `length key=value` lines. Raises ArchiveRefused, for sparse files too."""
    found = {}
    position = 0
    while position < len(data):
        if not data[position] and not any(data[position:]):
            break  # padding that some writers count in
        digits = data[position : position + _DIGITS_MAX + 1].partition(b" ")[0]
        length = int(digits) if digits.isdigit() else 0
        end = position + length
        key, sign, value = data[position + len(digits) + 1 : max(position, end - 1)].partition(b"=")
        if length < len(digits) + 3 or end > len(data) or data[end - 1 : end] != b"\n" or not sign:
            raise ArchiveRefused("a malformed pax header")
        if key.startswith(b"GNU.sparse."):
            raise ArchiveRefused("a sparse file; pack it as a plain one")
        if key in _RECORDS:
            found[key] = value
        elif key not in _PASSED_OVER and not _VENDORS.match(key):
            raise ArchiveRefused(f"a pax header with an unknown record {told(_decoded(key))!r}")
        position = end
    return found
