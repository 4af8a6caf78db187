"""A stand-in for one of the agent's programs: lives by the FIFO like the real ones, or fails as told.

`python stand_in.py NAME` appends its pid to `RUN/NAME.pids` once it is up, and ends on SIGTERM.
`fail.NAME` in the run directory makes it end at once; `order` there gets its name when it stops.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path


def main() -> None:
    name, run_dir = sys.argv[1], Path(os.environ["CHORUS_RUN_DIR"])
    if (run_dir / f"fail.{name}").exists():
        sys.exit(1)
    # Not before: what fails should do so at once, however busy the machine is.
    from chorus.process import alive

    alive.watch(Path(os.environ["CHORUS_ALIVE"]))
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    with (run_dir / f"{name}.pids").open("a") as pids:
        pids.write(f"{os.getpid()}\n")
    signal.sigwait({signal.SIGTERM})
    with (run_dir / "order").open("a") as order:
        order.write(f"{name}\n")


if __name__ == "__main__":
    main()
