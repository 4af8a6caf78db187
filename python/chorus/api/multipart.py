"""Reads a multipart body part by part while it comes; nothing of it is held but the piece at hand."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final

from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header

from chorus.api.problems import Problem

HEADERS_MAX_BYTES: Final = 8 * 1024


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

    def on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._field += data[start:end]
        self._check()

    def on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]
        self._check()

    def on_header_end(self) -> None:
        if self._field.lower() == b"content-disposition":
            _, options = parse_options_header(self._value)
            self._name = options.get(b"name", b"").decode("utf-8", "replace")
        self._field = self._value = b""

    def on_part_begin(self) -> None:
        self._name = ""

    def on_headers_finished(self) -> None:
        self.events.append(Begin(self._name))

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        self.events.append(Data(data[start:end]))

    def on_part_end(self) -> None:
        self.events.append(End())

    def on_end(self) -> None:
        self.finished = True

    def _check(self) -> None:
        if len(self._field) + len(self._value) > HEADERS_MAX_BYTES:
            raise Problem(400, f"a header of a part is longer than {HEADERS_MAX_BYTES} bytes")


async def parts(content_type: str, chunks: AsyncIterator[bytes]) -> AsyncIterator[PartEvent]:
    """The parts of a multipart/form-data body, in the order they come."""
    _, options = parse_options_header(content_type)
    boundary = options.get(b"boundary", b"")
    if not boundary:
        raise Problem(400, "Content-Type multipart/form-data has no boundary")
    collector = _Collector()
    parser = MultipartParser(
        boundary,
        {
            "on_part_begin": collector.on_part_begin,
            "on_header_field": collector.on_header_field,
            "on_header_value": collector.on_header_value,
            "on_header_end": collector.on_header_end,
            "on_headers_finished": collector.on_headers_finished,
            "on_part_data": collector.on_part_data,
            "on_part_end": collector.on_part_end,
            "on_end": collector.on_end,
        },
    )
    try:
        async for chunk in chunks:
            parser.write(chunk)
            events, collector.events = collector.events, []
            for event in events:
                yield event
    except MultipartParseError as error:
        raise Problem(400, f"the multipart body is malformed: {error}") from None
    if not collector.finished:
        raise Problem(400, "the multipart body ends before its closing boundary")
