"""`chorusctl dev`: programs for developing and testing CHORUS itself."""

from __future__ import annotations

import os
from argparse import Namespace
from pathlib import Path
from typing import Final

from chorus.ctl.problems import CtlError
from chorus.ctl.serving import serve
from chorus.dev import ModelServer, Script, ScriptInvalid, WhooshServer, load_scripts, policy

# These play a script; the others need none.
_WITH_SCRIPT: Final = ("oracle", "victim", "slow", "dying")


def model(arguments: Namespace) -> int:
    """Serves the scripted model until it is interrupted; exit code 1 when the script ends it.

    Raises CtlError for a file that is no script and a port that is taken, OSError for a file that cannot be
    read.
    """
    scripts: list[Script] = []
    try:
        for path in arguments.script:
            scripts += load_scripts(Path(path))
    except ScriptInvalid as error:
        raise CtlError(str(error)) from None
    if arguments.policy in _WITH_SCRIPT and not scripts:
        raise CtlError(f"the policy {arguments.policy} plays a script: name one with --script FILE")
    return serve(
        lambda: ModelServer(
            policy(arguments.policy, scripts),
            port=arguments.port,
            model=arguments.model,
            context=arguments.window,
            calls_tools=not arguments.no_tools,
            delay_s=arguments.delay,
            on_exit=lambda: os._exit(1),
        ),
        arguments.port,
        lambda server: (
            {"url": server.url, "model": server.model, "policy": arguments.policy},
            (
                f"The scripted model {server.model} ({arguments.policy}) answers at {server.url}.",
                "An agent uses it with these settings:",
                f"  CHORUS_AI_PROVIDER=ollama OLLAMA_ENDPOINT={server.url} OLLAMA_MODEL={server.model}",
            ),
        ),
        as_json=arguments.json,
    )


def whoosh(arguments: Namespace) -> int:
    """Serves assignments until it is interrupted. Raises CtlError without the folder and for a taken port."""
    folder = Path(arguments.folder)
    if not folder.is_dir():
        raise CtlError(f"{folder}: no such folder; put default.json or NAME.json into one")
    example = '{"be": "silent"}'
    return serve(
        lambda: WhooshServer(folder, port=arguments.port, token=arguments.token),
        arguments.port,
        lambda server: (
            {"url": server.url},
            (
                f"Assignments are served at {server.url}. An agent uses its own with",
                f"  ASSIGN_URL={server.url}/assignments/NAME.json",
                f"Another behaviour: curl -d '{example}' {server.url}/admin",
            ),
        ),
        as_json=arguments.json,
    )
