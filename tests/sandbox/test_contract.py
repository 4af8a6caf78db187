"""Docker passes the contract of a sandbox backend."""

from __future__ import annotations

import pytest

from chorus.testing.sandbox_contract import SandboxContract

pytestmark = pytest.mark.docker


class TestDocker(SandboxContract):
    """All of it."""
