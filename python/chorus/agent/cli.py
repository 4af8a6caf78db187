"""The command line of `chorus-agent`: help and version need neither settings nor a licence; all else starts
the agent.
"""

from __future__ import annotations

import sys

from chorus.process import exit_codes

HELP = """
Usage:
  chorus-agent [--help] [--version]

CHORUS Autonomous Agent - P2P Task Coordination

This binary runs autonomous AI agents that participate in P2P task coordination,
collaborative reasoning via HMMM, and distributed decision making.

Environment (common):
  CHORUS_LICENSE_ID        (required)
  CHORUS_AGENT_ID          (optional; auto-generated if empty)
  CHORUS_P2P_PORT          (default 9000)
  CHORUS_API_PORT          (default 8080)
  CHORUS_HEALTH_PORT       (default 8081)
  CHORUS_DHT_ENABLED       (default true)
  CHORUS_BOOTSTRAP_PEERS   (comma-separated multiaddrs)
  OLLAMA_ENDPOINT          (default http://localhost:11434)

Example:
  CHORUS_LICENSE_ID=dev-123 \\
  CHORUS_AGENT_ID=chorus-agent-1 \\
  CHORUS_P2P_PORT=9000 CHORUS_API_PORT=8080 ./chorus-agent

Agent Features:
  - Autonomous task execution
  - P2P mesh networking
  - HMMM collaborative reasoning
  - DHT encrypted storage
  - UCXL context addressing
  - Democratic leader election
  - Health monitoring
"""


def main(argv: list[str] | None = None) -> int:
    """Runs `chorus-agent` and returns its exit code."""
    arguments = sys.argv[1:] if argv is None else argv
    for argument in arguments:
        if argument in ("--help", "-h", "help"):
            print(_version_line())
            print(HELP, end="")
            return exit_codes.CLEAN
        if argument in ("--version", "-v"):
            print(_version_line())
            return exit_codes.CLEAN
    if arguments:
        print(
            f"❌ Unknown argument: {arguments[0]}. chorus-agent takes its settings from the environment; "
            "see chorus-agent --help",
            file=sys.stderr,
        )
        return exit_codes.UNKNOWN_ARGUMENT
    from chorus.agent.service import start

    return start()


def _version_line() -> str:
    from chorus.agent.version import version_line

    return version_line()
