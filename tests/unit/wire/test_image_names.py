"""What a pull asks for, by the name of an image."""

from __future__ import annotations

import pytest

from chorus.wire.images import repository_and_tag


@pytest.mark.parametrize(
    ("image", "asked"),
    [
        ("a/b", ("a/b", "latest")),
        ("a/b:v1", ("a/b", "v1")),
        ("host:5000/a/b", ("host:5000/a/b", "latest")),
        ("host:5000/a/b:v1", ("host:5000/a/b", "v1")),
        ("a/b@sha256:00ff", ("a/b", "sha256:00ff")),
        ("host:5000/a/b@sha256:00ff", ("host:5000/a/b", "sha256:00ff")),
        ("a/b:v1@sha256:00ff", ("a/b:v1", "sha256:00ff")),
    ],
)
def test_a_pull_asks_for_a_tag_or_a_digest(image: str, asked: tuple[str, str]) -> None:
    assert repository_and_tag(image) == asked
