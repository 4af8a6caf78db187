"""The exit codes of the agent and its processes."""

from __future__ import annotations

CLEAN = 0
# Licence, settings or start-up failure; in a child: its work ended with an error.
FAILED = 1
UNKNOWN_ARGUMENT = 2
# A child whose parent is gone; nobody is left to read it but a debugger.
PARENT_GONE = 3
