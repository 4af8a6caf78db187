"""The rules for the mesh itself: founding, leaders, members, votes, presence, decisions. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from pydantic import ValidationError

from chorus.table.effects import Beyond, Draft, Refuse
from chorus.table.entries import (
    Entry,
    Found,
    Join,
    Leader,
    MemberProfile,
    Models,
    Presence,
    Profile,
    Removal,
    TableVersion,
    Voter,
)
from chorus.table.records import Counter, FormerMember, Member, Mesh, changed

FOUNDER_RAFT_ID = 1
# The newest version of the table that this release knows. Types that came with a later one than the first are
# listed with theirs in `chorus.table.entry_types`.
TABLE_VERSION = 3
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
Touched = tuple[str, ...]


def found(draft: Draft, entry: Entry, fact: Found) -> Touched:
    """The founder is the first member and votes."""
    mesh = Mesh(mesh=fact.mesh, settings=fact.settings, founded_at=entry.stamp_ms, recovers=fact.recovers)
    draft.put(mesh)
    member = Member(entry.author, FOUNDER_RAFT_ID, voter=True, joined_at=entry.stamp_ms)
    _count(draft, member.table_version, 1)
    try:
        profile = Profile.model_validate(fact.agent)
    except ValidationError:
        # The founder says its profile again as a member: a bad one must not leave the mesh memberless.
        draft.put(member)
    else:
        draft.put(_with_profile(member, profile))
    return ()


def leader(draft: Draft, entry: Entry, fact: Leader) -> Touched:
    """The author leads from here on, if no later term has been seen."""
    mesh = _mesh(draft)
    if fact.term <= mesh.term:
        raise Refuse(f"term {fact.term} is not newer than {mesh.term}")
    draft.put(changed(mesh, leader=entry.author, term=fact.term))
    return ()


def join(draft: Draft, entry: Entry, fact: Join) -> Touched:
    """A new member, known by the index of this entry.

    One that joins again keeps its profile, not its raft id; one that was removed begins anew.
    """
    draft.drop(FormerMember, fact.peer)
    known = draft.get(Member, fact.peer)
    if known is None:
        _count(draft, 1, 1)
        # Consensus counts the member from here on, so that a bad name must not keep it out of the table.
        known = Member(fact.peer, agent_id="" if _CONTROL.search(fact.agent_id) else fact.agent_id)
    draft.put(changed(known, raft_id=entry.index, voter=False, present=True, joined_at=entry.stamp_ms))
    return ()


def voter(draft: Draft, entry: Entry, fact: Voter) -> Touched:
    """A vote given or taken."""
    draft.put(changed(_member(draft, fact.peer), voter=fact.voter))
    return ()


def removal(draft: Draft, entry: Entry, fact: Removal) -> Touched:
    """A member is no longer one; its name stays for the history.

    Consensus has let it go with this entry, so that there is nothing to refuse but another membership's.
    """
    member = _member(draft, fact.peer)
    if member.raft_id != fact.raft_id:
        raise Refuse(f"the member has joined since, under raft id {member.raft_id}")
    _count(draft, member.table_version, -1)
    draft.drop(Member, fact.peer)
    draft.put(
        FormerMember(
            peer=member.peer,
            agent_id=member.agent_id,
            role=member.role,
            raft_id=member.raft_id,
            joined_at=member.joined_at,
            removed_at=entry.stamp_ms,
            reason=fact.reason,
        )
    )
    return ()


def profile(draft: Draft, entry: Entry, fact: MemberProfile) -> Touched:
    """A member speaks about itself."""
    member = _with_profile(_member(draft, entry.author), fact)
    _count(draft, member.table_version, -1)
    _count(draft, fact.table_version, 1)
    draft.put(changed(member, table_version=fact.table_version))
    return ()


def models(draft: Draft, entry: Entry, fact: Models) -> Touched:
    """A member names the models that it reaches goals with, or says why it has none."""
    named = tuple(model.model_dump(mode="json") for model in fact.models)
    draft.put(changed(_member(draft, entry.author), models=named, model_reason=fact.reason))
    return ()


def presence(draft: Draft, entry: Entry, fact: Presence) -> Touched:
    """The leader lost or found a member."""
    member = _member(draft, fact.peer)
    if member.present == fact.present:
        raise Refuse("that is known")
    draft.put(changed(member, present=fact.present))
    return ()


def table_version(draft: Draft, entry: Entry, fact: TableVersion) -> Touched:
    """Raises the table's version by one, when every member has said that it knows the next."""
    mesh = _mesh(draft)
    if fact.version != mesh.version + 1:
        raise Refuse(f"the next version of the table is {mesh.version + 1}")
    if any(draft.get(Counter, _knowing(version)) is not None for version in range(1, fact.version)):
        raise Refuse(f"not every member knows version {fact.version} of the table")
    if fact.version > TABLE_VERSION:
        # Only an agent that joins later can come here, or one that lost a release.
        raise Beyond(fact.version)
    draft.put(changed(mesh, version=fact.version))
    return ()


def _knowing(version: int) -> str:
    """The name of the counter of members that know no later version of the table."""
    return f"members:{version}"


def _count(draft: Draft, version: int, change: int) -> None:
    counter = draft.get(Counter, _knowing(version))
    value = (counter.value if counter is not None else 0) + change
    if value:
        draft.put(Counter(_knowing(version), value))
    else:
        draft.drop(Counter, _knowing(version))


def _with_profile(member: Member, said: Profile) -> Member:
    return changed(
        member,
        agent_id=said.agent_id,
        role=said.role,
        expertise=said.expertise,
        specialization=said.specialization,
        max_tasks=said.max_tasks,
        languages=said.languages,
        images=said.images,
        accepting=said.accepting,
        reason=said.reason,
        version=said.version,
    )


def _mesh(draft: Draft) -> Mesh:
    mesh = draft.get(Mesh, "mesh")
    if mesh is None:
        raise Refuse("the mesh is not founded")
    return mesh


def _member(draft: Draft, peer: str) -> Member:
    member = draft.get(Member, peer)
    if member is None:
        raise Refuse("no such member")
    return member


RULES: dict[str, Callable[[Draft, Entry, Any], Touched]] = {
    "found": found,
    "leader": leader,
    "join": join,
    "voter": voter,
    "removal": removal,
    "member": profile,
    "models": models,
    "presence": presence,
    "table_version": table_version,
}
