"""The rules for the mesh itself: founding, leaders, members, votes, presence, decisions. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pydantic import ValidationError

from chorus.table.effects import Draft, Refuse
from chorus.table.entries import Entry, Found, Join, Leader, MemberProfile, Presence, Profile, Voter
from chorus.table.records import Member, Mesh, changed

FOUNDER_RAFT_ID = 1
Touched = tuple[str, ...]


def found(draft: Draft, entry: Entry, fact: Found) -> Touched:
    """The founder is the first member and votes."""
    draft.put(Mesh(mesh=fact.mesh, settings=fact.settings, founded_at=entry.stamp_ms))
    member = Member(entry.author, FOUNDER_RAFT_ID, voter=True, joined_at=entry.stamp_ms)
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

    One that joins again keeps its profile, not its raft id.
    """
    known = draft.get(Member, fact.peer)
    if known is None:
        known = Member(fact.peer, agent_id=fact.agent_id)
    draft.put(changed(known, raft_id=entry.index, voter=False, present=True, joined_at=entry.stamp_ms))
    return ()


def voter(draft: Draft, entry: Entry, fact: Voter) -> Touched:
    """A vote given or taken."""
    draft.put(changed(_member(draft, fact.peer), voter=fact.voter))
    return ()


def profile(draft: Draft, entry: Entry, fact: MemberProfile) -> Touched:
    """A member speaks about itself."""
    draft.put(_with_profile(_member(draft, entry.author), fact))
    return ()


def presence(draft: Draft, entry: Entry, fact: Presence) -> Touched:
    """The leader lost or found a member."""
    member = _member(draft, fact.peer)
    if member.present == fact.present:
        raise Refuse("that is known")
    draft.put(changed(member, present=fact.present))
    return ()


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
    "member": profile,
    "presence": presence,
}
