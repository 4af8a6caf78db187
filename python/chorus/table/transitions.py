"""The rules of the table: what an entry changes, as a pure function of the table and the entry.

No clock (time is the entry's stamp), no randomness, no I/O, so that every agent comes to the same table.
Decided here: who may say what, and that an entry counts once; `tasks`, `members`, `ucxl` and `votes` hold
each type's rules.
"""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

from chorus.table import members, tasks, ucxl, votes
from chorus.table.effects import Draft, Outcome, Refuse, TableView, UnknownEntryType
from chorus.table.entries import FACTS, LEADER_ONLY, Entry, Fact
from chorus.table.records import Known, Member, Mesh, Version

# An entry id is remembered for so many indexes; an older entry is not applied, so that forgetting is safe.
SEEN_MAX_AGE = 100_000

_FACTS: dict[str, type[Fact]] = {**FACTS, **votes.FACTS}
_LEADER_ONLY = LEADER_ONLY | votes.LEADER_ONLY
_RULES: dict[str, Any] = {**members.RULES, **tasks.RULES, **ucxl.RULES, **votes.RULES}


def apply(view: TableView, entry: Entry) -> Outcome:
    """What `entry` does to the table. Raises UnknownEntryType; everything else has an outcome."""
    if entry.type in ("", "invalid"):
        return Outcome(False, entry.type and "not a valid entry")
    if entry.type not in _FACTS:
        raise UnknownEntryType(entry.type, entry.index)
    known = view.get(Known, entry.id)
    if known is not None and entry.index - known.idx <= SEEN_MAX_AGE:
        return Outcome(known.accepted, known.reason, repeated=True)
    if entry.index - entry.seen > SEEN_MAX_AGE:
        return Outcome(False, f"made more than {SEEN_MAX_AGE} entries ago")
    draft = Draft(view)
    try:
        fact = _read(entry)
        _may_say(draft, entry)
        touched: tuple[str, ...] = _RULES[entry.type](draft, entry, fact)
    except Refuse as refusal:
        known = Known(entry.id, entry.index, False, refusal.reason)
        return Outcome(False, refusal.reason, (known, *refusal.keep))
    draft.put(Known(entry.id, entry.index, True, ""))
    return Outcome(
        True,
        "",
        draft.effects(),
        touched,
        members=entry.type in members.RULES,
        leader=entry.type in ("leader", "found"),
        versions=any(kind is Version for kind, _ in draft.written),
    )


def _read(entry: Entry) -> Fact:
    try:
        return _FACTS[entry.type].model_validate(entry.body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise Refuse(f"the body does not fit: {place}: {first['type']}") from None


def _may_say(draft: Draft, entry: Entry) -> None:
    mesh = draft.get(Mesh, "mesh")
    if entry.type == "found":
        if mesh is not None:
            raise Refuse("the mesh is founded")
        return
    if mesh is None:
        raise Refuse("the mesh is not founded")
    if draft.get(Member, entry.author) is None:
        raise Refuse("the author is not a member")
    if entry.type in _LEADER_ONLY and entry.author != mesh.leader:
        raise Refuse("only the newest leader may say this")
