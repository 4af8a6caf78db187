"""The licence gate, before anything touches the network: whether an id may run an agent, or why not.

KACHING, the licence server, comes in a later version; until then the gate fails closed for all it cannot
know.
"""

from __future__ import annotations

from dataclasses import dataclass

from chorus.license.shown import DEV_PREFIX, Kind, shown

# Enough to try a mesh out; more agents are what a licence is for.
DEV_AGENTS_MAX = 16


@dataclass(frozen=True, slots=True)
class Licence:
    """What was granted."""

    kind: Kind
    agents_max: int
    notice: str


class LicenceRefused(Exception):
    """Why there is no licence, and what to do about it."""


class Gate:
    """Asks `check`, and counts what was asked and refused."""

    def __init__(self) -> None:
        self.checks = 0
        self.failures = 0

    def check(self, license_id: str, kaching_url: str) -> Licence:
        """The licence for this id, or `LicenceRefused`."""
        self.checks += 1
        try:
            return check(license_id, kaching_url)
        except LicenceRefused:
            self.failures += 1
            raise


def check(license_id: str, kaching_url: str) -> Licence:
    """The licence for this id, or `LicenceRefused`."""
    if not license_id:
        raise LicenceRefused(
            "CHORUS_LICENSE_ID is not set; set it to your licence id, or to develop to an id of your own "
            "that begins with dev-, such as dev-123"
        )
    if kaching_url:
        raise LicenceRefused(
            "KACHING is not supported yet in this version; unset CHORUS_KACHING_URL and use a development "
            "licence (CHORUS_LICENSE_ID=dev-…)"
        )
    if not license_id.startswith(DEV_PREFIX):
        raise LicenceRefused(
            f"the licence ({shown(license_id)}) cannot be validated: CHORUS_KACHING_URL is not set, and "
            "without a licence server only development licences (ids that begin with dev-) are known"
        )
    if license_id == DEV_PREFIX:
        raise LicenceRefused(
            "CHORUS_LICENSE_ID is only 'dev-'; put a name of your own after it, such as dev-123"
        )
    return Licence(
        kind="development",
        agents_max=DEV_AGENTS_MAX,
        notice=f"development licence: all features, at most {DEV_AGENTS_MAX} agents present, loopback only "
        "unless CHORUS_P2P_HOST says otherwise",
    )
