"""What of a decision record, or of content at an address, goes into the index. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from chorus.curator.words import file_names

# What is found by its first words need not be kept to its last: the whole lies in the DHT.
TEXT_MAX_CHARS = 64 * 1024
CONTENT = "content"
# What was written at an address is gone from it; the document keeps older versions out.
TOMBSTONE = "tombstone"


@dataclass(frozen=True, slots=True)
class Document:
    """One text of the index. `id` is the index of the entry that lists it: the same at every agent."""

    id: int
    hash: str
    address: str
    version: int | None
    kind: str
    agent: str
    role: str
    project: str
    task: str
    author: str
    at_ms: int
    title: str
    outcome: str
    body: str
    files: tuple[str, ...] = ()
    supersedes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Place:
    """The parts of an address that a query can ask for."""

    agent: str
    role: str
    project: str
    task: str


def of_record(
    record: dict[str, Any],
    *,
    id: int,
    hash: str,
    place: Place,
    author: str,
    at_ms: int,
    version: int | None = None,
) -> Document:
    """The document of a verified record."""
    decided, goal = record["decided"], record.get("goal") or {}
    commands = [str(item["command"]) for item in (*record["commands"], *goal.get("checks", ()))]
    paths = [str(item["path"]) for item in record["artifacts"]]
    title, summary, reason = record["title"], record["summary"], decided["reason"]
    body = "\n".join([summary, reason, *commands, *paths])
    return Document(
        id=id,
        hash=hash,
        address=record["address"],
        version=version,
        kind=record["kind"],
        agent=place.agent,
        role=place.role,
        project=place.project,
        task=record["task_id"],
        author=author,
        at_ms=at_ms,
        title=title,
        outcome=decided["outcome"],
        body=body[:TEXT_MAX_CHARS],
        files=tuple(file_names([*paths, title, *commands, summary])),
        supersedes=tuple(record["links"]["supersedes"]),
    )


def of_content(
    content: bytes | None, *, id: int, hash: str, address: str, path: str, place: Place, author: str,
    at_ms: int, version: int,
) -> Document | None:  # fmt: skip
    """The document of text at an address, or of its absence (None); None when it is no text."""
    text = _text(content) if content is not None else ""
    if text is None:
        return None
    return Document(
        id=id,
        hash=hash,
        address=address,
        version=version,
        kind=CONTENT if content is not None else TOMBSTONE,
        agent=place.agent,
        role=place.role,
        project=place.project,
        task=place.task,
        author=author,
        at_ms=at_ms,
        title=path if content is not None else "",
        outcome="",
        body=text,
        files=tuple(file_names([path])) if content is not None else (),
    )


def _text(content: bytes) -> str | None:
    head = content[: 4 * TEXT_MAX_CHARS]
    try:
        # A character may be cut at the end; anything else that is not UTF-8 is no text.
        text = head.decode("utf-8", "strict" if len(head) == len(content) else "ignore")
    except UnicodeDecodeError:
        return None
    return None if "\0" in text else text[:TEXT_MAX_CHARS]
