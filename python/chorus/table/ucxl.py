"""The rules for versions at UCXL addresses (`ucxl://agent:role@project:task/*^/path`). Pure.

A version's number is its rank among the entries about its address, so every agent has the same numbers. What
an address may look like is checked here by its form alone: the parser, `chorus.core.Ucxl`, is the core's.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, NamedTuple

from chorus.table import entries as facts
from chorus.table.effects import Draft, Refuse
from chorus.table.entries import Entry
from chorus.table.records import Address, Counter, Member, Version, changed

Touched = tuple[str, ...]

# How refusals begin, for whoever proposed: the rest of the reason is for people.
EXISTS = "exists"
MISSING = "missing"
CONFLICT = "conflict"
BAD_ADDRESS = "address"

# Counted as they come, because a count over all of them would grow with the table.
ADDRESSES = "ucxl:addresses"
VERSIONS = "ucxl:versions"

# An address that something can be written at: none of its components is `any`, its temporal is `*^`, no
# segment of its path is empty or leads upwards.
_PART = r"(?!any[:@/])([A-Za-z0-9_-]{1,128})"
_SEGMENT = r"(?!\.\.?(?:/|\Z))[A-Za-z0-9_.-]+"
_WRITABLE = re.compile(rf"ucxl://{_PART}:{_PART}@{_PART}:{_PART}/\*\^/((?:{_SEGMENT}(?:/{_SEGMENT})*/?)?)")
_PATH_MAX_CHARS = 1024


class Place(NamedTuple):
    """An address taken apart."""

    agent: str
    role: str
    project: str
    task: str
    path: str


def place_of(address: str) -> Place | None:
    """The parts of an address that can be written at; None when it cannot."""
    found = _WRITABLE.fullmatch(address)
    if found is None or len(found[5]) > _PATH_MAX_CHARS:
        return None
    return Place(*found.groups())


def version(draft: Draft, entry: Entry, fact: facts.VersionWritten) -> Touched:
    """One more version, or a tombstone; refused when the writer expected another state of the address."""
    if place_of(fact.address) is None:
        raise Refuse(f"{BAD_ADDRESS}: nothing can be written at {fact.address[:200]}")
    known = draft.get(Address, fact.address)
    latest = known.latest if known is not None else 0
    live = known is not None and not known.deleted
    if fact.create and live:
        raise Refuse(f"{EXISTS}: version {latest} is there")
    if fact.expect is not None and fact.expect != latest:
        raise Refuse(f"{CONFLICT}: the latest is version {latest}, not {fact.expect}")
    if (fact.live or fact.tombstone) and not live:
        why = f"deleted by version {latest}" if latest else "nothing was written there"
        raise Refuse(f"{MISSING}: {why}")
    if not fact.tombstone and not fact.hash:
        raise Refuse("the body does not fit: hash: missing")
    add(draft, entry, fact)
    return ()


def add(draft: Draft, entry: Entry, fact: facts.VersionWritten) -> None:
    """Writes the next version of an address that `place_of` knows."""
    author = draft.get(Member, entry.author)
    append(
        draft,
        Version(
            address=fact.address,
            version=0,
            hash=fact.hash,
            stored=fact.stored,
            kind=fact.kind,
            size=fact.size,
            content_type=fact.content_type,
            author=entry.author,
            agent_id=author.agent_id if author is not None else "",
            role=author.role if author is not None else "",
            deleted=fact.tombstone,
            idx=entry.index,
            at_ms=entry.stamp_ms,
        ),
    )


def append(draft: Draft, version: Version) -> None:
    """Puts the version, under the next number, at its address, which `place_of` knows. A tombstone keeps
    nothing of what the entry says of content.
    """
    place = place_of(version.address)
    assert place is not None
    known = draft.get(Address, version.address)
    if known is None:
        known = Address(version.address, *place, idx=version.idx)
        _count(draft, ADDRESSES)
    number = known.latest + 1
    if version.deleted:
        version = changed(version, version=number, hash="", stored="", size=0, content_type="")
    else:
        version = changed(version, version=number, stored=version.stored or version.hash)
    draft.put(changed(known, latest=number, deleted=version.deleted))
    draft.put(version)
    _count(draft, VERSIONS)


def add_decision(draft: Draft, entry: Entry, fact: facts.DecisionPublished) -> None:
    """A decision record is a version at its address; one whose address is none has only its hash."""
    if place_of(fact.address) is not None:
        record = facts.VersionWritten(
            address=fact.address,
            hash=fact.hash,
            kind="decision",
            size=fact.size,
            content_type="application/json",
        )
        add(draft, entry, record)


def _count(draft: Draft, name: str) -> None:
    counter = draft.get(Counter, name)
    draft.put(Counter(name, (counter.value if counter is not None else 0) + 1))


RULES: dict[str, Callable[[Draft, Entry, Any], Touched]] = {"version": version}
