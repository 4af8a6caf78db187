"""Runs supervisord as a child that dies with the agent's parent: `python -m chorus.agent.leash PARENT-PID
CONF MODULE…`, where the modules are those of programs that it forks.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from chorus.process import death, exit_codes


def main() -> None:
    """Binds this process to its parent's life, then becomes supervisord."""
    parent, configuration, *modules = sys.argv[1:]
    death.die_with_parent_process()
    if os.getppid() != int(parent):
        sys.exit(exit_codes.PARENT_GONE)
    from supervisor.supervisord import main as supervisord

    if modules:
        from chorus.agent.forking import fork_programs

        fork_programs(modules, Path(configuration).parent)
    supervisord(["-n", "-c", configuration])


if __name__ == "__main__":
    main()
