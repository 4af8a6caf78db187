"""Archives that mean harm, and the headers to make more of them by hand."""

from __future__ import annotations

import gzip
import io
import tarfile
from collections.abc import Callable

MIB = 1024 * 1024
END = bytes(1024)


def header(
    name: bytes,
    type: bytes = b"0",
    size: int | bytes = 0,
    *,
    target: bytes = b"",
    magic: bytes = b"ustar\0",
) -> bytes:
    """One header block with a right checksum; a size that is bytes is put there as it is."""
    size = b"%011o\0" % size if isinstance(size, int) else size
    block = bytearray(512)
    block[0 : len(name)] = name
    block[100:108] = b"0000644\0"
    block[124 : 124 + len(size)] = size
    block[136:148] = b"00000000000\0"
    block[148:156] = b" " * 8
    block[156:157] = type
    block[157 : 157 + len(target)] = target
    block[257 : 257 + len(magic)] = magic
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 512)


def pax(records: bytes, type: bytes = b"x") -> bytes:
    return header(b"pax", type, len(records)) + padded(records)


def record(key: bytes, value: bytes) -> bytes:
    body = b" " + key + b"=" + value + b"\n"
    length = len(body)
    while length != len(body) + len(str(length)):
        length = len(body) + len(str(length))
    return str(length).encode() + body


def zeros_gzipped(head: bytes, count: int) -> bytes:
    """A header before very many zeros, in less than a hundredth of their bytes."""
    out = io.BytesIO()
    with gzip.GzipFile(fileobj=out, mode="wb", compresslevel=1) as file:
        file.write(head)
        for _ in range(count // MIB):
            file.write(bytes(MIB))
    return out.getvalue()


# More than the child may have of memory.
UNPACKED_BYTES = 320 * MIB


def _zeros(name: bytes, type: bytes) -> Callable[[], bytes]:
    return lambda: zeros_gzipped(header(name, type, UNPACKED_BYTES), UNPACKED_BYTES)


def _alone(data: bytes) -> Callable[[], bytes]:
    return lambda: data


def many_links() -> bytes:
    """Links with the longest targets: much to whoever remembers them."""
    target = b"a" * 3800
    long = header(b"././@LongLink", b"K", len(target)) + padded(target)
    members = b"".join(long + header(b"l%d" % n, b"2") for n in range(10_000))
    return gzip.compress(members + END, compresslevel=1)


# Small uploads that say, or are, very much.
BOMBS: dict[str, Callable[[], bytes]] = {
    "gnu_long_name": _zeros(b"././@LongLink", b"L"),
    "gnu_long_link": _zeros(b"././@LongLink", b"K"),
    "pax_header": _zeros(b"pax", b"x"),
    "pax_global_header": _zeros(b"pax", b"g"),
    "solaris_header": _zeros(b"pax", b"X"),
    "content": _zeros(b"f", b"0"),
    "many_links": many_links,
    "announced_only": _alone(header(b"././@LongLink", b"L", b"\x80" + b"\0" * 3 + b"\xff" * 8)),
    "negative_size": _alone(header(b"f", b"0", b"\xff" * 12)),
    "huge_size": _alone(header(b"f", b"0", b"\x80" + b"\x7f" * 11)),
    "minus": _alone(header(b"f", b"0", b"-0000000001\0")),
    "underscore": _alone(header(b"f", b"0", b"1_0\0")),
    "pax_huge_size": _alone(pax(record(b"size", b"9" * 4000)) + header(b"f") + END),
    "pax_negative_size": _alone(pax(record(b"size", b"-1")) + header(b"f") + END),
    "pax_sparse": _alone(pax(record(b"GNU.sparse.map", b"0,1," * 1000)) + header(b"f") + END),
    "gnu_sparse": _alone(header(b"f", b"S", magic=b"ustar  \0") + END),
    "pax_length_of_many_digits": _alone(pax(b"9" * 5000 + b" a=b\n") + header(b"f") + END),
}


def plain(files: dict[str, bytes], format: int = tarfile.GNU_FORMAT) -> bytes:
    """What an honest program makes."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=format) as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return out.getvalue()
