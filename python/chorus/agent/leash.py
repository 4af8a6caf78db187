"""Runs supervisord as a child that dies with the agent's parent: `python -m chorus.agent.leash PARENT-PID
CONF`.
"""

from __future__ import annotations

import os
import sys

from chorus.process import death, exit_codes


def main() -> None:
    """Binds this process to its parent's life, then becomes supervisord."""
    parent, configuration = int(sys.argv[1]), sys.argv[2]
    death.die_with_parent_process()
    if os.getppid() != parent:
        sys.exit(exit_codes.PARENT_GONE)
    from supervisor.supervisord import main as supervisord

    supervisord(["-n", "-c", configuration])


if __name__ == "__main__":
    main()
