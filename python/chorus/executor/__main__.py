"""Runs the executor: `python -m chorus.executor`."""

from chorus.executor.service import main
from chorus.process import run

if __name__ == "__main__":
    run("executor", main)
