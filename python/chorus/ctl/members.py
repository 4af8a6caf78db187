"""Who belongs to the mesh: the list, removal, joining another mesh, and recovery when a majority is lost."""

from __future__ import annotations

import sys
import time
from argparse import Namespace
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import quote

from chorus.ctl.client import Client, Refused, Unreachable
from chorus.ctl.problems import FAILED, MESH_FAILED, USAGE, CtlError
from chorus.ctl.show import Columns, print_json, print_list, print_table
from chorus.ctl.terminal import note, progress, say
from chorus.wire.counts import counted
from chorus.wire.visible import visible

# An agent that leaves its mesh gives its tasks back, stops and starts again before it is asked anything.
GIVE_UP_S: Final = 180.0
PAUSE_FIRST_S: Final = 0.25
_YES: Final = ("y", "yes")

_MEMBERS: Final[Columns] = (
    ("agent", lambda row: row["agent_id"]),
    ("state", lambda row: row["state"]),
    ("votes", lambda row: row["voter"]),
    ("role", lambda row: row["role"]),
    ("version", lambda row: row["version"]),
    ("peer", lambda row: row["peer_id"]),
)
_ALL: Final[Columns] = (
    *_MEMBERS,
    ("removed", lambda row: row["removed_at"]),
    ("reason", lambda row: row["reason"]),
)
_VOTERS: Final[Columns] = (
    ("voter", lambda row: row["agent_id"]),
    ("reachable", lambda row: row["reachable"]),
    ("peer", lambda row: row["peer"]),
)
_LOGS: Final[Columns] = (
    ("log of", lambda row: row["agent_id"]),
    ("last entry", lambda row: row["last"]),
    ("of term", lambda row: row["term"]),
)
_HOLDS: Final = (("tasks", "task"), ("decisions", "decision record"), ("versions", "UCXL version"))


def members(client: Client, arguments: Namespace) -> int:
    """The members; with --all those that were removed too."""
    page = client.get("/api/v1/members", all="true" if arguments.all else None)
    return print_list(page, _ALL if arguments.all else _MEMBERS, arguments, shorten=("reason",))


def remove(client: Client, arguments: Namespace) -> int:
    """Removes a member."""
    _ask(arguments, f"{arguments.id} leaves the mesh for good; if it comes back, it joins anew. Go on?")
    force = "?force=true" if arguments.force else ""
    answer = client.delete(f"/api/v1/members/{quote(arguments.id, safe='')}{force}")
    return print_json(answer) if arguments.json else _said(f"{arguments.id}: removed")


def rejoin(client: Client, arguments: Namespace) -> int:
    """Has one agent leave its mesh for the other one that it meets."""
    before = _in_a_mesh(client, arguments, "/api/v1/status", lambda said: said["mesh"]["id"])["mesh"]["id"]
    _ask(
        arguments,
        f"{_name(client)} leaves mesh {before} for the other one that it meets. What only mesh {before} has "
        "stays behind in replaced/ in its data folder; results it has not told yet, and files of tasks, stay "
        "with it. Go on?",
    )
    client.post("/api/v1/members/rejoin")
    _wait(
        lambda: _mesh_after(before, client.get("/api/v1/status")["mesh"], "id"),
        f"{_name(client)} is not in another mesh yet. Its health says why: chorusctl doctor",
    )
    now = client.get("/api/v1/status")["mesh"]
    if arguments.json:
        return print_json({"left": before, "mesh": now["id"], "members": now["members"]})
    return _said(f"{_name(client)} has left mesh {before} and is in mesh {now['id']}")


def recover(client: Client, arguments: Namespace) -> int:
    """Founds a new mesh from what one agent has, when a majority of the voters is lost for good."""
    plan = _in_a_mesh(client, arguments, "/api/v1/members/recovery", lambda said: said["mesh"])
    old = plan["mesh"]
    _check(plan, arguments)
    if not arguments.json:
        _show(plan)
    _ask(
        arguments,
        f"A new mesh is founded from the log of {plan['this']['agent_id']}. What only the lost agents know "
        "is lost. Other agents of the old mesh join the new one by themselves, now or when they come back, "
        "and leave what they had in replaced/. Never recover on two agents of one mesh. Go on?",
    )
    client.post("/api/v1/members/recover", {"mesh": old, "force": arguments.force})
    _wait(lambda: _recovered(client, old), "the new mesh is not complete yet; chorusctl doctor says why")
    now = client.get("/api/v1/members/recovery")
    if arguments.json:
        return print_json({"mesh": now["mesh"], "recovers": old, "holds": now["holds"]})
    say(f"mesh {now['mesh']} goes on from mesh {old}, with {_holds(now)}")
    return _said("start agents in place of the lost ones as usual: they join by themselves")


