"""The scripted model's HTTP server: Ollama's wire and the OpenAI-compatible one at one address."""

from __future__ import annotations

import hashlib
import json
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from typing import Any, ClassVar, Final

from chorus.dev import ollama, openai
from chorus.dev.conversation import Conversation
from chorus.dev.local_server import LocalHandler, LocalHttp, LocalServer
from chorus.dev.policies import Policy
from chorus.dev.script import Reply

MODEL: Final = "scripted"
CONTEXT_TOKENS: Final = 32_768
REQUEST_BYTES_MAX: Final = 64 * 1024 * 1024
# How many requests are remembered, for tests that look at what was asked.
SEEN_MAX: Final = 1000
_NDJSON: Final = "application/x-ndjson"
_EVENTS: Final = "text/event-stream"


@dataclass(frozen=True, slots=True)
class Seen:
    """A request that was answered or not: its path, its body as sent, and the reply that was chosen."""

    path: str
    body: dict[str, Any]
    said: Reply


class ModelServer(LocalServer):
    """Answers on 127.0.0.1 while the block runs, each request in a thread of its own.

    `delay_s` passes before each answer; `on_exit` is called, once, for a reply whose fault is to end the
    server (by default it closes). Raises OSError when the port is taken.
    """

    def __init__(
        self,
        policy: Policy,
        *,
        port: int = 0,
        model: str = MODEL,
        context: int = CONTEXT_TOKENS,
        calls_tools: bool = True,
        delay_s: float = 0.0,
        on_exit: Callable[[], None] | None = None,
    ) -> None:
        self.policy, self.model, self.context = policy, model, context
        self.calls_tools, self.delay_s = calls_tools, delay_s
        self.seen: deque[Seen] = deque(maxlen=SEEN_MAX)
        self._on_exit = on_exit or self.stop
        # How often a place of a script was asked for: faults that pass count from it.
        self._asked: Counter[str] = Counter()
        self._lock = threading.Lock()
        http = _Http(port, _Handler)
        http.model = self
        super().__init__(http)

    def exit(self) -> None:
        """Ends the server as its reply said."""
        self._on_exit()

    def reply(self, path: str, body: dict[str, Any], asked: Conversation) -> Reply:
        """The reply to a request, with its fault only while that still lasts."""
        said = self.policy(asked)
        with self._lock:
            self.seen.append(Seen(path, body, said))
            if said.times:
                key = hashlib.sha256(repr(asked).encode()).hexdigest()
                self._asked[key] += 1
                if self._asked[key] > said.times:
                    said = said.model_copy(update={"fault": None, "status": None})
        return said


class _Http(LocalHttp):
    model: ModelServer


class _Handler(LocalHandler, BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Each piece of a stream leaves at once.
    disable_nagle_algorithm: ClassVar[bool] = True
    server: _Http

    def do_GET(self) -> None:
        model = self.server.model
        if self.path == "/":
            self._bytes(200, b"Ollama is running", "text/plain")
        elif self.path == "/api/version":
            self._json(200, {"version": ollama.VERSION})
        elif self.path == "/api/tags":
            self._json(200, ollama.tags(model.model))
        elif self.path == "/v1/models":
            self._json(200, openai.models(model.model))
        else:
            self._json(404, {"error": "not found"})

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_POST(self) -> None:
        try:
            size = int(self.headers.get("content-length") or 0)
            if not 0 <= size <= REQUEST_BYTES_MAX:
                raise ValueError(f"a body of {size} bytes")
            body = json.loads(self.rfile.read(size))
            if not isinstance(body, dict):
                raise ValueError("the body is no object")
        except (ValueError, RecursionError) as error:
            self.close_connection = True
            self._json(400, {"error": f"bad request: {error}"})
            return
        try:
            self._asked(body)
        except (KeyError, TypeError, AttributeError) as error:
            self._json(400, {"error": f"bad request: {type(error).__name__}: {error}"})
        except OSError:
            self.close_connection = True  # the client has gone

    def _asked(self, body: dict[str, Any]) -> None:
        model = self.server.model
        if self.path not in ("/api/show", "/api/chat", "/v1/chat/completions"):
            self._json(404, {"error": "not found"})
        elif str(body.get("model", "")).removesuffix(":latest") != model.model.removesuffix(":latest"):
            self._json(404, {"error": f"model '{body.get('model')}' not found"})
        elif self.path == "/api/show":
            self._json(200, ollama.show(model.context, calls_tools=model.calls_tools))
        elif self.path == "/api/chat":
            asked = ollama.conversation(body)
            if asked.tools and not model.calls_tools:
                self._json(400, {"error": f"{model.model} does not support tools"})
                return
            said = model.reply(self.path, body, asked)
            lines = ollama.answer(model.model, asked, said)
            streams = body.get("stream", True)
            self._answer(said, _NDJSON, map(_line, lines) if streams else iter([_line(ollama.whole(lines))]))
        else:
            asked = openai.conversation(body)
            said = model.reply(self.path, body, asked)
            events = openai.answer(model.model, asked, said)
            if body.get("stream"):
                self._answer(said, _EVENTS, _sse(events))
            else:
                self._answer(said, "application/json", iter([_line(openai.whole(events))]))

    def _answer(self, said: Reply, kind: str, chunks: Iterator[bytes]) -> None:
        model = self.server.model
        if model.stopping.wait(model.delay_s + said.delay_s):
            self.close_connection = True
            return
        if said.status is not None:
            more = {} if said.retry_after_s is None else {"retry-after": f"{said.retry_after_s:g}"}
            self._json(said.status, {"error": "as the script says"}, more)
            return
        self.send_response(200)
        self.send_header("content-type", kind)
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        if said.fault is None:
            for chunk in chunks:
                self._chunk(chunk)
            self._chunk(b"")
            return
        # Half of what there is to say, and no end.
        parts = list(chunks)
        whole = b"".join(parts)
        self._chunk(whole[: max(1, len(whole) // 2)])
        self.close_connection = True
        if said.fault == "exit":
            model.exit()

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))

    def _json(self, status: int, content: dict[str, Any], headers: dict[str, str] | None = None) -> None:
        self._bytes(status, json.dumps(content).encode(), "application/json", headers)

    def _bytes(self, status: int, data: bytes, kind: str, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"content-type": kind, **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)


def _line(content: dict[str, Any]) -> bytes:
    return json.dumps(content, ensure_ascii=False).encode("utf-8", "surrogatepass") + b"\n"


def _sse(events: Iterator[dict[str, Any]]) -> Iterator[bytes]:
    for event in events:
        yield b"data: " + _line(event) + b"\n"
    yield b"data: [DONE]\n\n"
