"""Decisions for people: listed, shown, checked, drawn, voted on. A file is checked without any agent."""

from __future__ import annotations

import re
from argparse import Namespace
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any, Final

from chorus.config.units import parse_duration
from chorus.ctl.client import Client, Refused
from chorus.ctl.problems import FAILED, CtlError
from chorus.ctl.show import DECISIONS, print_json, print_list, print_pairs
from chorus.ctl.terminal import note, say, say_json, say_lines, write_bytes
from chorus.decisions import DecisionError, VerifiedRecord, verify
from chorus.wire.counts import counted
from chorus.wire.visible import visible

_HASH: Final = re.compile(r"[0-9a-f]{64}")
_PREFIX: Final = re.compile(r"[0-9a-f]{8,63}")
_TASK_IN_ADDRESS: Final = re.compile(r"ucxl://[^/]*:([0-9A-Z]{26})/")
_PAGE: Final = 500
# Records asked for at the same time when all are checked.
_AT_ONCE: Final = 8

Connect = Callable[[], Client]


@dataclass(frozen=True, slots=True)
class Row:
    """What an agent says the mesh lists."""

    hash: str
    address: str
    kind: str
    task_id: str | None
    attempt: int | None
    author: str

    @classmethod
    def of(cls, item: dict[str, Any]) -> Row:
        """Of an item of the API's list."""
        if _HASH.fullmatch(str(item["hash"])) is None:
            raise CtlError(
                f"the agent lists a decision whose hash is none: {visible(str(item['hash']))}", FAILED
            )
        names = ("hash", "address", "kind", "task_id", "attempt", "author")
        return cls(**{name: item[name] for name in names})


def decisions(client: Client, arguments: Namespace) -> int:
    """The newest decision records, or what links them."""
    page = client.get(
        "/api/v1/decisions",
        limit=arguments.limit,
        task_id=arguments.task,
        agent=arguments.agent,
        project=arguments.project,
        kind=arguments.kind,
        since=_moment(arguments.since),
        text=arguments.text,
    )
    if arguments.graph is None:
        return print_list(page, DECISIONS, arguments)
    graph = _graph(client, [Row.of(item) for item in page["items"]])
    if arguments.graph == "json":
        return print_json(graph)
    say_lines(_dot(graph))
    return 0


def decision(arguments: Namespace, connect: Connect) -> int:
    """Shows one record, or checks one or all."""
    if arguments.verb == "verify" and arguments.all:
        return _verify_all(arguments, connect)
    if arguments.record is None:
        raise CtlError(
            "name a file, or the hash or address of a record" + " (or --all)" * (arguments.verb == "verify")
        )
    found, content = _verified(arguments.record, arguments.key, connect)
    if arguments.verb == "show" and arguments.raw:
        write_bytes(content)
        return 0
    if arguments.verb == "show":
        return _show(found, arguments)
    if arguments.json:
        said = {"genuine": True, "hash": found.hash, "author": found.author, "record": found.record}
        return print_json(said)
    say(f"genuine: signed by {found.author}")
    return print_pairs(
        [
            ("hash", found.hash),
            ("address", found.record["address"]),
            ("decided", f"{found.record['decided']['outcome']}: {found.record['summary']}"),
        ]
    )


def vote(client: Client, arguments: Namespace) -> int:
    """Votes on a decision, or shows the votes on it."""
    name = _named(client, arguments.record)
    path = f"/api/v1/decisions/{name}/votes"
    if arguments.choice is None:
        ballot = client.get(path)
    else:
        body = {"vote": arguments.choice, "reason": arguments.reason, "by": arguments.by}
        body |= {} if arguments.quorum is None else {"quorum": arguments.quorum}
        body |= {} if arguments.open is None else {"open_s": _seconds(arguments.open)}
        ballot = client.post(path, body)
    if arguments.json:
        return print_json(ballot)
    cast = f"{ballot['approve']} approve, {ballot['reject']} reject, {ballot['abstain']} abstain"
    rows = [
        ("state", f"{ballot['state']}, round {ballot['round']}"),
        ("votes", f"{cast}; quorum {ballot['quorum']} of {counted(ballot['voters'], 'member')}"),
        ("until", ballot["ended_at"] or ballot["closes_at"]),
    ]
    for item in ballot["votes"]:
        by = f" ({item['by']})" if item["by"] else ""
        rows.append((item["choice"], f"{item['agent_id'] or item['voter']}{by}: {item['reason'] or '-'}"))
    return print_pairs(rows)


