"""`chorusctl log`: an agent's signed log, its last entries, those to come, and whether it is genuine."""

from __future__ import annotations

import fcntl
import json
import os
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import httpx

from chorus.core.log import verify_folder
from chorus.ctl.client import Client, Refused, Unreachable
from chorus.ctl.follow import GIVE_UP_S, PAUSE_FIRST_S, PAUSE_MAX_S, parse
from chorus.ctl.problems import FAILED, MESH_FAILED, USAGE, CtlError
from chorus.ctl.terminal import progress, say, say_json
from chorus.wire.counts import counted
from chorus.wire.times import rfc3339
from chorus.wire.visible import visible, visible_json

PAGE_MAX: Final = 1000
# Where a data directory keeps the log.
LOG_FOLDER: Final = Path("core") / "log"

Entry = dict[str, Any]


def log(arguments: Namespace, connect: Callable[[], Client]) -> int:
    """The last entries, or with --follow those to come too, or with --verify what is wrong with them."""
    if arguments.dir is not None:
        if not arguments.verify:
            raise CtlError("--dir is for --verify: other looks at a log need its agent", USAGE)
        return _verify_at_rest(Path(arguments.dir), arguments)
    with connect() as client:
        if arguments.agent is not None:
            client.only(arguments.agent)
        length = int(client.get("/api/v1/log", limit=1)["length"])
        # Each agent has a log of its own: whoever answered is asked all the rest.
        client.only(None)
        if arguments.verify:
            return _report(_verification(client), arguments, None)
        for entry in _last(client, arguments, length):
            _print(entry, arguments)
        if arguments.follow:
            for entry in _follow(client, arguments, length):
                _print(entry, arguments)
    return 0


def _last(client: Client, arguments: Namespace, length: int) -> list[Entry]:
    """The last `lines` entries of the first `length`, the oldest of them first."""
    found: list[Entry] = []
    cursor: int | str | None = length
    while cursor is not None and len(found) < arguments.lines:
        page = client.get(
            "/api/v1/log",
            order="newest",
            cursor=cursor,
            type=arguments.type,
            limit=min(PAGE_MAX, arguments.lines - len(found)),
        )
        found += page["items"]
        cursor = page["next"]
    return found[::-1]


def _follow(client: Client, arguments: Namespace, start: int) -> Iterator[Entry]:
    """Entries from number `start` on, over broken connections to the one agent that has them."""
    chosen = {"follow": "true", **({} if arguments.type is None else {"type": arguments.type})}
    pause, lost_since = PAUSE_FIRST_S, None
    while True:
        problem = "the connection ended"
        try:
            with client.stream("/api/v1/log", cursor=str(start), **chosen) as response:
                for event in parse(response.iter_raw()):
                    pause, lost_since = PAUSE_FIRST_S, None
                    if event.event == "error":
                        why = visible(str(event.data["message"]))
                        raise CtlError(f"the log cannot be read on: {why}", FAILED)
                    start = int(event.id) + 1
                    yield event.data
        except httpx.TransportError as error:
            problem = str(error) or type(error).__name__
        except Refused as error:
            if error.status != 503:
                raise
            problem = str(error)
        now = time.monotonic()
        lost_since = lost_since or now
        if now - lost_since > GIVE_UP_S:
            raise Unreachable(f"the log cannot be followed any more: {problem}", MESH_FAILED)
        time.sleep(pause)
        pause = min(pause * 2, PAUSE_MAX_S)


def _print(entry: Entry, arguments: Namespace) -> None:
    if arguments.json:
        say_json(entry, flush=arguments.follow)
        return
    when = rfc3339(int(entry["timestamp"]))
    data = visible_json(entry["data"])
    say(f"{entry['seq']:>7}  {when}  {visible(str(entry['type'])):<18}  {data}", flush=arguments.follow)


def _verification(client: Client) -> Iterator[Entry]:
    try:
        with client.stream("/api/v1/log/verify") as response:
            for event in parse(response.iter_raw()):
                yield {"kind": event.event, **event.data}
    except httpx.TransportError as error:
        problem = str(error) or type(error).__name__
        raise Unreachable(f"the verification broke off: {problem}", MESH_FAILED) from None


def _verify_at_rest(folder: Path, arguments: Namespace) -> int:
    """The log in a data directory whose agent is stopped."""
    place = folder / LOG_FOLDER if (folder / LOG_FOLDER).is_dir() else folder
    try:
        owner = str(json.loads((folder / "agent.json").read_bytes())["peer_id"])
    except (OSError, ValueError, KeyError, TypeError):
        owner = None
    with _locked(folder):
        return _report(verify_folder(place), arguments, owner)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Keeps the folder's agent from starting meanwhile; refuses when it runs, for it would write."""
    try:
        handle = os.open(folder / "agent.lock", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        yield
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise CtlError(f"the agent of {folder} is running; ask it: chorusctl log --verify") from None
    finally:
        os.close(handle)


def _report(events: Iterable[Entry], arguments: Namespace, owner: str | None) -> int:
    end: Entry = {}
    shown = sys.stderr.isatty() and not arguments.json
    for event in events:
        if event["kind"] == "end":
            end = event
        elif shown:
            progress(f"checked {event['checked']} of {event['length']} entries")
    if shown:
        progress("")
    if not end:
        raise CtlError("the verification broke off; try again", FAILED)
    if end["genuine"] and owner is not None and end["peer_id"] != owner:
        message = f"the agent of this folder is {owner}, and {end['peer_id']} signed the log"
        end |= {"genuine": False, "error": {"code": "tampered", "message": message}}
    if arguments.json:
        say_json({name: value for name, value in end.items() if name != "kind"})
        return 0 if end["genuine"] else FAILED
    if not end["genuine"]:
        before = end.get("checked") or 0
        many = f"; the {before} entries before it fit their hashes" if before else ""
        fine = "; the entry before it fits its hash" if before == 1 else many
        raise CtlError(f"not genuine: {visible(str(end['error']['message']))}{fine}", FAILED)
    held = f"{counted(end['length'], 'entry', 'entries')}, {counted(end['byte_length'], 'byte')}"
    say(f"genuine: {held}, signed by {end['peer_id']}")
    say(f"key      {end['key']}")
    if end["fork"]:
        say(f"fork     {end['fork']}: signed entries were lost and the log begun anew that often")
    if end["unfinished"]:
        say(f"behind   {end['unfinished']}, never acknowledged; the next start cuts them off")
    return 0
