"""The rules of the table: what an entry changes, as a pure function of the table and the entry.

No clock (time is the entry's stamp), no randomness, no I/O, so that every agent comes to the same table.
Decided here: which types count, who may say what, that an entry counts once, and that nothing an entry says
can raise. `tasks`, `members`, `ucxl`, `votes`, `imports` and `holders` hold each type's rules.
"""

from __future__ import annotations

import sqlite3
from typing import Any, Final

from pydantic import ValidationError

from chorus.table import holders, import_entries, imports, json_values, members, tasks, ucxl, votes
from chorus.table.effects import Beyond, Draft, Outcome, Refuse, TableView
from chorus.table.entries import (
    FACTS,
    LEADER_ONLY,
    MADE_TOO_LONG_AGO,
    NOT_A_MEMBER,
    NOT_FOUNDED,
    OF_A_LATER_VERSION,
    UNFIT,
    Entry,
    Fact,
)
from chorus.table.entry_types import SINCE
from chorus.table.records import Known, Member, Mesh, Version
from chorus.table.submitted import TIME_MAX_MS

# An entry id is remembered for so many indexes; an older entry is not applied, so that forgetting is safe.
SEEN_MAX_AGE: Final = 100_000

_FACTS: dict[str, type[Fact]] = {**FACTS, **votes.FACTS, **import_entries.FACTS, **holders.FACTS}
_LEADER_ONLY = LEADER_ONLY | votes.LEADER_ONLY
_RULES: dict[str, Any] = {
    **members.RULES, **tasks.RULES, **ucxl.RULES, **votes.RULES, **imports.RULES, **holders.RULES,
}  # fmt: skip

# Errors of the disk and of the machine: they say nothing about the entry, and stop applying.
_NOT_THE_ENTRYS: Final = (sqlite3.Error, OSError, MemoryError)


def apply(view: TableView, entry: Entry) -> Outcome:
    """What `entry` does to the table. Whatever it says there is an outcome, the same on every agent.

    Raises only what the view raises when the disk fails.
    """
    if entry.type in ("", "invalid"):
        return Outcome(False, entry.type and "not a valid entry")
    mesh = view.get(Mesh, "mesh")
    if entry.type not in _FACTS or SINCE.get(entry.type, 1) > (mesh.version if mesh is not None else 1):
        return Outcome(False, f"{OF_A_LATER_VERSION} has no entries of that type")
    if json_values.problem_of([entry.id, entry.author]) is not None:
        return Outcome(False, "not a valid entry")
    known = view.get(Known, entry.id)
    if known is not None and entry.index - known.idx <= SEEN_MAX_AGE:
        return Outcome(known.accepted, known.reason, repeated=True)
    if entry.index - entry.seen > SEEN_MAX_AGE:
        return Outcome(False, f"{MADE_TOO_LONG_AGO} {SEEN_MAX_AGE} entries ago")
    draft = Draft(view)
    try:
        touched = _apply(draft, mesh, entry)
    except Refuse as refusal:
        return _refused(entry, refusal)
    except Beyond as beyond:
        return Outcome(False, str(beyond), beyond=beyond.version)
    except _NOT_THE_ENTRYS:
        raise
    except Exception:
        # A mistake in a rule. It is the same mistake on every agent, and the next entry is applied.
        return _refused(entry, Refuse("the rule of this type cannot take it"))
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


def _apply(draft: Draft, mesh: Mesh | None, entry: Entry) -> tuple[str, ...]:
    if not 0 <= entry.stamp_ms <= TIME_MAX_MS:
        raise Refuse("the stamp is not a time of the years 1970 to 9998")
    fact = _read(entry)
    _may_say(draft, mesh, entry)
    touched: tuple[str, ...] = _RULES[entry.type](draft, entry, fact)
    return touched


def _refused(entry: Entry, refusal: Refuse) -> Outcome:
    known = Known(entry.id, entry.index, False, refusal.reason)
    return Outcome(False, refusal.reason, (known, *refusal.keep))


def _read(entry: Entry) -> Fact:
    if not isinstance(entry.body, dict):
        raise Refuse(f"{UNFIT}: it is not a JSON object that every agent reads alike")
    if (problem := json_values.problem_of(entry.body)) is not None:
        raise Refuse(f"{UNFIT}: {problem}")
    try:
        return _FACTS[entry.type].model_validate(entry.body)
    except ValidationError as error:
        place = _place(error)
    if entry.type in ("submit", "goal") and place[:1] == ["task"]:
        raise Refuse(f"invalid: {'.'.join(place)}: not a value of this field")
    raise Refuse(f"{UNFIT}: {place[0] if place else 'it'}: not a value of this field")


def _place(error: ValidationError) -> list[str]:
    """The field that does not fit, and in a task the field of it: names of the schema, never of the body."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    place = first["loc"][:-1] if first["type"] == "extra_forbidden" else first["loc"]
    return [str(part) for part in place[:2]]


def _may_say(draft: Draft, mesh: Mesh | None, entry: Entry) -> None:
    if entry.type == "found":
        if mesh is not None:
            raise Refuse("the mesh is founded")
        return
    if mesh is None:
        raise Refuse(NOT_FOUNDED)
    if draft.get(Member, entry.author) is None:
        raise Refuse(NOT_A_MEMBER)
    if entry.type in _LEADER_ONLY and entry.author != mesh.leader:
        raise Refuse("only the newest leader may say this")
