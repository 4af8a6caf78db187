"""`chorusctl ucxl`: reads and writes what lies at UCXL addresses, lists it, follows it."""

from __future__ import annotations

import mimetypes
import sys
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from chorus.ctl.client import Client
from chorus.ctl.follow import events
from chorus.ctl.problems import CtlError
from chorus.ctl.show import Columns, cell, print_json, print_table
from chorus.ctl.terminal import Output, say, write_bytes
from chorus.wire.counts import counted
from chorus.wire.ids import new_id

_PAGE: Final = 500
_BASE: Final = "/ucxi/v1"

_VERSIONS: Final[Columns] = (
    ("address", lambda row: row["address"]),
    ("size", lambda row: "deleted" if row["deleted"] else row["size"]),
    ("type", lambda row: row["content_type"]),
    ("author", lambda row: row["agent_id"] or row["author"]),
    ("created", lambda row: row["created_at"]),
)


def get(client: Client, arguments: Namespace) -> int:
    """The content, byte for byte, to standard output or a file; a terminal gets it so only with `--raw`."""
    if arguments.json:
        return print_json(_data(client.get(f"{_BASE}/get", address=arguments.address)))
    content = client.get_bytes(f"{_BASE}/get", address=arguments.address, raw="true").content
    if arguments.output is None and sys.stdout.isatty() and not arguments.raw:
        Output().push(content, end=True)
    elif arguments.output is None:
        write_bytes(content)
    else:
        Path(arguments.output).write_bytes(content)
    return 0


def put(client: Client, arguments: Namespace) -> int:
    """Writes a file, or standard input, as the next version."""
    if arguments.file in (None, "-"):
        content = sys.stdin.buffer.read()
    else:
        try:
            content = Path(arguments.file).read_bytes()
        except OSError as error:
            raise CtlError(f"{arguments.file}: {error.strerror}") from None
    # Repeated at another agent when one does not answer: under one key it is one version.
    headers = {"Content-Type": _media_type(arguments), "Idempotency-Key": new_id()}
    if arguments.create:
        headers["If-None-Match"] = "*"
    if arguments.after is not None:
        headers["If-Match"] = f'"{arguments.after}"'
    answer = client.put(f"{_BASE}/put", content, headers, address=arguments.address)
    return _say_written(_data(answer), arguments)


def query(client: Client, arguments: Namespace) -> int:
    """The versions that a pattern names."""
    return _list(client, arguments.address, arguments)


def history(client: Client, arguments: Namespace) -> int:
    """All versions at an address, newest first."""
    place, _, _ = arguments.address.partition("/*^/")
    if place == arguments.address:
        raise CtlError("give the address at *^, as in ucxl://agent:role@project:task/*^/path")
    return _list(client, arguments.address.replace("/*^/", "/*~/", 1), arguments)


def tree(client: Client, arguments: Namespace) -> int:
    """What a pattern names, by project, task and path."""
    items = list(_items(client, arguments.address, None, arguments.limit))
    if arguments.json:
        return print_json({"items": items, "next": None})
    shown: tuple[str, ...] = ()
    for names, item in sorted(((_names(item["address"]), item) for item in items), key=lambda pair: pair[0]):
        for depth, name in enumerate(names):
            if names[: depth + 1] != shown[: depth + 1]:
                last = depth == len(names) - 1
                say(f"{'  ' * depth}{name}" + (f"  ({_versions(item)})" if last else ""))
        shown = names
    return 0


def follow(client: Client, arguments: Namespace) -> int:
    """New versions as they come, until Ctrl-C."""
    since = arguments.since
    if since is None:
        # A place to go on from, also when the connection breaks before the first event.
        since = _data(client.get(f"{_BASE}/status"))["applied"]
    what = f"what is written at {arguments.address}"
    for event in events(client, f"{_BASE}/subscribe", what, str(since), {"address": arguments.address}):
        row = event.data
        if arguments.json:
            print_json({"event": event.event, **row})
        else:
            done = "deleted" if row["deleted"] else counted(row["size"], "byte")
            author = cell(row["agent_id"] or row["author"])
            say(f"{row['created_at']}  {row['address']}  {done}  {author}")
        sys.stdout.flush()
    return 0


def _list(client: Client, address: str, arguments: Namespace) -> int:
    items = list(_items(client, address, getattr(arguments, "text", None), arguments.limit))
    if arguments.json:
        return print_json({"items": items, "next": None})
    return print_table(items, _VERSIONS)


def _items(client: Client, address: str, text: str | None, limit: int) -> Iterator[dict[str, Any]]:
    """The items of all pages, up to `limit`."""
    cursor = None
    while limit > 0:
        answer = client.get(
            f"{_BASE}/query", address=address, text=text, limit=min(limit, _PAGE), cursor=cursor
        )
        page = _data(answer)
        yield from page["items"]
        limit -= len(page["items"])
        cursor = page["next"]
        if cursor is None:
            return


def _names(address: str) -> tuple[str, ...]:
    """The steps of a tree: project, task, who wrote in which role, the parts of the path."""
    who, _, rest = address.removeprefix("ucxl://").partition("@")
    place, _, rest = rest.partition("/")
    project, _, task = place.partition(":")
    path = rest.partition("/")[2]
    return (project, task, who, *path.split("/"))


def _versions(item: dict[str, Any]) -> str:
    return counted(item["latest"], "version")


def _media_type(arguments: Namespace) -> str:
    if arguments.type:
        return str(arguments.type)
    for name in (arguments.file, arguments.address):
        guessed, _ = mimetypes.guess_type(name or "", strict=False)
        if guessed:
            return guessed
    return "application/octet-stream"


def _data(answer: dict[str, Any]) -> Any:
    return answer["response"]["data"]


def _say_written(row: dict[str, Any], arguments: Namespace) -> int:
    if arguments.json:
        return print_json(row)
    say(row["address"])
    return 0
