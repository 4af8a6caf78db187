"""The warm pool: whatever comes in whatever order, each sandbox is given away once or removed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chorus.executor.backend import BackendUnavailable, ImageUnavailable, Limits, SandboxError
from chorus.executor.docker import pool
from chorus.executor.docker.backend import DockerBackend
from chorus.executor.docker.pool import WarmPool

LIMITS = Limits(1.0, 1 << 27, 32, 1 << 26)
DEADLINE_S = 60.0


class Box:
    """As much of a sandbox as the pool knows."""

    def __init__(self, image: str) -> None:
        self.image = image
        self.alive = True
        self.closed = 0

    async def close(self) -> None:
        self.closed += 1
        self.alive = False
        await asyncio.sleep(0)


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "_REFILL_DELAY_S", 0.0)
    monkeypatch.setattr(pool, "_RETRY_S", 0.0)


STEP = st.sampled_from(["use", "take", "finish", "fail", "lose", "die", "forget", "turn"])


@settings(max_examples=150, deadline=None)
@given(steps=st.lists(st.tuples(STEP, st.integers(0, 5)), max_size=40))
def test_nothing_is_lost_or_given_twice(steps: list[tuple[str, int]]) -> None:
    asyncio.run(walk(steps))


async def walk(steps: list[tuple[str, int]]) -> None:
    made: list[Box] = []
    taken: list[Box] = []
    orders: asyncio.Queue[Exception | None] = asyncio.Queue()

    async def make(image: str) -> Any:
        if (order := await orders.get()) is not None:
            raise order
        made.append(Box(image))
        return made[-1]

    warm = WarmPool(make, 2)
    for what, number in steps:
        image = f"image-{number}"
        match what:
            case "use":
                warm.use(image)
            case "take":
                box: Any = warm.take(image, lambda box: True)
                if box is not None:
                    assert box.image == image
                    assert box.alive
                    taken.append(box)
            case "finish":
                orders.put_nowait(None)
            case "fail":
                orders.put_nowait(ImageUnavailable("gone"))
            case "lose":
                orders.put_nowait(BackendUnavailable("away") if number % 2 else OSError("no descriptor left"))
            case "die":
                for one in made[number:]:
                    one.alive = False
            case "forget":
                await warm.forget()
            case _:
                for _ in range(10 * number):
                    await asyncio.sleep(0)
    await warm.close()
    assert len(set(map(id, taken))) == len(taken)
    assert all(box.closed == (box not in taken) for box in made)


async def test_images_used_longest_ago_lose_theirs() -> None:
    made: list[Box] = []

    async def make(image: str) -> Any:
        made.append(Box(image))
        return made[-1]

    warm = WarmPool(make, 1)
    for number in range(5):
        warm.use(f"image-{number}")
        async with asyncio.timeout(DEADLINE_S):
            await warm.settled.wait()
    assert [box.image for box in made if box.alive] == ["image-2", "image-3", "image-4"]
    await warm.close()
    assert all(box.closed == 1 for box in made)


async def test_it_goes_on_after_any_error() -> None:
    made: list[Box] = []
    errors: list[Exception] = [OSError("no descriptor left"), BackendUnavailable("away"), RuntimeError("?")]

    async def make(image: str) -> Any:
        if errors:
            raise errors.pop()
        made.append(Box(image))
        return made[-1]

    warm = WarmPool(make, 1)
    warm.use("image")
    async with asyncio.timeout(DEADLINE_S):
        await warm.settled.wait()
    assert warm.take("image", lambda box: True) is not None
    await warm.close()


async def test_an_image_that_is_dropped_while_its_sandbox_is_made() -> None:
    made: list[Box] = []
    asked, let = asyncio.Event(), asyncio.Event()

    async def make(image: str) -> Any:
        asked.set()
        await let.wait()
        made.append(Box(image))
        return made[-1]

    warm = WarmPool(make, 1)
    warm.use("image-0")
    async with asyncio.timeout(DEADLINE_S):
        await asked.wait()
        for number in range(1, 4):
            warm.use(f"image-{number}")
        let.set()
        await warm.settled.wait()
    assert [box.image for box in made if not box.alive] == ["image-0"]
    await warm.close()
    assert all(box.closed == 1 for box in made)


class Daemon:
    """An engine whose containers are names in a dictionary, and whose answers wait for `let`."""

    def __init__(self) -> None:
        self.containers_now: dict[str, str] = {}
        self.wrong: Callable[[Mapping[str, Any]], Exception | None] = lambda config: None
        self.let = asyncio.Event()
        self.asked = asyncio.Event()
        self.answer_lost = False
        self.configs: list[Mapping[str, Any]] = []

    async def ping(self) -> str:
        return "1"

    async def image_id(self, image: str) -> str:
        return "sha256:1"

    async def create(self, config: Mapping[str, Any], name: str) -> str:
        self.configs.append(config)
        self.containers_now[name] = container = f"id-{len(self.configs)}"
        self.asked.set()
        await self.let.wait()
        if self.answer_lost:
            raise BackendUnavailable("no answer")
        return container

    async def start(self, container: str) -> None:
        if error := self.wrong(self.configs[-1]):
            raise error

    async def open_exec(self, container: str, command: list[str], user: str) -> Any:
        raise SandboxError("no session in a dictionary")

    async def containers(self, label: str) -> list[dict[str, Any]]:
        return [{"Id": id, "Names": [f"/{name}"]} for name, id in self.containers_now.items()]

    async def remove(self, container: str) -> None:
        self.containers_now = {name: id for name, id in self.containers_now.items() if id != container}

    def close(self) -> None:
        return


def backend_of(daemon: Daemon) -> DockerBackend:
    return DockerBackend(daemon, peer="p", boot="b", default=LIMITS, warm=0, lease_s=30.0)  # type: ignore[arg-type]


async def test_a_cancelled_start_leaves_no_container() -> None:
    daemon = Daemon()
    made = backend_of(daemon)
    acquiring = asyncio.create_task(made.acquire("image", LIMITS, 30.0))
    await daemon.asked.wait()
    acquiring.cancel()
    with pytest.raises(asyncio.CancelledError):
        await acquiring
    # A sweep meanwhile leaves alone what is just being made.
    await made.sweep()
    assert daemon.containers_now
    daemon.let.set()
    await made.close()
    assert not daemon.containers_now


async def test_a_container_whose_making_had_no_answer_is_swept() -> None:
    daemon = Daemon()
    daemon.let.set()
    daemon.answer_lost = True
    made = backend_of(daemon)
    with pytest.raises(BackendUnavailable):
        await made.acquire("image", LIMITS, 30.0)
    assert daemon.containers_now
    assert (await made.state()).ok
    assert not daemon.containers_now


async def test_a_kernel_without_ipv6_has_sandboxes_too() -> None:
    daemon = Daemon()
    daemon.let.set()

    def wrong(config: Mapping[str, Any]) -> Exception | None:
        if not config["HostConfig"]["Sysctls"]:
            return None
        return SandboxError(
            "Docker: open /proc/sys/net/ipv6/conf/all/disable_ipv6: no such file or directory"
        )

    daemon.wrong = wrong
    made = backend_of(daemon)
    for _ in range(2):
        with pytest.raises(SandboxError, match="no session"):
            await made.acquire("image", LIMITS, 30.0)
    assert [bool(config["HostConfig"]["Sysctls"]) for config in daemon.configs] == [True, False, False]
    assert not daemon.containers_now
