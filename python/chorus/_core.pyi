"""The Rust core: handles, bytes and frozen values. Names and types here are checked against the built module."""

from typing import final

__version__: str
BUILD_COMMIT: str
BUILD_DATE: str

class CoreError(Exception):
    """The core said no; `code` is one of the hub's error codes."""

    code: str

@final
class Core:
    """A running core. It belongs to the process that started it; a forked child is refused."""

    @staticmethod
    def start(config_json: str) -> Core:
        """Starts a core; returns when its hub's socket is there and it listens."""

    def stop(self) -> None:
        """Stops it, flushing what is to be kept. Safe to call twice."""

    def stats(self) -> str:
        """Counters of every part, as JSON."""

    def info(self) -> str:
        """`peer_id`, `agent_id` and `listen`, as JSON."""
