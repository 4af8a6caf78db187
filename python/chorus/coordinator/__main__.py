"""Runs the coordinator: `python -m chorus.coordinator`."""

from typing import NoReturn

from chorus.coordinator.service import main
from chorus.process import run


def start() -> NoReturn:
    """Runs this process, and ends it."""
    run("coordinator", main)


if __name__ == "__main__":
    start()
