"""A mesh of three real agents and strangers who hold its network key and nothing else."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from e2e.conftest import Mesh, brought_up, needs

from .peer import HostilePeer, build, derived_key, hostile_peer

__all__ = ["needs"]

# Another one in each process of a test run: meshes of one secret find each other by mDNS and become one.
SECRET = f"a secret of the hostile tests, of no worth: {os.urandom(8).hex()}"

Stranger = Callable[..., AbstractContextManager[HostilePeer]]


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "e2e: three real agents, a Docker daemon and the sandbox images")


@pytest.fixture(scope="session")
def program() -> Path:
    return build()


@pytest.fixture(scope="module")
def mesh(needs: None) -> Iterator[Mesh]:
    yield from brought_up(3, CHORUS_CLUSTER_SECRET=SECRET)


@pytest.fixture
def stranger(mesh: Mesh, program: Path) -> Stranger:
    """Makes strangers: `with stranger(agent=0, identities=1) as peer`."""

    def make(agent: int = 0, identities: int = 1, **more: bool) -> AbstractContextManager[HostilePeer]:
        multiaddr = mesh.agents[agent].multiaddr
        return hostile_peer(program, derived_key(SECRET.encode(), "network"), multiaddr, identities, **more)

    return make
