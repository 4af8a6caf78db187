"""`chorusctl say`: words for a goal that runs, which enter before its next step."""

from __future__ import annotations

from argparse import Namespace

from chorus.ctl.client import Client
from chorus.ctl.show import print_json
from chorus.ctl.terminal import say as print_line
from chorus.wire.ids import new_id


def say(client: Client, arguments: Namespace) -> int:
    """Returns once the agent that runs the goal has the words on disk."""
    task = client.get(f"/api/v1/tasks/{arguments.task}")
    # Asked itself, that agent takes them for a person's.
    client.prefer(task.get("agent_id"))
    # Under an id of their own, other agents may be asked too and the words are still said once.
    words = {"text": arguments.text, "name": arguments.name, "id": new_id()}
    answer = client.post(f"/api/v1/tasks/{arguments.task}/messages", words)
    if arguments.json:
        return print_json(answer)
    print_line(f"{arguments.task}: said; it is heard before the next step")
    return 0
