"""The proxy under TLS: certificates on both sides, and everything a sandbox needs passes."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import pytest_asyncio

from chorus.agent.docker_check import docker_problem
from chorus.executor.backend import Limits, Sandbox, SandboxError
from chorus.executor.docker.engine import Engine
from chorus.testing.sandbox_contract import SandboxContract, bench

from .conftest import Secured
from .watched import Log

pytestmark = pytest.mark.deploy

Acquire = Callable[[Limits], Awaitable[Sandbox]]


@pytest.mark.heavy
class TestSecured(SandboxContract):
    """The whole contract of a sandbox, under TLS."""

    @pytest_asyncio.fixture
    async def acquire(self, secured_acquire: Acquire) -> Acquire:
        return secured_acquire


@pytest.mark.heavy
async def test_a_large_archive_under_tls(secured_acquire: Acquire, tmp_path: Path) -> None:
    """Both ways at once, in pieces that fill the sockets."""
    box = await bench(secured_acquire)
    (tmp_path / "f").write_bytes(os.urandom(30_000_000))
    with tarfile.open(tmp_path / "f.tar", "w") as tar:
        tar.add(tmp_path / "f", "f")
    await box.sandbox.put(tmp_path / "f.tar")
    assert (await box.run("cat f")).exit_code == 0
    assert box.sink.take() == (tmp_path / "f").read_bytes()


def test_certificates_are_asked_for(secured: Secured, tmp_path: Path) -> None:
    with_certificates = {"DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": str(secured.client)}
    assert docker_problem(secured.host, with_certificates) == ""
    (tmp_path / "ca.pem").write_bytes((secured.client / "ca.pem").read_bytes())
    assert "400" in docker_problem(
        secured.host, {"DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": str(tmp_path)}
    )
    log = Log(secured.name)
    # It was asked without TLS before, to know whether it is there.
    while log.refusal()[1]["reason"] != "no certificate of the authority for agents":
        pass
    log.close()
    (tmp_path / "ca.pem").unlink()
    why = docker_problem(secured.host, {"DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": str(tmp_path)})
    assert "DOCKER_CERT_PATH" in why


async def test_a_wrong_authority_is_the_daemon_not_there(
    secured: Secured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("cert.pem", "key.pem"):
        (tmp_path / name).write_bytes((secured.client / name).read_bytes())
    (tmp_path / "ca.pem").write_bytes((tmp_path / "cert.pem").read_bytes())
    monkeypatch.setenv("DOCKER_TLS_VERIFY", "1")
    monkeypatch.setenv("DOCKER_CERT_PATH", str(tmp_path))
    engine = Engine(secured.host)
    with pytest.raises(SandboxError, match="does not answer"):
        await engine.ping()
    engine.close()
