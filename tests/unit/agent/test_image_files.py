"""What the Dockerfiles repeat of the package."""

from __future__ import annotations

from pathlib import Path

import pytest

from chorus.agent.version import build_info

ROOT = Path(__file__).parents[3]
DOCKERFILES = ["Dockerfile", "deploy/docker-proxy/Dockerfile"]


@pytest.mark.parametrize("name", DOCKERFILES)
def test_the_version_in_the_labels_is_the_packages(name: str) -> None:
    assert f"\nARG CHORUS_VERSION={build_info()[0]}\n" in (ROOT / name).read_text()


@pytest.mark.parametrize("name", DOCKERFILES)
def test_the_base_is_the_contracts_where_a_registry_is(name: str) -> None:
    assert "\nARG BASE=debian:bookworm-slim\n" in (ROOT / name).read_text()
