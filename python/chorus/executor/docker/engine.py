"""Every call to the Docker daemon, each with a deadline. A daemon that is stopped, hung or restarting is
one error.

Calls run on threads of their own, since the SDK blocks; nothing here knows what a task is.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import functools
import re
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar, cast

import docker
import requests
import urllib3
from docker import errors as docker_errors
from docker.tls import TLSConfig
from docker.utils import kwargs_from_env

from chorus.executor.backend import BackendUnavailable, ImageUnavailable, SandboxError
from chorus.wire.images import repository_and_tag

CALL_TIMEOUT_S = 20.0
PING_TIMEOUT_S = 3.0
PULL_TIMEOUT_S = 600.0
# Versions of the daemon's API: the oldest that has all that sandboxes need (Docker Engine 20.10), and the one
# spoken with a daemon that has it. A later daemon's own oldest is spoken when it does not take that any more.
API_OLDEST = (1, 41)
API_USUAL = (1, 44)
# Starting many sandboxes at once is bound by the daemon, not by our threads.
_THREADS = 16

# "client version 1.41 is too old. Minimum supported API version is 1.44", or "too new".
_OTHER_VERSION = re.compile(r"client version \S+ is too (old|new)")

T = TypeVar("T")


class Engine:
    """One Docker daemon: `host` is DOCKER_HOST, or None for the environment's or the default socket."""

    def __init__(self, host: str | None, *, call_timeout_s: float = CALL_TIMEOUT_S) -> None:
        self._host = host
        self._call_timeout_s = call_timeout_s
        self._threads = concurrent.futures.ThreadPoolExecutor(_THREADS, thread_name_prefix="docker")
        # Asking how the daemon is must not queue behind calls that hang.
        self._ping_thread = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="docker-ping")
        self._clients: dict[tuple[str, float], docker.APIClient] = {}
        self._api_version = ""

    async def ping(self) -> str:
        """The daemon's version; raises BackendUnavailable."""

        def call(client: docker.APIClient) -> str:
            said = _version(client)
            # The daemon may have been replaced by another.
            self._api_version = api_version(said)
            return str(said.get("Version", ""))

        return await self._run(call, PING_TIMEOUT_S, threads=self._ping_thread)

    async def image_id(self, image: str) -> str | None:
        """The content id of a local image, None when it is not here."""

        def call(client: docker.APIClient) -> str | None:
            try:
                return str(cast(Any, client).inspect_image(image)["Id"])
            except docker_errors.ImageNotFound:
                return None

        return await self._run(call)

    async def pull(self, image: str, timeout_s: float = PULL_TIMEOUT_S) -> None:
        """Pulls an image; raises ImageUnavailable with the registry's reason."""
        repository, tag = repository_and_tag(image)

        def call(client: docker.APIClient) -> None:
            try:
                for line in client.pull(repository, tag=tag, stream=True, decode=True):
                    # `error` is deprecated since API 1.48, and may be left out.
                    error = (line.get("errorDetail") or {}).get("message") or line.get("error")
                    if error:
                        raise ImageUnavailable(f"image {image} could not be pulled: {error}")
            except docker_errors.APIError as refused:
                raise ImageUnavailable(f"image {image} could not be pulled: {_explain(refused)}") from refused

        try:
            await self._run(call, timeout_s, apart=True)
        except BackendUnavailable as error:
            raise ImageUnavailable(f"image {image} could not be pulled: {error.reason}") from error

    async def create(self, config: Mapping[str, Any], name: str | None = None) -> str:
        """Creates a container from a whole configuration; returns its id."""

        def call(client: docker.APIClient) -> str:
            return str(cast(Any, client).create_container_from_config(dict(config), name)["Id"])

        return await self._run(call)

    async def start(self, container: str) -> None:
        """Starts a created container."""
        await self._run(lambda client: client.start(container))

    async def open_exec(
        self, container: str, command: list[str], user: str
    ) -> tuple[str, socket.socket, Any]:
        """Starts an exec with its streams; returns its id, the raw socket and what must be kept alive with
        it.
        """

        def call(client: docker.APIClient) -> tuple[str, socket.socket, Any]:
            exec_id = client.exec_create(container, command, stdin=True, user=user)["Id"]
            wrapper = client.exec_start(exec_id, socket=True)
            # For plain sockets the SDK gives a SocketIO around the socket, for TLS the socket itself.
            return exec_id, cast(socket.socket, getattr(wrapper, "_sock", wrapper)), wrapper

        return await self._run(call)

    async def update(self, container: str, changes: Mapping[str, Any]) -> None:
        """Changes limits of a running container. (The SDK's own update call knows no process limit.)"""

        def call(client: docker.APIClient) -> None:
            untyped = cast(Any, client)
            url = untyped._url("/containers/{0}/update", container)
            untyped._result(untyped._post_json(url, data=dict(changes)), True)

        await self._run(call)

    async def rename(self, container: str, name: str) -> None:
        """Gives a container a name that people can read."""
        await self._run(lambda client: client.rename(container, name))

    async def inspect(self, container: str) -> dict[str, Any] | None:
        """The container as the daemon sees it, None when it is gone."""

        def call(client: docker.APIClient) -> dict[str, Any] | None:
            try:
                return cast(dict[str, Any], client.inspect_container(container))
            except docker_errors.NotFound:
                return None

        return await self._run(call)

    async def inspect_exec(self, exec_id: str) -> dict[str, Any]:
        """An exec as the daemon sees it; empty when it knows it no more, or may not say."""

        def call(client: docker.APIClient) -> dict[str, Any]:
            try:
                return cast(dict[str, Any], cast(Any, client).exec_inspect(exec_id))
            except docker_errors.APIError:
                return {}

        return await self._run(call)

    async def kill(self, container: str) -> None:
        """Kills a container; one that is dead or gone is fine."""

        def call(client: docker.APIClient) -> None:
            try:
                client.kill(container)
            except docker_errors.APIError as error:
                if error.status_code not in (404, 409):
                    raise

        await self._run(call)

    async def remove(self, container: str) -> None:
        """Removes a container by force; one that is gone or going is fine."""

        def call(client: docker.APIClient) -> None:
            try:
                client.remove_container(container, v=True, force=True)
            except docker_errors.APIError as error:
                if error.status_code not in (404, 409):
                    raise

        await self._run(call)

    async def containers(self, label: str) -> list[dict[str, Any]]:
        """All containers that carry a label, dead ones too."""
        return await self._run(
            lambda client: cast(list[dict[str, Any]], client.containers(all=True, filters={"label": [label]}))
        )

    def stats(self, container: str) -> Iterator[dict[str, Any]]:
        """Blocks: samples from the daemon's stats stream, until the container ends. For a thread."""
        client = self._client(self._call_timeout_s)
        yield from cast(Iterator[dict[str, Any]], client.stats(container, decode=True, stream=True))

    def close(self) -> None:
        """Closes the connections; calls that hang are left to their deadlines."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._ping_thread.shutdown(wait=False, cancel_futures=True)
        for client in list(self._clients.values()):
            client.close()

    async def _run(
        self,
        call: Callable[[docker.APIClient], T],
        timeout_s: float | None = None,
        threads: concurrent.futures.ThreadPoolExecutor | None = None,
        apart: bool = False,
    ) -> T:
        deadline = timeout_s or self._call_timeout_s

        def guarded() -> T:
            try:
                return call(self._client(deadline))
            except docker_errors.NotFound as error:
                raise SandboxError(_explain(error)) from error
            except docker_errors.APIError as error:
                # 500 is what the daemon says of one container it cannot make; a proxy says the others of
                # the daemon.
                if error.status_code == 400 and _OTHER_VERSION.search(_explain(error)):
                    self._api_version = ""
                    raise BackendUnavailable(f"Docker was replaced: {_explain(error)}") from error
                if (error.status_code or 0) > 500:
                    raise BackendUnavailable(f"Docker: {_explain(error)}") from error
                raise SandboxError(f"Docker: {_explain(error)}") from error
            except (
                docker_errors.DockerException,
                requests.exceptions.RequestException,
                urllib3.exceptions.HTTPError,
                OSError,
            ) as error:
                raise BackendUnavailable(f"Docker does not answer: {_short(error)}") from error

        try:
            # The SDK's own timeout counts from byte to byte; this one counts from the call.
            if apart:
                return await asyncio.wait_for(_on_own_thread(guarded), deadline + 1)
            loop = asyncio.get_running_loop()
            return await asyncio.wait_for(
                loop.run_in_executor(threads or self._threads, guarded), deadline + 1
            )
        except TimeoutError:
            raise BackendUnavailable(f"Docker does not answer within {deadline:.0f} s") from None
        except RuntimeError as error:  # the threads are shut down
            raise BackendUnavailable(str(error)) from error

    @functools.cached_property
    def _target(self) -> dict[str, Any]:
        environment = kwargs_from_env()
        target: dict[str, Any] = {}
        if base := self._host or environment.get("base_url"):
            target["base_url"] = base
        if isinstance(tls := environment.get("tls"), TLSConfig):
            target["tls"] = tls
            target["base_url"] = str(target.get("base_url", "")).replace("tcp://", "https://")
        return target

    def _client(self, timeout_s: float) -> docker.APIClient:
        if not self._api_version:
            self._api_version = api_version(_version(self._client_of(_dotted(API_OLDEST), timeout_s)))
        return self._client_of(self._api_version, timeout_s)

    def _client_of(self, version: str, timeout_s: float) -> docker.APIClient:
        """A client that speaks one version; making it asks the daemon nothing."""
        if client := self._clients.get((version, timeout_s)):
            return client
        made = docker.APIClient(timeout=cast(int, timeout_s), version=version, **self._target)
        # The environment's certificates (REQUESTS_CA_BUNDLE would win over DOCKER_CERT_PATH), HTTP proxies
        # and .netrc are for the world outside, not for the daemon.
        made.trust_env = False
        return self._clients.setdefault((version, timeout_s), made)


def _on_own_thread(call: Callable[[], T]) -> asyncio.Future[T]:
    """A call that may take minutes holds no thread that others wait for, and no process back from ending."""
    done: concurrent.futures.Future[T] = concurrent.futures.Future()

    def run() -> None:
        if not done.set_running_or_notify_cancel():
            return
        try:
            result = call()
        except BaseException as error:
            done.set_exception(error)
        else:
            done.set_result(result)

    threading.Thread(target=run, name="docker-pull", daemon=True).start()
    return asyncio.wrap_future(done)


def api_version(said: Mapping[str, Any]) -> str:
    """The version of the API to speak with a daemon that says this of itself.

    Raises BackendUnavailable when there is none that both know.
    """
    newest, oldest = _numbers(said.get("ApiVersion")), _numbers(said.get("MinAPIVersion")) or API_OLDEST
    if newest is None:
        raise BackendUnavailable(
            "Docker does not say which version of its API it speaks; is it a Docker daemon?"
        )
    if newest < API_OLDEST:
        raise BackendUnavailable(
            f"Docker {said.get('Version', '')} speaks version {_dotted(newest)} of its API, and sandboxes "
            f"need {_dotted(API_OLDEST)}: upgrade it to Docker Engine 20.10 or later"
        )
    return _dotted(max(min(newest, API_USUAL), oldest))


def _numbers(version: object) -> tuple[int, int] | None:
    found = re.fullmatch(r"([0-9]{1,4})\.([0-9]{1,4})", version) if isinstance(version, str) else None
    return (int(found[1]), int(found[2])) if found else None


def _dotted(version: tuple[int, int]) -> str:
    return f"{version[0]}.{version[1]}"


def _version(client: docker.APIClient) -> dict[str, Any]:
    return cast(dict[str, Any], cast(Any, client).version(api_version=False))


def _explain(error: docker_errors.APIError) -> str:
    return str(error.explanation or error)[:500]


def _short(error: BaseException) -> str:
    while error.__cause__ or error.__context__:
        error = cast(BaseException, error.__cause__ or error.__context__)
    return str(error)[:300] or type(error).__name__
