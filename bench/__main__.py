"""Runs the benches and prints their table; figures go into a JSON file too."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from pathlib import Path

import uvloop

from bench import container, curator, goals, local, log, mesh, real_model, records, scan
from bench.figures import Amounts, Comparison, amounts_table, table

NAMES = (
    "ucxl", "hub", "pubsub", "dht", "seal", "scan", "log", "context", "entry", "tasks", "goals", "container"
)  # fmt: skip


def main() -> int:
    """All benches, or those of --only."""
    parser = argparse.ArgumentParser(prog="bench", description="Measures CHORUS beside its peers.")
    only = "only these (may be repeated); `model` runs five goals with a real model, by hand alone"
    parser.add_argument("--only", action="append", choices=(*NAMES, "model"), help=only)
    parser.add_argument("--json", type=Path, default=Path("dist/bench.json"), metavar="FILE")
    arguments = parser.parse_args()
    chosen = arguments.only or NAMES
    rows: list[Comparison] = []
    amounts: list[Amounts] = []
    if "ucxl" in chosen:
        rows.append(local.ucxl())
    if "hub" in chosen:
        rows += uvloop.run(local.hub_call())
    if "pubsub" in chosen:
        rows.append(uvloop.run(local.pubsub()))
    if "dht" in chosen:
        rows += uvloop.run(records.dht())
    if "seal" in chosen:
        rows += records.sealing()
    if "log" in chosen:
        rows += uvloop.run(log.log())
    if "context" in chosen:
        rows += curator.context()
    if "scan" in chosen:
        rows += scan.scan()
    if "entry" in chosen or "tasks" in chosen:
        with (
            tempfile.TemporaryDirectory(prefix="chorus-bench-") as folder,
            mesh.mesh({**os.environ, "XDG_STATE_HOME": folder}) as agents,
        ):
            if "entry" in chosen:
                rows.append(uvloop.run(mesh.entry(agents)))
            if "tasks" in chosen:
                rows += mesh.tasks(agents)
    if "goals" in chosen:
        rows += goals.goals()
    if "container" in chosen:
        amounts += container.container()
    if "model" in chosen:
        print(real_model.real_model())
    if not rows and not amounts:
        return 0
    tables = [table(rows)] if rows else []
    if amounts:
        tables.append(amounts_table(amounts))
    print("\n\n".join(tables))
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    content = {
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "machine": f"{platform.system()} {platform.release()}, {os.cpu_count()} cores",
        "unit": "microseconds",
        "rows": [row.as_json() for row in rows],
        "amounts": [amount.as_json() for amount in amounts],
    }
    arguments.json.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n")
    print(f"\nwritten to {arguments.json}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
