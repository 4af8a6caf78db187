"""Runs the node: `python -m chorus.node`."""

from typing import NoReturn

from chorus.node.service import main
from chorus.process import run


def start() -> NoReturn:
    """Runs this process, and ends it."""
    run("node", main, hub=False)


if __name__ == "__main__":
    start()
