"""Lists and single things of the mesh, as tables for people or as JSON as it came."""

from __future__ import annotations

import shutil
import sys
from argparse import Namespace
from collections.abc import Callable, Iterable
from typing import Any, Final
from urllib.parse import quote

from chorus.ctl.client import Client, Refused
from chorus.ctl.problems import FAILED
from chorus.ctl.terminal import note, note_lines, say, say_json
from chorus.wire.visible import visible

# How wide a table is made that goes into a file or a pipe, where something in it can be shortened.
WIDTH_COLUMNS: Final = 160
SHORTENED_MIN_COLUMNS: Final = 16
_GAP: Final = "  "

Row = dict[str, Any]
Columns = tuple[tuple[str, Callable[[Row], Any]], ...]

_TASKS: Final[Columns] = (
    ("task", lambda row: row["task_id"]),
    ("state", lambda row: row["state"]),
    ("agent", lambda row: row["agent_id"]),
    ("title", lambda row: row["title"]),
    ("running", lambda row: _seconds(row["running_s"])),
    ("reason", lambda row: row["reason"]),
)
_PEERS: Final[Columns] = (
    ("agent", lambda row: row["agent_id"]),
    ("peer", lambda row: row["peer_id"]),
    ("address", lambda row: ", ".join(row["addresses"])),
    ("rtt", lambda row: None if row["rtt_ms"] is None else f"{row['rtt_ms']:.1f} ms"),
)
_AGENTS: Final[Columns] = (
    ("agent", lambda row: row["agent_id"]),
    ("leads", lambda row: row["leader"]),
    ("present", lambda row: row["present"]),
    ("tasks", lambda row: f"{row['tasks']['active']}/{row['tasks']['max']}"),
    ("accepting", lambda row: row["accepting"]),
    ("languages", lambda row: ", ".join(row["languages"])),
    ("reason", lambda row: row["reason"]),
)
DECISIONS: Final[Columns] = (
    ("hash", lambda row: row["hash"][:12]),
    ("kind", lambda row: row["kind"]),
    ("agent", lambda row: row["agent_id"]),
    ("created", lambda row: row["created_at"]),
    ("address", lambda row: row["address"]),
)


def tasks(client: Client, arguments: Namespace) -> int:
    """The newest tasks."""
    page = client.get(
        "/api/v1/tasks",
        state=arguments.state,
        agent=arguments.agent,
        project=arguments.project,
        limit=arguments.limit,
    )
    return print_list(page, _TASKS, arguments, shorten=("title", "reason"))


def task(client: Client, arguments: Namespace) -> int:
    """One task."""
    return print_json(client.get(f"/api/v1/tasks/{arguments.task}"))


def cancel(client: Client, arguments: Namespace) -> int:
    """Cancels a task. An unknown id is most often a mistyped one: exit code 1, though it is remembered."""
    answer = client.post(f"/api/v1/tasks/{arguments.task}/cancel", {"reason": arguments.reason})
    if arguments.json:
        print_json(answer)
    elif answer["state"] is None:
        note(f"chorusctl: {arguments.task}: {answer['reason']}")
    else:
        say(f"{arguments.task}: {answer['state']}")
    return FAILED if answer["state"] is None else 0


def retry(client: Client, arguments: Namespace) -> int:
    """Offers an ended task again."""
    answer = client.post(f"/api/v1/tasks/{arguments.task}/retry")
    if arguments.json:
        return print_json(answer)
    if not answer.get("commands"):
        note(f"it begins from nothing; chorusctl ask GOAL --continue {arguments.task} goes on from its patch")
    return _say(f"{arguments.task}: {answer['state']}")


def rm(client: Client, arguments: Namespace) -> int:
    """Removes the output and artifacts of tasks that have ended."""
    code = 0
    for task_id in arguments.tasks:
        try:
            answer = client.delete(f"/api/v1/tasks/{quote(task_id, safe='')}")
        except Refused as error:
            note_lines(f"chorusctl: {error}")
            code = FAILED
            continue
        print_json(answer) if arguments.json else _say(f"{task_id}: removed")
    return code


def peers(client: Client, arguments: Namespace) -> int:
    """Connected peers."""
    return print_list(client.get("/api/v1/peers"), _PEERS, arguments)


def agents(client: Client, arguments: Namespace) -> int:
    """Who can be given work."""
    return print_list(client.get("/api/v1/agents"), _AGENTS, arguments)


