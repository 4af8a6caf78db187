"""Runs the election process: `python -m chorus.election`."""

from chorus.election.service import main
from chorus.process import run

if __name__ == "__main__":
    run("election", main)
