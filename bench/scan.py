"""The bench of the sentinel: secrets in source text, beside gitleaks on the same files in the same run."""

from __future__ import annotations

import json
import random
import shutil
import string
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from bench.figures import Comparison, figures
from bench.processes import MEASURE_TIMEOUT_S, go_peers
from chorus.core import Scanner

# Source enough that starting a program hardly counts, and as much as the target names.
CORPUS_BYTES = 24_000_000
ROUNDS = 3
# The scanner alone is over in a moment.
MEMORY_ROUNDS = 5
# What the targets ask: 200 MB/s on one core where gitleaks has 4.4 on two.
PROGRAM_TARGET, MEMORY_TARGET = 0.1, 0.022
LETTERS = string.ascii_letters + string.digits
# Kinds of secrets that are planted, each with the length of what is random in it. In pieces, so that scanners
# of this repository stay quiet.
KINDS = (
    ("gh" + "p_{}", 36, LETTERS),
    ("gl" + "pat-{}", 20, LETTERS),
    ("AK" + "IA{}", 16, "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"),
    ("xo" + "xb-2401539876123-3310982745123-{}", 24, LETTERS),
    ("S" + "K{}", 32, "0123456789abcdef"),
    ("np" + "m_{}", 36, LETTERS),
    ("sk" + "_live_{}", 30, LETTERS),
    ("hv" + "s.{}", 95, LETTERS),
    ("do" + "p_v1_{}", 64, "0123456789abcdef"),
    ("{}", 40, LETTERS),
)
PER_KIND = 5

Place = tuple[str, int]


def scan() -> list[Comparison]:
    """The program and the scanner alone, each beside gitleaks with all its cores."""
    gitleaks = str(go_peers() / "gitleaks")
    with tempfile.TemporaryDirectory(prefix="chorus-bench-") as folder:
        root, report = Path(folder) / "corpus", Path(folder) / "report.json"
        size, planted = _corpus(root)
        theirs_command = [gitleaks, "dir", str(root), "--no-banner", "--exit-code=0", "--log-level=error"]
        theirs_command += ["--report-format=json", f"--report-path={report}"]
        ours_command = [sys.executable, "-m", "chorus.ctl", "scan", str(root), "--json"]
        ours, peer, alone = list[float](), list[float](), list[float]()
        found: set[Place] = set()
        texts = [path.read_bytes() for path in sorted(root.rglob("*.py"))]
        for _ in range(ROUNDS):
            out, taken = _timed(ours_command)
            ours.append(taken)
            found = {(item["file"], item["line"]) for item in json.loads(out)["findings"]}
            peer.append(_timed(theirs_command)[1])
        scanner = Scanner()
        for _ in range(MEMORY_ROUNDS):
            started = time.perf_counter_ns()
            for text in texts:
                scanner.scan(text)
            alone.append((time.perf_counter_ns() - started) / 1000)
        theirs = {(item["File"], item["StartLine"]) for item in json.loads(report.read_bytes())}
    what = f"secrets in {size / 1e6:.0f} MB of source"
    both, mine, others = len(found & theirs), len(found - theirs), len(theirs - found)
    note = (
        f"found at the same place {both}, by chorus alone {mine}, by gitleaks alone {others}; of "
        f"{len(planted)} planted chorus found {len(planted & found)}, gitleaks {len(planted & theirs)}"
    )
    rates = [f"{size / min(times):.1f} MB/s" for times in (ours, alone, peer)]
    peers = figures(f"gitleaks ({rates[2]}, all cores)", peer)
    return [
        Comparison(what, figures(f"chorusctl scan ({rates[0]})", ours), peers, PROGRAM_TARGET, note),
        Comparison(
            f"{what}, in memory",
            figures(f"the scanner, one core ({rates[1]})", alone),
            peers,
            MEMORY_TARGET,
        ),
    ]


def _timed(command: list[str]) -> tuple[bytes, float]:
    started = time.perf_counter_ns()
    done = subprocess.run(command, stdout=subprocess.PIPE, timeout=MEASURE_TIMEOUT_S, check=False)
    taken = (time.perf_counter_ns() - started) / 1000
    # One says that there are secrets, which there are.
    if done.returncode not in (0, 1):
        raise RuntimeError(f"{command[0]} ended with {done.returncode}")
    return done.stdout, taken


def _corpus(root: Path) -> tuple[int, set[Place]]:
    """Copies of the standard library's source, of packages' where that is little; with secrets planted."""
    size = 0
    for number, path in enumerate(_sources()):
        target = root / f"{number % 64:02}" / f"{number}_{path.name}"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
        size += target.stat().st_size
        if size >= CORPUS_BYTES:
            break
    rng = random.Random(20_260_101)
    planted: set[Place] = set()
    files = sorted(root.rglob("*.py"))
    for form, length, alphabet in KINDS * PER_KIND:
        path = rng.choice(files)
        lines = path.read_bytes().count(b"\n") + 2
        secret = form.format("".join(rng.choice(alphabet) for _ in range(length)))
        with path.open("a", encoding="utf-8") as file:
            file.write(f'\napi_token = "{secret}"\n')
        planted.add((str(path), lines))
    return size, planted


def _sources() -> Iterator[Path]:
    for name in ("stdlib", "purelib", "platlib"):
        yield from sorted(Path(sysconfig.get_path(name)).rglob("*.py"))
