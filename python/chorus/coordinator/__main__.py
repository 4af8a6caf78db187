"""Runs the coordinator: `python -m chorus.coordinator`."""

from chorus.coordinator.service import main
from chorus.process import run

if __name__ == "__main__":
    run("coordinator", main)
