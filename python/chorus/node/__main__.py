"""Runs the node: `python -m chorus.node`."""

from chorus.node.service import main
from chorus.process import run

if __name__ == "__main__":
    run("node", main, hub=False)
