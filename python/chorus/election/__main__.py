"""Runs the election process: `python -m chorus.election`."""

from typing import NoReturn

from chorus.election.service import main
from chorus.process import run


def start() -> NoReturn:
    """Runs this process, and ends it."""
    run("election", main)


if __name__ == "__main__":
    start()
