"""`chorusctl dev backbeat`: the reference server of BACKBEAT, the telemetry."""

from __future__ import annotations

from argparse import Namespace

from chorus.ctl.problems import CtlError
from chorus.ctl.terminal import say, say_json
from chorus.dev.backbeat import BackbeatServer


def serve(arguments: Namespace) -> int:
    """Serves until it is interrupted. Raises CtlError for a port that is taken."""
    try:
        server = BackbeatServer(arguments.cluster, port=arguments.port, tempo_bpm=arguments.tempo)
    except OSError as error:
        raise CtlError(f"port {arguments.port}: {error.strerror}; --port 0 takes a free one") from None
    with server:
        if arguments.json:
            say_json({"url": server.url, "token": server.token, "cluster": arguments.cluster}, flush=True)
        else:
            say(f"BACKBEAT for the cluster {arguments.cluster} answers at {server.url}.")
            say("An agent uses it with these settings:")
            say(f"  CHORUS_BACKBEAT_ENABLED=true CHORUS_BACKBEAT_ENDPOINT={server.url}")
            say("What came, and how to make it misbehave (docs/backbeat.md has the faults):")
            admin = f'curl -H "Authorization: Bearer {server.token}" {server.url}/admin'
            say(f"  {admin}/seen")
            say(f'  {admin}/fault -d \'{{"fault": "silent"}}\'')
            say("Ctrl-C ends it.", flush=True)
        server.wait()
    return 0
