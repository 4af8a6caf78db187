"""`chorusctl images pull` from a real image registry, Debian's docker-registry, on this machine."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from .conftest import PREFIX, SANDBOX, docker, run, until

pytestmark = [pytest.mark.deploy, pytest.mark.heavy]


@pytest.fixture
def registry(tmp_path: Path, daemon: None) -> Iterator[str]:
    """An empty registry's address. Docker asks one on loopback without TLS."""
    if shutil.which("docker-registry") is None:
        pytest.skip("no docker-registry: apt-get install docker-registry")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    settings = tmp_path / "registry.json"
    content = {
        "version": 0.1,
        "log": {"level": "error"},
        "storage": {"filesystem": {"rootdirectory": str(tmp_path / "images")}},
        "http": {"addr": address},
    }
    settings.write_text(json.dumps(content))
    words = ("docker-registry", "serve", str(settings))
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as serving:
        try:
            until(
                lambda: (
                    not run("bash", "-c", f"</dev/tcp/{address.replace(':', '/')}", check=False).returncode
                )
            )
            yield address
        finally:
            serving.kill()


def pull(image: str, *languages: str) -> subprocess.CompletedProcess[str]:
    """The command, where this is the image of `base`."""
    command = [sys.executable, "-m", "chorus.ctl", "images", "pull", *languages, "--json"]
    environ = os.environ | {"CHORUS_SANDBOX_IMAGES": json.dumps({"base": image})}
    return subprocess.run(command, env=environ, capture_output=True, text=True, timeout=600, check=False)


def test_it_brings_what_the_registry_has_and_says_what_it_has_not(registry: str) -> None:
    repository = f"{registry}/{PREFIX}/base"
    image = f"{repository}:v1"
    try:
        docker("tag", SANDBOX, image)
        docker("push", image)
        docker("rmi", image)
        done = pull(image, "base")
        assert done.returncode == 0, done.stderr
        its_id = docker("image", "inspect", "--format", "{{.Id}}", image)
        assert json.loads(done.stdout)["images"] == [{"image": image, "id": its_id}]
        assert its_id == docker("image", "inspect", "--format", "{{.Id}}", SANDBOX)
        digest = docker("image", "inspect", "--format", "{{index .RepoDigests 0}}", image)
        docker("rmi", image)
        assert pull(digest, "base").returncode == 0
        refused = pull(f"{repository}:v2", "base")
        assert refused.returncode == 1
        assert "its registry does not give it" in refused.stderr
    finally:
        listed = docker("images", "--digests", "--format", "{{.Repository}} {{.Tag}} {{.Digest}}", repository)
        for name, tag, digest in (line.split() for line in listed.splitlines()):
            docker("rmi", f"{name}@{digest}" if tag == "<none>" else f"{name}:{tag}")