def _verified(what: str, key: str | None, connect: Connect) -> tuple[VerifiedRecord, bytes]:
    path = Path(what)
    try:
        if not what.startswith("ucxl://") and path.is_file():
            # Saved by an editor or a shell, it may have a line's end.
            content = path.read_bytes().rstrip(b"\r\n")
            return verify(content, author=key), content
        with connect() as client:
            name = _named(client, what)
            content = client.get_bytes(f"/api/v1/decisions/{name}").content
            row = _listed(client, name, verify(content, expected_hash=name).record["task_id"])
        return verify(content, expected_hash=name, author=key, listed=row), content
    except OSError as error:
        raise CtlError(f"{what} cannot be read: {error}") from None
    except DecisionError as error:
        raise CtlError(f"not genuine: {error.name}: {visible(str(error))}") from None


def _verify_all(arguments: Namespace, connect: Connect) -> int:
    counts = {"genuine": 0, "unreadable": 0, "not genuine": 0}
    with connect() as client, ThreadPoolExecutor(_AT_ONCE) as pool:
        rows = (row for row in _rows(client) if arguments.key in (None, row.author))
        while some := list(islice(rows, _PAGE)):
            for row, state, why in pool.map(lambda row: _checked(client, row), some):
                counts[state] += 1
                if state != "genuine":
                    note(f"{row.hash}  {state}: {why}")
    if arguments.json:
        say_json({name.replace(" ", "_"): count for name, count in counts.items()})
    else:
        say(", ".join(f"{count} {name}" for name, count in counts.items()))
    return FAILED if counts["not genuine"] else 0


def _checked(client: Client, row: Row) -> tuple[Row, str, str]:
    try:
        content = client.get_bytes(f"/api/v1/decisions/{row.hash}").content
    except Refused as error:
        return row, "unreadable", str(error)
    try:
        verify(content, listed=row)
    except DecisionError as error:
        return row, "not genuine", f"{error.name}: {error}"
    return row, "genuine", ""


def _show(found: VerifiedRecord, arguments: Namespace) -> int:
    record = found.record
    if arguments.json:
        return print_json(record)
    decided = record["decided"]
    rows = [
        ("title", record["title"]),
        ("kind", record["kind"]),
        ("outcome", decided["outcome"] + (f": {decided['reason']}" if decided["reason"] else "")),
        ("summary", record["summary"]),
        ("agent", f"{record['agent']['agent_id']} ({found.author})"),
        ("task", f"{record['task_id']}, attempt {record['attempt']}"),
        ("address", record["address"]),
        ("hash", found.hash),
        ("created", record["created_at"]),
    ]
    rows += [(name, str(value)) for name, value in record["inputs"].items() if value]
    rows += [
        ("command", f"{item['exit_code']} in {item['duration_s']:g} s: {item['command']}")
        for item in record["commands"]
    ]
    rows += _goal_rows(record.get("goal"))
    rows += [("artifact", f"{item['sha256']}  {item['path']}") for item in record["artifacts"]]
    rows += [("usage", f"{name}: {value:g}") for name, value in record["usage"].items()]
    rows += [(link, address) for link, addresses in record["links"].items() for address in addresses]
    return print_pairs(rows)


def _goal_rows(goal: dict[str, Any] | None) -> list[tuple[str, str]]:
    if goal is None:
        return []
    tokens = f"{counted(goal['tokens_in'], 'token')} read, {goal['tokens_out']} written"
    money = f", {goal['usd']:g} USD" if goal["usd"] is not None else ""
    done = f"{counted(goal['steps'], 'step')}, {counted(goal['calls'], 'call')}"
    rows = [("goal", f"{goal['provider']}: {done}, {tokens}{money}")]
    rows += [
        ("check", f"{item['exit_code']} in {item['duration_s']:g} s: {item['command']}")
        for item in goal["checks"]
    ]
    if goal["unchecked"]:
        rows.append(("check", "none: the outcome is the model's word"))
    if (patch := goal["patch"]) is not None:
        size = f"{counted(patch['files'], 'file')}, {counted(patch['size'], 'byte')}"
        rows.append(("patch", f"{patch['sha256']}  {size}"))
        rows += [("not in the patch", f"{item['path']}: {item['reason']}") for item in patch["left_out"]]
    rows += [(name, goal[name]) for name in ("transcript_sha256", "discussion") if goal[name]]
    return rows


