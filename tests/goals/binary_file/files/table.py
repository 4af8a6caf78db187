"""Reads a table of 32-bit numbers: the magic bytes, the count, the numbers, all little-endian."""

import struct
from pathlib import Path

MAGIC = b"TBL\x00\xff\x01"


def numbers(path):
    """The numbers of a table. Raises ValueError for a file that is none."""
    data = Path(path).read_bytes()
    if not data.startswith(MAGIC):
        raise ValueError(f"{path} is no table")
    (count,) = struct.unpack_from("<I", data, len(MAGIC))
    return list(struct.unpack_from(f"<{count}I", data, len(MAGIC) + 4))
