"""How long the wheel takes to build: from nothing, and after a change of one source file of the core.

By hand, on a quiet machine: `bench/run --only build`. It takes minutes. What was committed is built, in a
clone; what the scripts fetch once for all checkouts (zig, maturin, crates) is to be there already.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

from bench.figures import Amounts

ROOT: Final = Path(__file__).resolve().parent.parent
CHANGED: Final = "rust/chorus_core/src/net/gossip.rs"
CHANGES: Final = 3


def build() -> list[Amounts]:
    """Both, by scripts/wheel.sh as `make wheel` calls it."""
    with tempfile.TemporaryDirectory(prefix="chorus-bench-") as folder:
        clone = Path(folder) / "checkout"
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
        environ = {
            **os.environ,
            "CARGO_TARGET_DIR": f"{folder}/target",
            "CHORUS_VENV": os.environ.get("CHORUS_VENV", sys.prefix),
        }
        clean = [_seconds(clone, environ)]
        changed = list[float]()
        for turn in range(CHANGES):
            # A new time alone would not do: the script looks at what is in the files.
            with (clone / CHANGED).open("a") as source:
                source.write(f"// Change {turn}.\n")
            changed.append(_seconds(clone, environ))
    return [
        Amounts("wheel from nothing", "s", clean, 360),
        Amounts("wheel after a change of one source file", "s", changed, 40),
    ]


def _seconds(clone: Path, environ: dict[str, str]) -> float:
    started = time.monotonic()
    command = [str(clone / "scripts" / "wheel.sh")]
    with subprocess.Popen(command, env=environ, stdout=subprocess.DEVNULL, start_new_session=True) as script:
        try:
            code = script.wait()
        except BaseException:
            # What it has started ends with it: the compilers would go on.
            os.killpg(script.pid, signal.SIGTERM)
            raise
    if code:
        raise RuntimeError(f"{command[0]} ended with {code}")
    return time.monotonic() - started
