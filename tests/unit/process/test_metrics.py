"""Counters that several processes share, over restarts of them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from chorus.config.paths import METRICS_VARIABLE

_START = """
import sys
from chorus.process import metrics
metrics.note_start("api")
metrics.note_licence(2, {"slow": 1})
metrics.note_licence(2 + int(sys.argv[1]), {"slow": 1, "suspended": int(sys.argv[1])})
sys.stdout.buffer.write(metrics.render())
"""


def start(folder: Path, more: int = 0) -> dict[str, float]:
    environ = {**os.environ, METRICS_VARIABLE: str(folder)}
    page = subprocess.run(
        [sys.executable, "-c", _START, str(more)], env=environ, check=True, capture_output=True
    ).stdout
    lines = (line.rpartition(" ") for line in page.decode().splitlines() if not line.startswith("#"))
    return {name: float(value) for name, _, value in lines}


def test_the_gates_checks_count_once_for_an_agents_start_and_restarts_each_time(tmp_path: Path) -> None:
    for restarts in range(3):
        page = start(tmp_path)
        assert page["chorus_license_checks_total"] == 2
        assert page["chorus_license_failures_total"] == 1
        assert page['chorus_license_refusals_total{reason="slow"}'] == 1
        assert page['chorus_process_restarts_total{process="api"}'] == restarts
    page = start(tmp_path, more=3)
    assert page["chorus_license_checks_total"] == 5
    assert page["chorus_license_failures_total"] == 4
    assert page['chorus_license_refusals_total{reason="suspended"}'] == 3
