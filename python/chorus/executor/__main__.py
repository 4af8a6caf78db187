"""Runs the executor: `python -m chorus.executor`."""

from typing import NoReturn

from chorus.executor.service import main
from chorus.process import run


def start() -> NoReturn:
    """Runs this process, and ends it."""
    run("executor", main)


if __name__ == "__main__":
    start()
