"""Runs the process for models: `python -m chorus.mind`."""

from chorus.mind.service import main
from chorus.process import run

if __name__ == "__main__":
    run("mind", main)
