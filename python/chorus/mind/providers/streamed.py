"""What both wires have in common as classes of the model library: a request whose answer comes as a stream of
pieces, bounded while it comes.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import KW_ONLY, dataclass, field
from datetime import UTC, datetime
from typing import Any, Protocol

import orjson
from pydantic_ai.messages import ModelMessage, ModelResponse, ModelResponseStreamEvent
from pydantic_ai.models import Model, ModelRequestParameters, StreamedResponse
from pydantic_ai.settings import ModelSettings
from pydantic_ai.usage import RequestUsage

from chorus.mind.providers.connection import Connection
from chorus.mind.providers.failures import Failed
from chorus.mind.providers.pieces import Bounds, Call, End, Piece, Text


class WireSettings(ModelSettings, total=False):
    """Settings of a request beyond the library's own."""

    # Nothing of it may go beyond loopback and private addresses.
    local_only: bool


class LineReader(Protocol):
    """Reads one answer, line by line."""

    over: bool

    def read(self, line: bytes) -> list[Piece]:
        """The pieces of one line."""
        ...


class WireModel(Model):
    """A model that answers over HTTP with lines."""

    path: str

    def __init__(self, name: str, connection: Connection) -> None:
        super().__init__()
        self._name = name
        self._connection = connection

    @property
    def model_name(self) -> str:
        """The model, as its server calls it."""
        return self._name

    @property
    def base_url(self) -> str:
        """Where its server is."""
        return self._connection.base_url

    @abstractmethod
    def body(self, messages: list[ModelMessage], parameters: ModelRequestParameters) -> dict[str, Any]:
        """The request's JSON."""

    @abstractmethod
    def reader(self) -> LineReader:
        """A reader for one answer."""

    async def request(
        self,
        messages: list[ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
    ) -> ModelResponse:
        """The whole answer at once."""
        async with self.request_stream(messages, model_settings, model_request_parameters) as stream:
            async for _ in stream:
                pass
            return stream.get()

    @asynccontextmanager
    async def request_stream(
        self,
        messages: list[ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
        run_context: Any = None,
    ) -> AsyncGenerator[StreamedResponse]:
        """The answer as it comes. Raises Failed, Garbled, NoTools, BadCall and ModelRefused."""
        local_only = bool((model_settings or {}).get("local_only"))
        body = orjson.dumps(self.body(messages, model_request_parameters))
        async with self._connection.lines(self.path, body, local_only=local_only) as lines:
            yield PiecesResponse(
                model_request_parameters,
                _model_name=self._name,
                _system=self.system,
                _url=self.base_url,
                _pieces=pieces_of(lines, self.reader()),
            )


async def pieces_of(lines: AsyncIterator[bytes], reader: LineReader) -> AsyncIterator[Piece]:
    """The pieces of one answer; the last is an End. One that grows beyond its bounds ends there, as `length`.

    Raises Failed for an answer that breaks off, and what the reader raises.
    """
    bounds = Bounds()
    async for line in lines:
        for piece in reader.read(line):
            kept = bounds.take(piece)
            if kept is not None:
                yield kept
            if bounds.full:
                yield End("length")
                return
    if not reader.over:
        raise Failed("its answer broke off")


@dataclass
class PiecesResponse(StreamedResponse):
    """An answer made of pieces."""

    _: KW_ONLY
    _model_name: str
    _system: str
    _url: str
    _pieces: AsyncIterator[Piece]
    _begun: datetime = field(default_factory=lambda: datetime.now(UTC))

    async def _get_event_iterator(self) -> AsyncIterator[ModelResponseStreamEvent]:
        async for piece in self._pieces:
            if isinstance(piece, Text):
                for event in self._parts_manager.handle_text_delta(vendor_part_id="text", content=piece.text):
                    yield event
            elif isinstance(piece, Call):
                for event in self._parts_manager.handle_tool_call_delta_events(
                    vendor_part_id=piece.index, tool_name=piece.name or None, args=piece.arguments
                ):
                    yield event
            else:
                self._end(piece)

    def _end(self, end: End) -> None:
        if end.finish is not None:
            self.finish_reason = end.finish
        if end.tokens_in or end.tokens_out:
            self._usage = RequestUsage(input_tokens=end.tokens_in, output_tokens=end.tokens_out)

    async def close_stream(self) -> None:
        """The connection is closed by the request's own context."""

    @property
    def model_name(self) -> str:
        """The model that answers."""
        return self._model_name

    @property
    def provider_name(self) -> str:
        """Who serves it."""
        return self._system

    @property
    def provider_url(self) -> str:
        """Where its server is."""
        return self._url

    @property
    def timestamp(self) -> datetime:
        """When the request was made."""
        return self._begun
