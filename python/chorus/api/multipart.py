"""Reads a multipart body part by part while it comes; nothing of it is held but the piece at hand."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from chorus.api.problems import Problem

# Of one part, as of a request (connection.py).
HEADERS_MAX_BYTES: Final = 64 * 1024
HEADERS_MAX_COUNT: Final = 100
# RFC 2046 has 70 characters; the parser takes somewhat more.
BOUNDARY_MAX_BYTES: Final = 200
NAME_MAX_CHARS: Final = 64
# The body is parsed in pieces of this size: what the parser makes of one is held until it is used.
PIECE_BYTES: Final = 64 * 1024

# It writes a line for every malformed body; the client is told, which is enough.
logging.getLogger("python_multipart").setLevel(logging.CRITICAL)


@dataclass(frozen=True, slots=True)
class Begin:
    """A part begins; `name` is its field name."""

    name: str


@dataclass(frozen=True, slots=True)
class Data:
    """Bytes of the part that began last."""

    content: bytes


@dataclass(frozen=True, slots=True)
class End:
    """The part that began last is complete."""


PartEvent = Begin | Data | End


class _Collector:
    """Turns the parser's callbacks into events."""

    def __init__(self) -> None:
        self.events: list[PartEvent] = []
        self.finished = False
        self._field = b""
        self._value = b""
        self._name = ""
        self._headers = 0
        self._headers_bytes = 0

    def on_header_begin(self) -> None:
        self._headers += 1
        if self._headers > HEADERS_MAX_COUNT:
            raise Problem(431, f"a part of the body has more than {HEADERS_MAX_COUNT} headers")

    def on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._count(end - start)
        self._field += data[start:end]

    def on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._count(end - start)
        self._value += data[start:end]

    def on_header_end(self) -> None:
        if self._field.lower() == b"content-disposition":
            _, options = parse_options_header(self._value)
            self._name = options.get(b"name", b"").decode("utf-8", "replace")[:NAME_MAX_CHARS]
        self._field = self._value = b""

    def on_part_begin(self) -> None:
        self._name = ""
        self._headers = self._headers_bytes = 0

    def on_headers_finished(self) -> None:
        self.events.append(Begin(self._name))

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        self.events.append(Data(data[start:end]))

    def on_part_end(self) -> None:
        self.events.append(End())

    def on_end(self) -> None:
        self.finished = True

    def _count(self, size: int) -> None:
        self._headers_bytes += size
        if self._headers_bytes > HEADERS_MAX_BYTES:
            raise Problem(431, f"the headers of a part of the body are longer than {HEADERS_MAX_BYTES} bytes")


async def parts(content_type: str, chunks: AsyncIterator[bytes]) -> AsyncIterator[PartEvent]:
    """The parts of a multipart/form-data body, in the order they come. Raises Problem (400, 431)."""
    collector = _Collector()
    parser = MultipartParser(
        _boundary(content_type),
        {
            "on_part_begin": collector.on_part_begin,
            "on_header_begin": collector.on_header_begin,
            "on_header_field": collector.on_header_field,
            "on_header_value": collector.on_header_value,
            "on_header_end": collector.on_header_end,
            "on_headers_finished": collector.on_headers_finished,
            "on_part_data": collector.on_part_data,
            "on_part_end": collector.on_part_end,
            "on_end": collector.on_end,
        },
        # Counted here, so that the answer can say which bound was passed.
        max_header_count=2 * HEADERS_MAX_COUNT,
        max_header_size=2 * (HEADERS_MAX_BYTES + PIECE_BYTES),
    )
    try:
        async for chunk in chunks:
            for start in range(0, len(chunk), PIECE_BYTES):
                parser.write(chunk[start : start + PIECE_BYTES])
                events, collector.events = collector.events, []
                for event in events:
                    yield event
    except FormParserError as error:
        raise Problem(400, f"the multipart body is malformed: {error}") from None
    if not collector.finished:
        raise Problem(400, "the multipart body ends before its closing boundary")


def _boundary(content_type: str) -> bytes:
    _, options = parse_options_header(content_type)
    boundary = options.get(b"boundary", b"")
    if not boundary:
        raise Problem(400, "Content-Type multipart/form-data has no boundary")
    if len(boundary) > BOUNDARY_MAX_BYTES:
        raise Problem(400, f"the boundary in Content-Type is longer than {BOUNDARY_MAX_BYTES} bytes")
    return boundary
