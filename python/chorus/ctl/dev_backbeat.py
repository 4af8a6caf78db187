"""`chorusctl dev backbeat`: the reference server of BACKBEAT, the telemetry."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from typing import Any

from chorus.ctl import serving
from chorus.dev.backbeat import BackbeatServer


def serve(arguments: Namespace) -> int:
    """Serves until it is interrupted. Raises CtlError for a port that is taken."""

    def told(server: BackbeatServer) -> tuple[dict[str, Any], Sequence[str]]:
        admin = f'curl -H "Authorization: Bearer {server.token}" {server.url}/admin'
        return {"url": server.url, "token": server.token, "cluster": arguments.cluster}, (
            f"BACKBEAT for the cluster {arguments.cluster} answers at {server.url}.",
            "An agent uses it with these settings:",
            f"  CHORUS_BACKBEAT_ENABLED=true CHORUS_BACKBEAT_ENDPOINT={server.url}",
            "What came, and how to make it misbehave (docs/backbeat.md has the faults):",
            f"  {admin}/seen",
            f'  {admin}/fault -d \'{{"fault": "silent"}}\'',
        )

    def make() -> BackbeatServer:
        return BackbeatServer(arguments.cluster, port=arguments.port, tempo_bpm=arguments.tempo)

    return serving.serve(make, arguments.port, told, as_json=arguments.json)
