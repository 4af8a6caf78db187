"""What an agent's data folder says of its place in a mesh, before anything of it runs.

The vote file (Raft's votes and log) counts: an agent without it, or with an older copy, may have voted
already and would vote again. Its identity must then be replaced by a new one. Who does that is the agent's
parent.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import orjson

from chorus.config import Paths
from chorus.table.reader import TableReader


class DamagedVoteFile(Exception):
    """The vote file holds something else than it should."""


class UnreadableVoteFile(Exception):
    """The vote file cannot be read now, or is in use: nothing is known of what it holds."""


@dataclass(frozen=True, slots=True)
class VoteFile:
    """What a vote file says. `owner` is a peer id ("" when the file does not tell), `last` the log's last
    index.

    `lost` says why its owner's votes count no longer, "" while they do; `removed` why the mesh lists it no
    longer, "" while it does.
    """

    mesh: str
    owner: str
    last: int
    lost: str
    removed: str = ""


def read_vote_file(path: Path) -> VoteFile | None:
    """The vote file of an agent that does not run; None when it was never in a mesh or the file is missing.

    Raises DamagedVoteFile and UnreadableVoteFile.
    """
    from chorus import core  # costly, and what runs without it has no vote file

    try:
        said = core.read_vote_file(path)
    except core.CoreError as error:
        damaged = getattr(error, "code", "") == "tampered"
        raise (DamagedVoteFile if damaged else UnreadableVoteFile)(str(error)) from None
    if said is None:
        return None
    head = orjson.loads(said)
    return VoteFile(
        head["mesh"], head["owner"] or "", head["last"], head["lost"] or "", head["removed"] or ""
    )


def why_lost(paths: Paths, peer_of_key: Callable[[Path], str]) -> str:
    """Why the identity in this data folder must be replaced; "" when it need not be.

    `peer_of_key` gives the peer id of an identity key that exists. Raises UnreadableVoteFile.
    """
    return _judged(paths, peer_of_key)[0]


def goes_on(paths: Paths, peer_of_key: Callable[[Path], str]) -> bool:
    """Whether an agent on this data folder is in a mesh and goes on in it. Raises UnreadableVoteFile."""
    if not paths.vote_file.exists() or paths.identity_lost.exists() or paths.departure.exists():
        return False
    lost, vote = _judged(paths, peer_of_key)
    return vote is not None and not lost and not vote.removed


def _judged(paths: Paths, peer_of_key: Callable[[Path], str]) -> tuple[str, VoteFile | None]:
    """Why the identity must be replaced, and the vote file, which is opened once."""
    mesh, applied = _of_table(paths.table_db)
    if not paths.vote_file.exists() and mesh is None:
        return "", None
    try:
        vote = read_vote_file(paths.vote_file)
    except DamagedVoteFile as damaged:
        return f"the vote file {paths.vote_file} is damaged ({damaged})", None
    return _why_lost(paths, peer_of_key, vote, mesh, applied), vote


def _why_lost(
    paths: Paths, peer_of_key: Callable[[Path], str], vote: VoteFile | None, mesh: str | None, applied: int
) -> str:
    """What does not fit together of the vote file, the key and the table; "" when all does."""
    if vote is None:
        return (
            f"the vote file {paths.vote_file} is missing, and this agent was in mesh {mesh}" if mesh else ""
        )
    if vote.lost:
        return vote.lost
    if vote.removed:
        return ""  # it votes nowhere, and joins anew under the same identity
    if vote.owner and (not paths.identity_key.exists() or peer_of_key(paths.identity_key) != vote.owner):
        return f"{paths.identity_key} is not the key of {vote.owner}, whose vote file is here"
    if mesh not in (None, vote.mesh):
        return f"the vote file {paths.vote_file} is of mesh {vote.mesh}, and the table of mesh {mesh}"
    if mesh is not None and applied > vote.last:
        return (
            f"the vote file {paths.vote_file} is an older copy: its log ends at entry {vote.last}, "
            f"and {applied} were applied"
        )
    return ""


def _of_table(path: Path) -> tuple[str | None, int]:
    """The table's mesh and applied index; a table that cannot be read says nothing, and is made anew."""
    if not path.exists():
        return None, 0
    try:
        reader = TableReader(path)
        try:
            mesh = reader.mesh()
            return (mesh.mesh if mesh is not None else None), reader.applied()
        finally:
            reader.close()
    except (sqlite3.Error, ValueError):
        return None, 0
