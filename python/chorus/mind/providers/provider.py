"""One provider as the rest of `mind` sees it: what is known of its model, and one try at an answer.

The model library is loaded at the first try, in a thread, so that an idle agent has no part of it in memory.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

import orjson

from chorus.config import AiSettings
from chorus.mind import arguments, text_protocol, written_calls
from chorus.mind.providers.connection import Connection
from chorus.mind.providers.failures import BadCall, Failed, Garbled, NoTools
from chorus.mind.providers.ollama_wire import read_show
from chorus.mind.thinking import ModelAway, ModelRefused, ToolCall, ToolSpec, Turn

if TYPE_CHECKING:
    from chorus.mind.providers.streamed import WireModel

# What an answer about a model may take; a long licence is part of Ollama's.
LOOK_MAX_BYTES: Final = 8 * 1024 * 1024
LOOK_S: Final = 10.0
OLLAMA_CONTEXT: Final = 32_768
# Beyond this the models there stop calling tools.
RESETDATA_CONTEXT: Final = 60_000
CUT_OFF: Final = (
    "Your reply was cut off because it was too long, and nothing of it was done. Say less, or do it in "
    "several smaller steps."
)

OnText = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Answer:
    """What one try gave; the fields are those of `Reply`."""

    text: str
    calls: tuple[ToolCall, ...]
    unreadable: str
    finish: Literal["stop", "length"]
    tokens_in: int
    tokens_out: int


class Provider:
    """One provider and its model. `detail` says why it is not there, or that it is."""

    def __init__(self, name: Literal["ollama", "resetdata"], ai: AiSettings) -> None:
        self.name = name
        self.model = ai.model_of(name)
        if name == "ollama":
            self.window = self._most = ai.context or OLLAMA_CONTEXT
            self._connection = Connection(ai.ollama_endpoint)
        else:
            self.window = self._most = ai.context or RESETDATA_CONTEXT
            key = ai.resetdata_api_key.get_secret_value()
            self._connection = Connection(
                versioned(ai.resetdata_base_url), {"Authorization": f"Bearer {key}"}
            )
        self.there = False
        self.detail = "not asked yet"
        # Until a server says otherwise.
        self.calls_tools = True
        # Whether its server only passes requests on to somewhere else; None: it was not asked yet.
        self._remote = None if name == "ollama" else False

    async def close(self) -> None:
        """Ends its connections."""
        await self._connection.close()

    async def local(self) -> bool:
        """Whether what it is asked stays on loopback and private addresses."""
        return not self._remote and await self._connection.local()

    async def look(self) -> None:
        """Finds out whether the model is there, its window, and whether it calls tools. Raises nothing."""
        try:
            async with asyncio.timeout(LOOK_S):
                await (self._look_at_ollama() if self.name == "ollama" else self._look_at_list())
        except TimeoutError:
            self.told(f"no answer within {LOOK_S:g} s")
        except (Garbled, NoTools, BadCall) as error:
            self.told(str(error))
        except (ModelAway, ModelRefused) as error:
            self.told(error.reason)
        else:
            self.told("")

    def told(self, problem: str) -> None:
        """Keeps what was found out last; "": it is there."""
        self.there, self.detail = not problem, problem or "there"

    async def _look_at_ollama(self, *, local_only: bool = False) -> None:
        body = orjson.dumps({"model": self.model})
        shown = read_show(
            await self._connection.fetch("POST", "/api/show", body, LOOK_MAX_BYTES, local_only=local_only)
        )
        self.window = min(self._most, shown.window or self._most)
        self.calls_tools, self._remote = shown.tools, shown.remote

    async def _look_at_list(self) -> None:
        try:
            listed = await self._connection.fetch("GET", "/models", None, LOOK_MAX_BYTES)
        except Failed as error:
            if error.status in (404, 405):
                return  # a server that lists no models is there all the same
            raise
        names = _names(listed)
        if names and self.model not in names:
            raise Failed(f"it has no model {self.model}; RESETDATA_MODEL names one of its models")

    async def ask(
        self, turns: Sequence[Turn], tools: Sequence[ToolSpec], *, local_only: bool, on_text: OnText
    ) -> Answer:
        """One try; takes as long as the server takes.

        Raises Failed, Garbled, ModelRefused, and NoTools when it is found out that the model calls none: the
        next try works through text.
        """
        by_text = False
        try:
            if local_only and self._remote is None:
                await self._look_at_ollama(local_only=True)
            if local_only and self._remote:
                raise ModelRefused("its server passes requests on, and the task asks for a local model")
            by_text = bool(tools) and not self.calls_tools
            return await self._try(turns, tools, local_only, on_text, by_text=by_text)
        except NoTools as error:
            if by_text or not tools:
                raise Garbled(f"it refuses tools that it was not asked for: {error}") from None
            self.calls_tools = False
            raise
        except BadCall as error:
            return Answer("", (), f"Your tool call could not be read: {error}", "stop", 0, 0)

    async def _try(
        self,
        turns: Sequence[Turn],
        tools: Sequence[ToolSpec],
        local_only: bool,
        on_text: OnText,
        *,
        by_text: bool,
    ) -> Answer:
        if by_text:
            turns = text_protocol.as_text(turns)
        model = await asyncio.to_thread(self._load)
        from chorus.mind.providers import conversation

        text, calls, finish, used = await conversation.ask(
            model, turns, () if by_text else tools, local_only=local_only, on_text=on_text
        )
        if finish == "length":
            return Answer(text, (), CUT_OFF, finish, *used)
        if by_text:
            written, problem = text_protocol.read(text)
            if problem:
                return Answer(text, (), problem, finish, *used)
            calls = [(call.tool, orjson.dumps(call.arguments).decode()) for call in written]
        elif not calls:
            calls = written_calls.find(text, tools)
        good, unreadable = arguments.check(calls, tools)
        return Answer(text, good, unreadable, finish, *used)

    def _load(self) -> WireModel:
        if self.name == "ollama":
            from chorus.mind.providers.ollama import OllamaModel

            return OllamaModel(self.model, self._connection, self.window)
        from chorus.mind.providers.openai import OpenAIModel

        return OpenAIModel(self.model, self._connection)


def versioned(base_url: str) -> str:
    """The address under which the wire of OpenAI lies: `/v1` of a server that is named without a path."""
    return base_url if "/" in base_url.partition("://")[2] else f"{base_url}/v1"


def _names(listed: bytes) -> set[str]:
    """The models of a list; empty for what is none."""
    try:
        said = orjson.loads(listed)
    except ValueError:
        return set()
    items = said.get("data") if isinstance(said, dict) else None
    if not isinstance(items, list):
        return set()
    return {str(item["id"]) for item in items if isinstance(item, dict) and "id" in item}
