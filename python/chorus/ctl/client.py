"""Talks HTTP with the agents of a mesh: any of them answers, so when one is away the next is asked."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO, Final, Self

import httpx
import orjson

from chorus.ctl.contexts import Endpoint, Target
from chorus.ctl.problems import MESH_FAILED, CtlError
from chorus.wire.visible import visible

CONNECT_TIMEOUT_S: Final = 5.0
# A submission may wait for an election.
ANSWER_TIMEOUT_S: Final = 60.0
# A live stream is silent for at most a heartbeat (15 s).
STREAM_TIMEOUT_S: Final = 45.0


class Unreachable(CtlError):
    """No agent of the mesh could be asked. `heard` says whether one may have heard the request."""

    heard = True


class Refused(CtlError):
    """An agent answered with a problem."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message, MESH_FAILED if status >= 500 else 1)
        self.status = status


class Client:
    """The agents of one mesh behind one face. Threads may ask through it at the same time."""

    def __init__(self, target: Target) -> None:
        # Replaced as a whole, never changed: a thread goes through the agents while another puts one behind.
        self._endpoints = tuple(target.endpoints)
        self._ordering = threading.Lock()
        timeout = httpx.Timeout(ANSWER_TIMEOUT_S, connect=CONNECT_TIMEOUT_S)
        # Proxies of the environment are for the world outside, not for an agent.
        self._http = httpx.Client(timeout=timeout, trust_env=False)

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        """The agents, the one that answered last first."""
        return self._endpoints

    def anew(self) -> Client:
        """The same agents over new connections: for another process, or after a call was broken off."""
        return Client(Target(self.endpoints))

    def close(self) -> None:
        """Closes all connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def get(self, path: str, **params: Any) -> Any:
        """JSON of a GET."""
        chosen = {name: value for name, value in params.items() if value is not None}
        return _json(self._ask("GET", path, params=chosen))

    def get_bytes(self, path: str, **params: Any) -> httpx.Response:
        """A small answer that is not to be decoded."""
        return self._ask("GET", path, params=params)

    def put(self, path: str, content: bytes, headers: dict[str, str], **params: Any) -> Any:
        """JSON of a PUT that may be repeated without harm."""
        return _json(self._ask("PUT", path, content=content, headers=headers, params=params))

    def post(self, path: str, body: Any = None) -> Any:
        """JSON of a POST that may be repeated without harm."""
        return _json(self._ask("POST", path, json=body) if body is not None else self._ask("POST", path))

    def delete(self, path: str) -> Any:
        """JSON of a DELETE, which may be repeated without harm."""
        return _json(self._ask("DELETE", path))

    def submit(
        self, task: dict[str, Any], source: BinaryIO | None, stdin: BinaryIO | None = None
    ) -> dict[str, Any]:
        """Submits a task that has its id already, and so may be sent twice."""
        parts = {"source": source, "stdin": stdin}
        sent = {name: (name, file) for name, file in parts.items() if file is not None}
        if not sent:
            answer = self._ask("POST", "/api/v1/tasks", json=task)
        else:
            files = {"task": (None, json.dumps(task).encode()), **sent}
            answer = self._ask(
                "POST", "/api/v1/tasks", files=files, rewind=[file for _, file in sent.values()]
            )
        body: dict[str, Any] = _json(answer)
        return body

    @contextmanager
    def stream(
        self, path: str, headers: dict[str, str] | None = None, **params: Any
    ) -> Iterator[httpx.Response]:
        """A long answer from the agent that answered last; raises httpx.TransportError when it breaks."""
        endpoint = self._endpoints[0]
        timeout = httpx.Timeout(STREAM_TIMEOUT_S, connect=CONNECT_TIMEOUT_S)
        headers = {**_bearer(endpoint), **(headers or {})}
        with self._http.stream(
            "GET", endpoint.url + path, headers=headers, params=params, timeout=timeout
        ) as response:
            if response.status_code >= 400:
                response.read()
                raise _refused(response, endpoint)
            yield response

    def only(self, agent_id: str | None) -> None:
        """From now on asks one agent, for what is that agent's own: the one named, else the first in line."""
        chosen = tuple(each for each in self._endpoints if agent_id in (None, each.agent_id))
        if not chosen:
            known = ", ".join(sorted(each.agent_id or each.url for each in self._endpoints))
            raise CtlError(f"this mesh has no agent {agent_id}; it has {known}")
        self._endpoints = chosen[:1]

    def prefer(self, agent_id: str | None) -> None:
        """From now on asks the agent of that name first, if it is known here."""
        with self._ordering:
            # The sort is stable: the others keep their order.
            self._endpoints = tuple(sorted(self._endpoints, key=lambda each: each.agent_id != agent_id))

    def pass_over(self) -> None:
        """Puts the agent that was asked last behind the others."""
        self._put_behind(self._endpoints[0])

    def _put_behind(self, endpoint: Endpoint) -> None:
        with self._ordering:
            # Another thread that met the same failure may have done so already.
            if self._endpoints[0] is endpoint:
                self._endpoints = (*self._endpoints[1:], endpoint)

    def _ask(
        self,
        method: str,
        path: str,
        *,
        rewind: Iterable[BinaryIO] = (),
        headers: dict[str, str] | None = None,
        **more: Any,
    ) -> httpx.Response:
        errors = []
        heard = False
        endpoints = self._endpoints
        for endpoint in endpoints:
            for file in rewind:
                file.seek(0)
            try:
                response = self._http.request(
                    method, endpoint.url + path, headers={**_bearer(endpoint), **(headers or {})}, **more
                )
            except httpx.TransportError as error:
                heard = heard or not isinstance(error, httpx.ConnectError | httpx.ConnectTimeout)
                errors.append(f"{endpoint.url}: {str(error) or type(error).__name__}")
                self._put_behind(endpoint)
                continue
            if response.status_code == 503 and len(errors) + 1 < len(endpoints):
                heard = True
                errors.append(f"{endpoint.url}: {_detail(response)}")
                self._put_behind(endpoint)
                continue
            if response.status_code >= 400:
                raise _refused(response, endpoint)
            return response
        listed = "; ".join(errors)
        failed = Unreachable(f"no agent of the mesh answers ({listed}); is it up? chorusctl up", MESH_FAILED)
        failed.heard = heard
        raise failed


def _bearer(endpoint: Endpoint) -> dict[str, str]:
    return {"Authorization": f"Bearer {endpoint.token}"}


def _refused(response: httpx.Response, endpoint: Endpoint) -> Refused:
    return Refused(f"{endpoint.agent_id or endpoint.url}: {_detail(response)}", response.status_code)


def _json(response: httpx.Response) -> Any:
    try:
        return orjson.loads(response.content)
    except orjson.JSONDecodeError as error:
        raise CtlError(f"{response.url.host} did not answer in JSON: {error}", MESH_FAILED) from None


def _detail(response: httpx.Response) -> str:
    """What an agent says of a refusal. It may quote others: each piece is one line."""
    try:
        problem = orjson.loads(response.content)
        if "error" in problem:
            # UCXI's form.
            return visible(f"{problem['error']['message']} ({problem['error']['code']})")
        lines = [visible(str(problem["detail"]))]
        lines += [visible(f"  {error['field']}: {error['message']}") for error in problem.get("errors", ())]
        return "\n".join(lines)
    except (ValueError, KeyError, TypeError, AttributeError):
        return f"HTTP {response.status_code}"
