"""Which images are here: the daemon is not asked for each of them again and again."""

from __future__ import annotations

from typing import Any

import pytest

from chorus.executor import image_store
from chorus.executor.backend import BackendUnavailable
from chorus.executor.image_store import ImageStore


class Daemon:
    """The images that it has; `asked` counts the calls."""

    def __init__(self, *images: str) -> None:
        self.images = set(images)
        self.asked = 0
        self.away = False

    async def has_image(self, image: str) -> bool:
        self.asked += 1
        if self.away:
            raise BackendUnavailable("Docker does not answer")
        return image in self.images

    async def ensure_image(self, image: str) -> tuple[str, float]:
        here = image in self.images
        self.images.add(image)
        return "sha256:0", 0.0 if here else 1.5


def store(daemon: Any) -> ImageStore:
    return ImageStore(daemon)


async def test_what_was_found_counts_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    daemon = Daemon("a")
    images = store(daemon)
    assert await images.present(["a", "b"]) == ["a"]
    daemon.images.add("b")
    assert await images.present(["a", "b"]) == ["a"]
    assert daemon.asked == 2
    # Others are others.
    assert await images.present(["b"]) == ["b"]
    monkeypatch.setattr(image_store, "PRESENT_S", 0.0)
    assert await images.present(["b"]) == ["b"]
    assert daemon.asked == 4


async def test_a_pull_and_another_daemon_have_it_ask_again() -> None:
    daemon = Daemon("a")
    images = store(daemon)
    assert await images.present(["a", "b"]) == ["a"]
    assert await images.ensure("b") == 1.5
    assert await images.present(["a", "b"]) == ["a", "b"]
    daemon.images.clear()
    images.forget()
    assert await images.present(["a", "b"]) == []


async def test_no_answer_is_nothing_found_out() -> None:
    daemon = Daemon("a")
    images = store(daemon)
    daemon.away = True
    with pytest.raises(BackendUnavailable):
        await images.present(["a"])
    daemon.away = False
    assert await images.present(["a"]) == ["a"]
