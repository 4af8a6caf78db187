"""A core and its hub in a process of their own, to be killed: `python node_alone.py FOLDER SOCKET`."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from mesh import SECRET

from chorus.core import Core
from chorus.core.config import core_config

if __name__ == "__main__":
    config = core_config(
        data_dir=Path(sys.argv[1]),
        hub=Path(sys.argv[2]),
        cluster_secret=SECRET,
        agent_id="a",
        threads=1,
        listen=["/ip4/127.0.0.1/tcp/0"],
    )
    core = Core.start(config)
    print("up", flush=True)
    while True:
        time.sleep(3600)
