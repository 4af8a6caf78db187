"""What the filtering proxy in deploy/ repeats of the executor; tests/deploy sees that a sandbox passes."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from chorus.config.groups.sandbox import DEFAULT_IMAGES
from chorus.executor.docker.container import SECCOMP

PROXY = Path(__file__).parents[3] / "deploy" / "docker-proxy"


def test_the_system_calls_of_sandboxes() -> None:
    found = re.search(r"^const SECCOMP_SHA256 = '(\w+)';$", (PROXY / "bodies.js").read_text(), re.MULTILINE)
    assert found
    assert found[1] == hashlib.sha256(SECCOMP.encode()).hexdigest()


def test_the_images_of_sandboxes() -> None:
    text = (PROXY / "settings.js").read_text()
    found = re.search(r"^const IMAGES = \[(.*)\]\n.*`(.*)\$\{name\}(.*)`", text, re.MULTILINE)
    assert found
    names = re.findall(r"'([\w-]+)'", found[1])
    assert {f"{found[2]}{name}{found[3]}" for name in names} == set(DEFAULT_IMAGES.values())
