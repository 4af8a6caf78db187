"""Runs the real parent over stand-ins for its programs, and without a core: `python agent_with_stand_ins.py
NAME…`.
"""

from __future__ import annotations

import sys
from pathlib import Path

from chorus.agent.programs import Program
from chorus.agent.service import start

STAND_IN = str(Path(__file__).with_name("stand_in.py"))
PEER_ID = "12D3KooWStandInStandInStandInStandInStandInStandInSt"


def main() -> int:
    programs = [
        Program(name, (sys.executable, STAND_IN, name), 10 * priority)
        for priority, name in enumerate(sys.argv[1:], start=1)
    ]
    return start(programs, lambda path: PEER_ID)


if __name__ == "__main__":
    sys.exit(main())
