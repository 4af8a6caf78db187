"""Writes values as words that bash reads back byte for byte, on one line."""

from __future__ import annotations

_PLAIN = frozenset(
    b'abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 _-./:=,@%+{}[]()<>|&;*?!~^#$"'
)


def bash_word(value: str) -> bytes:
    """`$'…'` with every byte that is not plain ASCII escaped; a NUL cannot be said and is refused."""
    raw = value.encode("utf-8", "surrogateescape")
    if b"\0" in raw:
        raise ValueError("a NUL byte cannot be passed to a command")
    out = bytearray(b"$'")
    for byte in raw:
        if byte in _PLAIN:
            out.append(byte)
        else:
            out += b"\\x%02x" % byte
    out += b"'"
    return bytes(out)
