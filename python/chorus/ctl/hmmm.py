"""`chorusctl hmmm`: discussions of plans for people, listed, shown, followed, and joined."""

from __future__ import annotations

import getpass
import time
from argparse import Namespace
from typing import Any, Final

from chorus.ctl.client import Client
from chorus.ctl.follow import events
from chorus.ctl.show import Columns, print_json, print_list, print_pairs
from chorus.ctl.terminal import TAB_COLUMNS, say, say_json, say_lines
from chorus.wire.visible import visible

# How many discussions are read along at once, the newest.
READ_SESSIONS_MAX: Final = 50
LOOK_AGAIN_S: Final = 1.0
# In place of a number: all of that discussion was told.
ENDED: Final = -1

_SESSIONS: Final[Columns] = (
    ("session", lambda row: row["session_id"]),
    ("task", lambda row: row["task_id"]),
    ("agent", lambda row: row["agent_id"]),
    ("state", lambda row: row["outcome"] or row["state"]),
    ("opened", lambda row: row["opened_at"]),
    ("title", lambda row: row["title"]),
)


def sessions(client: Client, arguments: Namespace) -> int:
    """The newest discussions that the agent has heard."""
    page = client.get("/api/v1/hmmm/sessions", task_id=arguments.task, limit=arguments.limit)
    return print_list(page, _SESSIONS, arguments, shorten=("title",))


def show(client: Client, arguments: Namespace) -> int:
    """One discussion with all that was said."""
    said = client.get(f"/api/v1/hmmm/sessions/{arguments.session}")
    if arguments.json:
        return print_json(said)
    _print_head(said)
    for item in said["items"]:
        _print_item(item["kind"], item)
    return 0


def follow(client: Client, arguments: Namespace) -> int:
    """A discussion as it goes on, until its attempt is over; without one all of them, until Ctrl-C."""
    if arguments.session is None:
        return _read_along(client, arguments.json)
    path = f"/api/v1/hmmm/sessions/{arguments.session}"
    client.get(path)
    # Each agent counts what it heard by itself: whoever answered is asked all the rest.
    client.only(None)
    for event in events(client, f"{path}/events", f"discussion {arguments.session}", "", {}):
        if arguments.json:
            say_json({"id": event.id, "event": event.event, "data": event.data}, flush=True)
        elif event.event == "end":
            _print_head(event.data)
        else:
            _print_item(event.event, event.data, flush=True)
    return 0


def _read_along(client: Client, as_json: bool) -> int:
    """All discussions that one agent hears. It is told so, and owners of plans wait for a word through it."""
    client.post("/api/v1/hmmm/reader")
    # Whoever answered is asked all the rest: each agent numbers what it heard by itself.
    client.only(None)
    known: dict[str, int] | None = None
    while True:
        client.post("/api/v1/hmmm/reader")
        page = client.get("/api/v1/hmmm/sessions", limit=READ_SESSIONS_MAX)
        # What was over before is not told.
        before = {row["session_id"]: ENDED for row in page["items"] if row["state"] == "concluded"}
        numbers = before if known is None else known
        known = {}
        for row in reversed(page["items"]):
            ident = row["session_id"]
            number = numbers.get(ident, 0)
            known[ident] = number if number == ENDED else _tell_new(client, ident, number, as_json)
        time.sleep(LOOK_AGAIN_S)


def _tell_new(client: Client, session: str, number: int, as_json: bool) -> int:
    """Prints what was said after this number, and how it ended; the last number, or ENDED."""
    said = client.get(f"/api/v1/hmmm/sessions/{session}")
    for item in said["items"]:
        if item["n"] > number:
            number = item["n"]
            if as_json:
                say_json({"session_id": session, "event": item["kind"], "data": item}, flush=True)
            else:
                say(f"session {session}: {said['title']}")
                _print_item(item["kind"], item, flush=True)
    if said["state"] != "concluded":
        return number
    if as_json:
        head = {name: value for name, value in said.items() if name != "items"}
        say_json({"session_id": session, "event": "end", "data": head}, flush=True)
    else:
        _print_head(said)
    return ENDED


def speak(client: Client, arguments: Namespace) -> int:
    """A person's word in a discussion."""
    body: dict[str, Any] = {"message": arguments.message, "name": arguments.name or _user()}
    body |= {} if arguments.intent is None else {"intent": arguments.intent}
    body |= {} if arguments.to is None else {"parent_id": arguments.to}
    said = client.post(f"/api/v1/hmmm/sessions/{arguments.session}/messages", body)
    if arguments.json:
        return print_json(said)
    say(f"said through {said['from']['agent_id']}, as {said['intent']}")
    return 0


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return ""


def _print_head(said: dict[str, Any]) -> None:
    rows = [
        ("session", said["session_id"]),
        ("task", f"{said['task_id']}, attempt {said['attempt']}: {said['title']}"),
        ("owner", said["agent_id"]),
        ("asked", ", ".join(said["participants"]) or "nobody could answer"),
        ("state", said["state"] + (f": {said['outcome']}" if said["outcome"] else "")),
        ("reason", said["reason"] or "-"),
        ("record", said["record"] or "-"),
    ]
    print_pairs(rows)


def _print_item(kind: str, item: dict[str, Any], *, flush: bool = False) -> None:
    """One thing that was said: a line that says who and how, then the words."""
    who = _who(item.get("from"))
    heads = {
        "message": f"{item.get('message_id')}  {who}  {item.get('intent')}",
        "help": f"{item.get('request_id')}  {who}  asks for help",
        "advice": f"{item.get('request_id')}  {who}  advises",
        "alert": f"{item.get('alert_id')}  {item.get('rule')}  with task {_first(item.get('depends_on'))}",
        "record": f"{item.get('record')}  {item.get('outcome')}  {item.get('address')}",
    }
    say(f"{visible(str(item.get('at')))}  {heads.get(kind, kind)}", flush=flush)
    words = item.get("message") or item.get("question") or item.get("reason") or ""
    if words:
        lines = (line.expandtabs(TAB_COLUMNS) for line in str(words).splitlines())
        say_lines("\n".join(f"    {line}" for line in lines))


def _who(said: Any) -> str:
    if not isinstance(said, dict):
        return ""
    person = f"{said['person']} through " if said.get("person") else ""
    return f"{person}{said.get('agent_id')}"


def _first(said: Any) -> str:
    return str(said[0]) if isinstance(said, list) and said else "?"
