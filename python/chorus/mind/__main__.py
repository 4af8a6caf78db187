"""Runs the process for models: `python -m chorus.mind`."""

from typing import NoReturn

from chorus.mind.service import main
from chorus.process import run


def start() -> NoReturn:
    """Runs this process, and ends it."""
    run("mind", main)


if __name__ == "__main__":
    start()
