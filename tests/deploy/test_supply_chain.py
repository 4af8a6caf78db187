"""The audit refuses what may not be shipped, and a release is whole; both in clones of this checkout."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import GENEROUS_S, PREFIX, ROOT, SANDBOX, SOCKET, docker, run

pytestmark = [pytest.mark.deploy, pytest.mark.heavy]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A clone of what is committed."""
    folder = tmp_path / "checkout"
    run("git", "clone", "--quiet", str(ROOT), str(folder))
    return folder


def script(checkout: Path, name: str, **more: str) -> subprocess.CompletedProcess[str]:
    """Runs a script of a checkout to its end."""
    return subprocess.run(
        [str(checkout / "scripts" / name)],
        env=os.environ | {"CHORUS_VENV": os.environ.get("CHORUS_VENV", sys.prefix)} | more,
        capture_output=True,
        text=True,
        timeout=GENEROUS_S,
        check=False,
    )


def test_the_audit_lists_all_and_says_what_it_could_not_ask(checkout: Path) -> None:
    done = script(checkout, "audit.sh")
    assert done.returncode == 0, done.stderr
    for shipped in ("libp2p ", "raft ", "pydantic_core ", "supervisor "):
        assert f"\n {shipped}" in done.stdout
    told_of_advisories = "NOT CHECKED: advisories" in done.stderr
    assert told_of_advisories != ("nothing is known against what is shipped" in done.stderr)
    if told_of_advisories:
        strict = script(checkout, "audit.sh", AUDIT_STRICT="1")
        assert strict.returncode != 0
        assert "not everything could be checked" in strict.stderr


@pytest.mark.parametrize(
    ("file", "allowed", "named"),
    [("deny.toml", '  "ISC",\n', "ring"), ("scripts/audit.sh", '"ISC" ', "griffelib")],
)
def test_a_licence_that_is_not_allowed_is_refused_with_its_package(
    file: str, allowed: str, named: str, checkout: Path
) -> None:
    path = checkout / file
    text = path.read_text()
    assert text.count(allowed) == 1
    path.write_text(text.replace(allowed, ""))
    done = script(checkout, "audit.sh")
    assert done.returncode != 0
    assert named in done.stderr


def test_a_release_is_whole(checkout: Path) -> None:
    if not SOCKET.exists() or run("docker", "image", "inspect", SANDBOX, check=False).returncode:
        pytest.skip(f"no Docker at {SOCKET}: make setup")
    tags = {"TAG": f"{PREFIX}-agent:release", "PROXY_TAG": f"{PREFIX}-proxy:release"}
    try:
        done = script(checkout, "release.sh", **tags)
        assert done.returncode == 0, done.stderr
        dist = checkout / "dist"
        sums = subprocess.run(
            ["sha256sum", "-c", "SHA256SUMS"], cwd=dist, capture_output=True, text=True, check=True
        ).stdout
        made = {path.name for path in dist.iterdir() if not path.name.startswith(".")}
        assert {line.split(":")[0] for line in sums.splitlines()} == made - {"SHA256SUMS"}
        (wheel,) = (name for name in made if name.endswith(".whl"))
        parts = {path.name: purls(path) for path in dist.glob("*.cdx.json")}
        name = wheel.removesuffix(".whl")
        assert any(purl.startswith("pkg:cargo/libp2p@") for purl in parts[f"{name}.crates.cdx.json"])
        assert any(purl.startswith("pkg:pypi/pydantic@") for purl in parts[f"{name}.python.cdx.json"])
        version = wheel.split("-")[1]
        for image, package in (("chorus-agent", "python3"), ("chorus-docker-proxy", "nginx")):
            listed = parts[f"{image}-{version}.debian.cdx.json"]
            assert any(purl.startswith(f"pkg:deb/debian/{package}@") for purl in listed)
            assert f"{image}-{version}.tar.gz" in made
        # What is not committed is in no release.
        (checkout / "README.md").write_text("changed")
        refused = script(checkout, "release.sh", **tags)
        assert refused.returncode != 0
        assert "not committed" in refused.stderr
    finally:
        docker("image", "rm", *tags.values(), check=False)


def purls(path: Path) -> set[str]:
    """The parts that a bill of materials names."""
    bill = json.loads(path.read_text())
    assert bill["bomFormat"] == "CycloneDX"
    return {part["purl"] for part in bill["components"] if "purl" in part}
