"""Why a licence does not hold: each reason with its label for metrics, what it means and what to do. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Final


class Reason(StrEnum):
    """The labels. They stand in metrics, in `/health` and in the answers of the reference server."""

    # KACHING says no.
    UNKNOWN = "unknown"
    EXPIRED = "expired"
    NOT_YET_VALID = "not_yet_valid"
    SUSPENDED = "suspended"
    REVOKED = "revoked"
    WRONG_CLUSTER = "wrong_cluster"
    WRONG_PEER = "wrong_peer"
    SEATS_USED_UP = "seats_used_up"
    PERMISSION_MISSING = "permission_missing"
    BAD_SIGNATURE = "bad_signature"
    REPLAYED_NONCE = "replayed_nonce"
    UNKNOWN_LEASE = "unknown_lease"
    LEASE_IN_USE = "lease_in_use"
    REFUSED = "refused"
    # A token, or what came with it, is not as it should be.
    MALFORMED_TOKEN = "malformed_token"
    WRONG_ALGORITHM = "wrong_algorithm"
    UNKNOWN_KEY = "unknown_key"
    WRONG_AUDIENCE = "wrong_audience"
    WRONG_LICENCE = "wrong_licence"
    WRONG_SECRET = "wrong_secret"
    # There is no answer that counts.
    UNREACHABLE = "unreachable"
    SLOW = "slow"
    SERVER_ERROR = "server_error"
    GARBAGE = "garbage"
    # Of a setting, before anybody is asked.
    SETTING = "setting"


# What each means, and what to do about it.
_SAID: Final[Mapping[Reason, tuple[str, str]]] = {
    Reason.UNKNOWN: (
        "KACHING does not know the licence",
        "check CHORUS_LICENSE_ID, and that CHORUS_KACHING_URL is the server that issued it",
    ),
    Reason.EXPIRED: ("the licence has expired", "renew it with its issuer, and check this machine's clock"),
    Reason.NOT_YET_VALID: (
        "the licence is not valid yet",
        "wait for its first day, and check this machine's clock",
    ),
    Reason.SUSPENDED: ("the licence is suspended", "have its issuer resume it"),
    Reason.REVOKED: ("the licence was revoked", "get another one from its issuer"),
    Reason.WRONG_CLUSTER: (
        "the licence is of another cluster",
        "set CHORUS_CLUSTER_ID to the cluster of the licence, or leave it unset to take that one",
    ),
    Reason.WRONG_PEER: (
        "the token was made out to another agent",
        "do not copy data folders: give each agent its own, in which it gets a token of its own",
    ),
    Reason.SEATS_USED_UP: (
        "all seats of the licence are in use",
        "stop an agent, wait until the lease of one that is gone ends, or get a licence for more agents",
    ),
    Reason.PERMISSION_MISSING: (
        "the licence does not allow to run agents",
        "have its issuer add the permission agent:run",
    ),
    Reason.BAD_SIGNATURE: (
        "a signature does not fit",
        "check that CHORUS_KACHING_PUBLIC_KEY is the key of the server at CHORUS_KACHING_URL",
    ),
    Reason.REPLAYED_NONCE: (
        "an answer or a question was used a second time",
        "check what stands between this agent and KACHING: it must not keep or repeat answers",
    ),
    Reason.UNKNOWN_LEASE: ("KACHING does not know the lease", "start the agent again: it gets another one"),
    Reason.LEASE_IN_USE: (
        "the lease is another member's, which is present",
        "give each agent its own data folder, and a lease of its own from KACHING",
    ),
    Reason.REFUSED: ("KACHING refused the licence", "ask its operator why"),
    Reason.MALFORMED_TOKEN: (
        "the token does not have the form of one",
        "check that CHORUS_KACHING_URL is a KACHING server, and its version",
    ),
    Reason.WRONG_ALGORITHM: (
        "the token is not signed with EdDSA",
        "have KACHING sign with an Ed25519 key; nothing else is accepted",
    ),
    Reason.UNKNOWN_KEY: (
        "the token is signed with a key that is not pinned",
        "add the server's key to CHORUS_KACHING_PUBLIC_KEY (chorusctl dev kaching key show, or its operator)",
    ),
    Reason.WRONG_AUDIENCE: (
        "the token is not meant for agents of CHORUS",
        "have KACHING issue it with the audience chorus-agent",
    ),
    Reason.WRONG_LICENCE: (
        "the token is of another licence",
        "check CHORUS_LICENSE_ID and what stands between this agent and KACHING",
    ),
    Reason.WRONG_SECRET: (
        "the cluster secret is not the licence's",
        "give the secret of the licence's cluster in CHORUS_CLUSTER_SECRET, or leave it unset to get it from "
        "KACHING, and start the agent again",
    ),
    Reason.UNREACHABLE: (
        "KACHING is not reached",
        "check CHORUS_KACHING_URL, the server, and the network between",
    ),
    Reason.SLOW: ("KACHING does not answer in time", "check the server and the network between"),
    Reason.SERVER_ERROR: ("KACHING answers with an error of its own", "see its log"),
    Reason.GARBAGE: (
        "KACHING's answer cannot be read",
        "check that CHORUS_KACHING_URL is a KACHING server, and that nothing else answers in its place",
    ),
}

# In an answer that says no: the words by which a reason is told. The first that is found counts.
_WORDS: Final[tuple[tuple[Reason, str], ...]] = (
    (Reason.SUSPENDED, r"suspend"),
    (Reason.REVOKED, r"revok"),
    (Reason.NOT_YET_VALID, r"not[ _-]?yet"),
    (Reason.UNKNOWN_LEASE, r"(unknown|no such)[ _-]lease|lease[ _-](is )?(unknown|not[ _-]found)"),
    (Reason.EXPIRED, r"expire"),
    (Reason.SEATS_USED_UP, r"\bseat|seats[ _-]|max[ _-]agents|too many"),
    (Reason.WRONG_CLUSTER, r"cluster"),
    (Reason.PERMISSION_MISSING, r"permission"),
    (Reason.REPLAYED_NONCE, r"nonce|replay"),
    (Reason.BAD_SIGNATURE, r"signature"),
    (Reason.WRONG_PEER, r"peer"),
    (Reason.UNKNOWN, r"unknown|not[ _-]?found|no such"),
)


class LicenceRefused(Exception):
    """Why there is no licence, and what to do about it."""

    def __init__(self, why: str, reason: Reason = Reason.SETTING) -> None:
        super().__init__(why)
        self.reason = reason


class Denied(LicenceRefused):
    """KACHING's word, or a member's, that the licence does not hold."""


class NoAnswer(LicenceRefused):
    """Nobody who counts has said anything: the server is away, or what came is not its word."""


def said(reason: Reason, detail: str = "") -> str:
    """What a reason means, more of it, and what to do, as one line."""
    what, remedy = _SAID[reason]
    return f"{what}{f' ({detail})' if detail else ''}: {remedy}"


def denied(reason: Reason, detail: str = "") -> Denied:
    """KACHING's no, in words."""
    return Denied(said(reason, detail), reason)


def no_answer(reason: Reason, detail: str = "") -> NoAnswer:
    """An answer that does not count, in words."""
    return NoAnswer(said(reason, detail), reason)


def reason_in(body: Any) -> Reason | None:
    """The reason that the body of a no tells, if any: a `code` of ours, or the words in it."""
    code = body.get("code") if isinstance(body, dict) else None
    if isinstance(code, str) and code in set(Reason):
        return Reason(code)
    text = str(body).lower()
    return next((reason for reason, words in _WORDS if re.search(words, text)), None)
