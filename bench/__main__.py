"""Runs the benches and prints their table; figures go into a JSON file too."""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, Final

import uvloop

from bench import (
    build,
    burst,
    container,
    curator,
    direct,
    entries,
    failover,
    goals,
    local,
    log,
    mesh,
    output,
    real_model,
    records,
    scan,
    scheduling,
    start,
    throughput,
)
from bench.figures import Amounts, Comparison, Row, amounts_table, table


def _on_loop(bench: Callable[..., Coroutine[Any, Any, Sequence[Row]]]) -> Callable[..., Sequence[Row]]:
    return lambda *arguments: uvloop.run(bench(*arguments))


BENCHES: Final[dict[str, Callable[[], Sequence[Row]]]] = {
    "ucxl": local.ucxl,
    "hub": _on_loop(local.hub_call),
    "pubsub": _on_loop(local.pubsub),
    "burst": _on_loop(burst.burst),
    "request": _on_loop(direct.request),
    "bulk": _on_loop(direct.bulk),
    "dht": _on_loop(records.dht),
    "seal": records.sealing,
    "log": _on_loop(log.log),
    "context": curator.context,
    "scan": scan.scan,
    "goals": goals.goals,
    "start": start.start,
    "failover": _on_loop(failover.failover),
    "scheduling": scheduling.scheduling,
    "container": container.container,
}
# These take minutes and are run by hand alone.
BY_HAND: Final[dict[str, Callable[[], Sequence[Row]]]] = {"build": build.build}
# These share one mesh of three agents.
OF_A_MESH: Final[dict[str, Callable[[list[dict[str, Any]]], Sequence[Row]]]] = {
    "entry": _on_loop(mesh.entry),
    "entries": _on_loop(entries.entries),
    "tasks": mesh.tasks,
    "throughput": _on_loop(throughput.throughput),
    "output": output.output,
}


def main() -> int:
    """All benches, or those of --only."""
    parser = argparse.ArgumentParser(prog="bench", description="Measures CHORUS beside its peers.")
    names = (*BENCHES, *OF_A_MESH)
    only = (
        "only these (may be repeated); by hand alone: `build` builds the wheel, "
        "`model` runs five goals with a real model"
    )
    parser.add_argument("--only", action="append", choices=(*names, *BY_HAND, "model"), help=only)
    parser.add_argument("--json", type=Path, default=Path("dist/bench.json"), metavar="FILE")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, _end)
    chosen = arguments.only or names
    rows = [row for name, bench in {**BENCHES, **BY_HAND}.items() if name in chosen for row in bench()]
    if of_a_mesh := [bench for name, bench in OF_A_MESH.items() if name in chosen]:
        with (
            tempfile.TemporaryDirectory(prefix="chorus-bench-") as folder,
            mesh.mesh({**os.environ, "XDG_STATE_HOME": folder}) as agents,
        ):
            rows += [row for bench in of_a_mesh for row in bench(agents)]
    if "model" in chosen:
        print(real_model.real_model())
    if not rows:
        return 0
    comparisons = [row for row in rows if isinstance(row, Comparison)]
    amounts = [row for row in rows if isinstance(row, Amounts)]
    tables = [table(comparisons)] if comparisons else []
    if amounts:
        tables.append(amounts_table(amounts))
    print("\n\n".join(tables))
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    content = {
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "machine": f"{platform.system()} {platform.release()}, {os.cpu_count()} cores",
        # Of comparisons; each amount names its own.
        "unit": "microseconds",
        "rows": [row.as_json() for row in comparisons],
        "amounts": [amount.as_json() for amount in amounts],
    }
    arguments.json.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n")
    print(f"\nwritten to {arguments.json}")
    return 0


def _end(*_: object) -> None:
    """Told to end, a bench removes what it has made; told again, it goes on with that."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
