"""The errors of the hub, one class for each code of its ERR frame (docs/ipc.md)."""

from __future__ import annotations

from typing import ClassVar, Final

# What an error says; it may quote what it is about, which may be large.
MESSAGE_MAX_CHARS: Final = 4096


class HubError(Exception):
    """An answer of the hub, of a peer or of a sibling that says no; `code` is machine readable."""

    default_code: ClassVar[str] = "internal"

    def __init__(self, message: str = "", *, code: str | None = None) -> None:
        # What is said on the wire has to be Unicode, whoever's text is in it.
        message = message[:MESSAGE_MAX_CHARS].encode("utf-8", "replace").decode()
        super().__init__(message or code or self.default_code)
        self.code = code or self.default_code
        self.message = message or self.code


class HubInvalid(HubError):
    """An argument or a frame is malformed."""

    default_code = "invalid"


class HubNotFound(HubError):
    """Nothing is stored or known under that name."""

    default_code = "not_found"


class HubUnavailable(HubError):
    """The peer, the service or the hub cannot be reached now."""

    default_code = "unavailable"


class HubTimeout(HubError):
    """The deadline passed; the outcome is unknown."""

    default_code = "timeout"


class HubRefused(HubError):
    """The other side understood and said no."""

    default_code = "refused"


class HubTooLarge(HubError):
    """A size limit was exceeded."""

    default_code = "too_large"


class HubNoMesh(HubError):
    """This agent is in no mesh yet."""

    default_code = "no_mesh"


class HubNoLeader(HubError):
    """The mesh has no leader now."""

    default_code = "no_leader"


class HubNotLeader(HubError):
    """Only the leader can answer this, and it is not this agent."""

    default_code = "not_leader"


class HubClosed(HubError):
    """The connection or the core ended; a call that was in flight has an unknown outcome."""

    default_code = "closed"


class HubNotPermitted(HubError):
    """The keys at hand do not open this value, or the author may not write it."""

    default_code = "not_permitted"


class HubTampered(HubError):
    """A signature or a hash does not fit."""

    default_code = "tampered"


class HubQuorumFailed(HubError):
    """Too few replicas answered."""

    default_code = "quorum_failed"


class HubInternal(HubError):
    """A disk or system call failed, or a handler broke."""

    default_code = "internal"


ERRORS: dict[str, type[HubError]] = {
    kind.default_code: kind
    for kind in (
        HubInvalid,
        HubNotFound,
        HubUnavailable,
        HubTimeout,
        HubRefused,
        HubTooLarge,
        HubNoMesh,
        HubNoLeader,
        HubNotLeader,
        HubClosed,
        HubNotPermitted,
        HubTampered,
        HubQuorumFailed,
        HubInternal,
    )
}


# How the message of an `internal` error begins when a disk took no more: the caller may try again later.
DISK_PREFIX = "disk: "


def disk_error(message: str) -> HubInternal:
    """What a handler answers when its agent's disk is full or fails."""
    return HubInternal(DISK_PREFIX + message)


def error_from(code: str, message: str) -> HubError:
    """The exception for a code and message off the wire; an unknown code keeps its name."""
    kind = ERRORS.get(code)
    return kind(message) if kind else HubError(message, code=code)