def _graph(client: Client, rows: list[Row]) -> dict[str, Any]:
    nodes, edges = [], []
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        for row, record in zip(rows, pool.map(lambda row: _record(client, row), rows), strict=True):
            node = {"hash": row.hash, "address": row.address, "kind": row.kind}
            if record is not None:
                node |= {"title": record["title"], "outcome": record["decided"]["outcome"]}
                edges += [
                    {"from": row.address, "to": address, "link": link}
                    for link, addresses in record["links"].items()
                    for address in addresses
                ]
            nodes.append(node)
    return {"nodes": nodes, "edges": edges}


def _record(client: Client, row: Row) -> dict[str, Any] | None:
    try:
        return verify(client.get_bytes(f"/api/v1/decisions/{row.hash}").content, listed=row).record
    except (Refused, DecisionError) as error:
        note(f"{row.hash}: left out of the links: {error}")
        return None


def _dot(graph: dict[str, Any]) -> str:
    lines = ["digraph decisions {", "  rankdir=LR; node [shape=box];"]
    for node in graph["nodes"]:
        label = "\n".join(
            part for part in (node.get("title", ""), node.get("outcome", ""), node["kind"]) if part
        )
        lines.append(f"  {_quoted(node['address'])} [label={_quoted(label)}];")
    for edge in graph["edges"]:
        lines.append(f"  {_quoted(edge['from'])} -> {_quoted(edge['to'])} [label={_quoted(edge['link'])}];")
    return "\n".join([*lines, "}"])


def _quoted(text: str) -> str:
    # A title may hold anything: it stays text between quotes.
    shown = visible(text, lines=True)
    return '"' + shown.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


def _named(client: Client, what: str) -> str:
    """The hash that a hash, the beginning of one, or an address means."""
    if _HASH.fullmatch(what):
        return what
    if _PREFIX.fullmatch(what):
        items = client.get("/api/v1/decisions", limit=_PAGE)["items"]
        names = [str(item["hash"]) for item in items if item["hash"].startswith(what)]
        if len(names) == 1:
            return names[0]
        raise CtlError(f"{len(names)} of the newest decisions begin with {what}; give the whole hash")
    task = _TASK_IN_ADDRESS.match(what)
    for row in _rows(client, task_id=task[1] if task else None):
        if row.address == what:
            return row.hash
    raise CtlError(f"{what} is neither a file nor the hash or address of a decision of this mesh")


def _listed(client: Client, name: str, task_id: str) -> Row:
    for row in _rows(client, task_id=task_id):
        if row.hash == name:
            return row
    raise CtlError(f"not genuine: replayed: the mesh does not list {name} for task {task_id}")


def _rows(client: Client, **filters: Any) -> Iterator[Row]:
    cursor = None
    while True:
        page = client.get("/api/v1/decisions", limit=_PAGE, cursor=cursor, **filters)
        yield from (Row.of(item) for item in page["items"])
        cursor = page["next"]
        if cursor is None:
            return


def _moment(text: str | None) -> str | None:
    """A time as the API takes it, of one (RFC 3339) or of how long ago it was (`2h`)."""
    if text is None:
        return None
    try:
        return (datetime.now(UTC) - timedelta(seconds=parse_duration(text))).isoformat()
    except (ValueError, OverflowError):
        pass
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise CtlError(f"--since {text}: give a time (2026-11-25T08:00Z) or how long ago (2h, 7d)") from None
    return (moment if moment.tzinfo is not None else moment.astimezone()).isoformat()


def _seconds(text: str) -> float:
    try:
        return parse_duration(text)
    except ValueError as error:
        raise CtlError(f"--open {text}: {error}") from None