def status(client: Client, arguments: Namespace) -> int:
    """The agent that answers, at a glance."""
    said = client.get("/api/v1/status")
    if arguments.json:
        return print_json(said)
    mesh, load = said["mesh"], said["tasks"]
    rows = [
        ("agent", f"{said['agent_id']} {said['version']}"),
        ("peer id", said["peer_id"]),
        ("mesh", mesh["id"] or "none yet"),
        ("members", f"{mesh['present']} of {mesh['members']} are present, {mesh['voters']} vote"),
        ("leader", f"{mesh['leader'] or 'none now'}, term {mesh['term']}; this agent is {mesh['state']}"),
        (
            "tasks",
            f"{load['active']} of {load['max']} active{', ' + load['reason'] if load['reason'] else ''}",
        ),
        ("peers", str(said["peers"])),
        ("model", said["ai"]["detail"]),
    ]
    return print_pairs(rows)


def election(client: Client, arguments: Namespace) -> int:
    """Who leads and since when."""
    said = client.get("/api/v1/election")
    if arguments.json:
        return print_json(said)
    rows = [(key, str(said[key])) for key in ("mesh", "term", "state", "leader", "since", "score", "trigger")]
    rows += [("member", f"{m['agent_id']}{' votes' if m['voter'] else ''}") for m in said["members"]]
    return print_pairs(rows)


def transfer(client: Client, arguments: Namespace) -> int:
    """Hands leadership over; the leader does it, whichever of the agents that is."""
    answer = client.post("/api/v1/election/transfer", {} if arguments.to is None else {"to": arguments.to})
    return print_json(answer) if arguments.json else _say(f"{answer['to']} leads now")


def reload(client: Client, arguments: Namespace) -> int:
    """Has the agent load its assignment anew; exit code 1 when that did not succeed."""
    said = client.post("/api/v1/reload")
    failed = [*said["refused"], *filter(None, [said["error"]])]
    if arguments.json:
        print_json(said)
        return FAILED if failed else 0
    say(f"changed: {', '.join(said['changed']) or 'nothing'}")
    for left in said["kept"]:
        say(f"kept: {left}")
    for why in failed:
        note(f"not taken: {why}")
    return FAILED if failed else 0


def token(client: Client, arguments: Namespace) -> int:
    """The bearer token of the agent that would be asked."""
    endpoint = client.endpoints[0]
    if arguments.json:
        return print_json({"url": endpoint.url, "token": endpoint.token})
    say(endpoint.token)
    return 0


def print_list(
    page: dict[str, Any], columns: Columns, arguments: Namespace, shorten: tuple[str, ...] = ()
) -> int:
    """A page of a list as a table, or with --json as it came."""
    return print_json(page) if arguments.json else print_table(page["items"], columns, shorten)


def print_table(rows: Iterable[Row], columns: Columns, shorten: tuple[str, ...] = ()) -> int:
    """Prints rows with a heading. The columns named in `shorten` are cut, visibly, so that a line fits the
    terminal, or WIDTH_COLUMNS where there is none; the others are never cut but by the terminal's edge.
    """
    cells = [[name for name, _ in columns]]
    cells += [[cell(value(row)) for _, value in columns] for row in rows]
    widths = [max(len(line[column]) for line in cells) for column in range(len(columns))]
    terminal = shutil.get_terminal_size((WIDTH_COLUMNS, 0)).columns if sys.stdout.isatty() else None
    places = [place for place, (name, _) in enumerate(columns) if name in shorten]
    over = sum(widths) + len(_GAP) * (len(columns) - 1) - (terminal or WIDTH_COLUMNS)
    # The widest gives first.
    while over > 0 and (widest := max(places, key=lambda place: widths[place], default=None)) is not None:
        if widths[widest] <= SHORTENED_MIN_COLUMNS:
            break
        others = max((widths[place] for place in places if place != widest), default=0)
        less = min(over, max(1, widths[widest] - others), widths[widest] - SHORTENED_MIN_COLUMNS)
        widths[widest] -= less
        over -= less
    for line in cells:
        fitted = [_cut(text, width).ljust(width) for text, width in zip(line, widths, strict=True)]
        say(_GAP.join(fitted).rstrip()[:terminal])
    return 0


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 1]}…"


def print_pairs(rows: list[tuple[str, str]]) -> int:
    """Names and values, a line each."""
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        say(f"{name.ljust(width)}  {cell(value)}")
    return 0


def cell(value: Any) -> str:
    """A value as one line, its hidden characters written out so that columns keep their width."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return visible(str(value))


def _seconds(value: float | None) -> str | None:
    return None if value is None else f"{value:.1f} s"


def print_json(value: Any) -> int:
    """Prints a value as one line of JSON."""
    say_json(value)
    return 0


def _say(text: str) -> int:
    say(text)
    return 0
