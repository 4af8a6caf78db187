"""A stand-in for one of the agent's programs: lives by the FIFO and gives signs of life like the real ones,
or fails as told.

`python stand_in.py NAME` appends its pid to `RUN/NAME.pids` once it is up, and ends on SIGTERM; SIGUSR1
blocks its event loop for good. `fail.NAME` in the run directory makes it end at once, `mute.NAME` makes it
give no sign; `order` there gets its name when it stops, `after_hang` when its last life was ended because it
did not answer.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path


def main() -> None:
    name, run_dir = sys.argv[1], Path(os.environ["CHORUS_RUN_DIR"])
    if (run_dir / f"fail.{name}").exists():
        sys.exit(1)
    # Not before: what fails should do so at once, however busy the machine is.
    from chorus.process import alive, crashes

    alive.watch(Path(os.environ["CHORUS_ALIVE"]))
    if crashes.take_unresponsive(run_dir, name):
        note(run_dir / "after_hang", name)
    asyncio.run(live(run_dir, name))
    note(run_dir / "order", name)


async def live(run_dir: Path, name: str) -> None:
    from chorus.process import alive

    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    loop.add_signal_handler(signal.SIGUSR1, signal.sigwait, [])
    signs = None
    if not (run_dir / f"mute.{name}").exists():
        signs = asyncio.create_task(alive.give_signs(Path(os.environ["CHORUS_EVENTS"]), name, 0.1))
    note(run_dir / f"{name}.pids", str(os.getpid()))
    await stop.wait()
    if signs is not None:
        signs.cancel()


def note(path: Path, line: str) -> None:
    with path.open("a") as file:
        file.write(f"{line}\n")


if __name__ == "__main__":
    main()
