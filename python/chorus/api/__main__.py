"""Runs the api process: `python -m chorus.api`."""

from typing import NoReturn

from chorus.api.service import main
from chorus.process import run


def start() -> NoReturn:
    """Runs this process, and ends it."""
    run("api", main)


if __name__ == "__main__":
    start()
