"""A start that cannot go on: the lines for stderr, each in the contract's words and with what to do next."""

from __future__ import annotations

INITIALIZE_AGENT = "❌ Failed to initialize CHORUS agent"
INITIALIZE = "❌ Failed to initialize"
CREATE_NODE = "❌ Failed to create P2P node"


class StartupError(Exception):
    """Ends the start with exit code 1 after printing `lines`."""

    def __init__(self, *lines: str) -> None:
        super().__init__("\n".join(lines))
        self.lines = lines


def license_line(why: str) -> str:
    """The contract's line for a licence that does not hold."""
    return f"{INITIALIZE_AGENT}: license validation failed: {why}"


def setting_line(problem: str) -> str:
    """The line for one wrong setting."""
    return f"{INITIALIZE_AGENT}: {problem}"


def docker_line(why: str) -> str:
    """The contract's line for a Docker daemon that does not answer."""
    return f"{CREATE_NODE}: failed to create Docker client: {why}"


def bind_line(which: str) -> str:
    """The contract's line for a port that is taken."""
    return f"{INITIALIZE}: bind: address already in use: {which}"
