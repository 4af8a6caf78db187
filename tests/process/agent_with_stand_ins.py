"""Runs the real parent over stand-ins for its programs, and without a core: `python agent_with_stand_ins.py
NAME…`. TEST_PATIENCE_S shortens how long it waits for signs of life; TEST_REAL_IDENTITY has it use the core
for its identity, as a licence of KACHING takes one that signs; with TEST_REAL_NODE the program `node` is the
real one, with hub and log.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from chorus.agent.identity import load_peer_id
from chorus.agent.programs import Program, programs_of
from chorus.agent.service import start
from chorus.agent.watchdog import Patience

STAND_IN = str(Path(__file__).with_name("stand_in.py"))
PEER_ID = "12D3KooWStandInStandInStandInStandInStandInStandInSt"


def main() -> int:
    programs = [
        Program(name, (sys.executable, STAND_IN, name), 10 * priority)
        for priority, name in enumerate(sys.argv[1:], start=1)
    ]
    if os.environ.get("TEST_REAL_NODE"):
        real = {program.name: program for program in programs_of("none")}
        programs = [real["node"] if program.name == "node" else program for program in programs]
    patience = None
    if seconds := os.environ.get("TEST_PATIENCE_S"):
        patience = Patience(float(seconds), float(seconds), look_every_s=0.1)
    load_identity = load_peer_id if os.environ.get("TEST_REAL_IDENTITY") else lambda path: PEER_ID
    return start(programs, load_identity, patience)


if __name__ == "__main__":
    sys.exit(main())