def _in_a_mesh(client: Client, arguments: Namespace, path: str, mesh: Callable[[Any], Any]) -> Any:
    """Asks the agent that is named, else the first that is in a mesh; from then on only that one is asked."""
    if arguments.agent is not None:
        client.only(arguments.agent)
    for _ in client.endpoints:
        answer = client.get(path)
        if mesh(answer) is not None:
            break
        client.pass_over()
    client.only(None)
    return answer


def _name(client: Client) -> str:
    endpoint = client.endpoints[0]
    return endpoint.agent_id or endpoint.url


def _show(plan: dict[str, Any]) -> None:
    """The plan, for people."""
    say(plan["why"])
    print_table(plan["voters"], _VOTERS)
    print_table([plan["this"], *plan["reachable"]], _LOGS)
    say(f"{plan['this']['agent_id']} has {_holds(plan)}; the longest log is that of {plan['longest']}")


def _check(plan: dict[str, Any], arguments: Namespace) -> None:
    """Raises CtlError when there is nothing to recover, or another agent has more to recover from."""
    if plan["needed"] is not True:
        raise CtlError(f"nothing is to be recovered: {visible(str(plan['why']))}")
    this, longest = visible(str(plan["this"]["agent_id"])), visible(str(plan["longest"]))
    if longest != this and not arguments.force:
        raise CtlError(
            f"{longest} has a longer log than {this}, and what {this} lacks would be lost: recover there, "
            f"with --agent {longest} or on its machine. --force recovers from {this} all the same"
        )


def _recovered(client: Client, old: str) -> str:
    """What is still missing; "" when the mesh is there and has everything."""
    plan = client.get("/api/v1/members/recovery")
    if plan["leader"] is None or (missing := _mesh_after(old, plan, "mesh")):
        return "waiting for the new mesh" if plan["leader"] is None else missing
    return f"bringing everything in: {_holds(plan)} so far" if plan["bringing"] is True else ""


def _mesh_after(before: Any, said: dict[str, Any], key: str) -> str:
    return "waiting for the agent to be in another mesh" if said[key] in (None, before) else ""


def _holds(plan: dict[str, Any]) -> str:
    counts = [(plan["holds"][key], what) for key, what in _HOLDS]
    return ", ".join(counted(count, what) for count, what in counts)


def _wait(missing: Callable[[], str], given_up: str) -> None:
    """Returns when nothing is missing. Raises CtlError when nothing has changed for GIVE_UP_S."""
    last, since = "", time.monotonic()
    shown = sys.stderr.isatty()
    while True:
        try:
            now = missing()
        except Unreachable:
            now = "waiting for the agent to start again"
        except Refused as error:
            if error.status < 500:
                raise
            now = "waiting for all processes of the agent"
        if not now:
            break
        if now != last:
            last, since = now, time.monotonic()
            if shown:
                progress(now)
        if time.monotonic() - since >= GIVE_UP_S:
            raise CtlError(f"{given_up} ({visible(last)})", MESH_FAILED)
        time.sleep(PAUSE_FIRST_S)
    if shown:
        progress("")


def _ask(arguments: Namespace, question: str) -> None:
    """Returns when the answer is yes, or was given before by --yes; raises CtlError for any other."""
    if arguments.yes:
        return
    if not sys.stdin.isatty():
        raise CtlError("there is nobody here to ask: say --yes to go on without a question", USAGE)
    note(f"{question} [y/N]")
    if sys.stdin.readline().strip().lower() not in _YES:
        raise CtlError("nothing was done", FAILED)


def _said(text: str) -> int:
    say(text)
    return 0
