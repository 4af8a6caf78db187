"""Starts the api process."""

from chorus.api.service import main
from chorus.process import run

if __name__ == "__main__":
    run("api", main)
