"""Runs chorusctl as a module."""

import sys

from chorus.ctl.cli import main

if __name__ == "__main__":
    sys.exit(main())
