"""`python -m chorus.agent.probe`: the image's health check, whether the agent of this data directory lives.

It asks where the agent says that it is reached, so that any host and port will do, also port 0.
"""

from __future__ import annotations

import http.client
import json
import os
import sys
from pathlib import Path

ANSWER_TIMEOUT_S = 4.0
# An address to listen on is not one to call.
_EVERYWHERE = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}


def alive(agent_json: Path) -> str:
    """Empty when `/healthz` answers 200; otherwise why not."""
    try:
        told = json.loads(agent_json.read_bytes())
        host, port = str(told["api_host"]), int(told["ports"]["health"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"{agent_json}: not started yet ({error})"
    connection = http.client.HTTPConnection(_EVERYWHERE.get(host, host), port, timeout=ANSWER_TIMEOUT_S)
    try:
        connection.request("GET", "/healthz")
        answer = connection.getresponse()
    except (OSError, http.client.HTTPException) as error:
        return f"{host}:{port}: {error}"
    finally:
        connection.close()
    return "" if answer.status == http.client.OK else f"{host}:{port}: {answer.status} {answer.reason}"


def main() -> int:
    """Asks the agent whose data directory the environment names."""
    why = alive(Path(os.environ.get("CHORUS_DATA_DIR", ".")) / "agent.json")
    print(why or "alive")
    return 1 if why else 0


if __name__ == "__main__":
    sys.exit(main())
