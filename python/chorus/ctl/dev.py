"""`chorusctl dev`: programs for developing and testing CHORUS itself."""

from __future__ import annotations

import os
from argparse import Namespace
from pathlib import Path
from typing import Final

from chorus.ctl.problems import CtlError
from chorus.ctl.terminal import say, say_json
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
    try:
        server = ModelServer(
            policy(arguments.policy, scripts),
            port=arguments.port,
            model=arguments.model,
            context=arguments.window,
            calls_tools=not arguments.no_tools,
            delay_s=arguments.delay,
            on_exit=lambda: os._exit(1),
        )
    except OSError as error:
        raise CtlError(f"port {arguments.port}: {error.strerror}; --port 0 takes a free one") from None
    with server:
        if arguments.json:
            say_json({"url": server.url, "model": server.model, "policy": arguments.policy}, flush=True)
        else:
            say(f"The scripted model {server.model} ({arguments.policy}) answers at {server.url}.")
            say("An agent uses it with these settings:")
            say(f"  CHORUS_AI_PROVIDER=ollama OLLAMA_ENDPOINT={server.url} OLLAMA_MODEL={server.model}")
            say("Ctrl-C ends it.", flush=True)
        server.wait()
    return 0


def whoosh(arguments: Namespace) -> int:
    """Serves assignments until it is interrupted. Raises CtlError without the folder and for a taken port."""
    folder = Path(arguments.folder)
    if not folder.is_dir():
        raise CtlError(f"{folder}: no such folder; put default.json or NAME.json into one")
    try:
        server = WhooshServer(folder, port=arguments.port, token=arguments.token)
    except OSError as error:
        raise CtlError(f"port {arguments.port}: {error.strerror}; --port 0 takes a free one") from None
    with server:
        if arguments.json:
            say_json({"url": server.url}, flush=True)
        else:
            say(f"Assignments are served at {server.url}. An agent uses its own with")
            say(f"  ASSIGN_URL={server.url}/assignments/NAME.json")
            example = '{"be": "silent"}'
            say(f"Another behaviour: curl -d '{example}' {server.url}/admin")
            say("Ctrl-C ends it.", flush=True)
        server.wait()
    return 0
