"""The licence gate, before anything touches the network: whether an id may run an agent, or why not, as far
as that can be told without KACHING, the licence server.
"""

from __future__ import annotations

from dataclasses import dataclass

from chorus.license.refusals import LicenceRefused
from chorus.license.shown import DEV_PREFIX, Kind, shown

# What the gate looks at. A wrong value of one is a problem of the settings, and would seem missing to it.
GATE_SETTINGS = ("CHORUS_LICENSE_ID", "CHORUS_KACHING_URL", "CHORUS_KACHING_PUBLIC_KEY")
# Enough to try a mesh out; more agents are what a licence is for.
DEV_AGENTS_MAX = 16


@dataclass(frozen=True, slots=True)
class Licence:
    """What was granted."""

    kind: Kind
    agents_max: int
    notice: str


class Gate:
    """Asks `check`, and counts what was asked and refused."""

    def __init__(self) -> None:
        self.checks = 0
        self.failures = 0

    def check(self, license_id: str, kaching_url: str, public_key: str) -> Licence | None:
        """The licence for this id, None where KACHING has to be asked. Raises `LicenceRefused`."""
        try:
            licence = check(license_id, kaching_url, public_key)
        except LicenceRefused:
            self.checks += 1
            self.failures += 1
            raise
        self.checks += licence is not None
        return licence


def check(license_id: str, kaching_url: str, public_key: str) -> Licence | None:
    """The licence for this id, None where KACHING has to be asked. Raises `LicenceRefused`."""
    if not license_id:
        raise LicenceRefused(
            "CHORUS_LICENSE_ID is not set; set it to your licence id, or to develop to an id of your own "
            "that begins with dev-, such as dev-123"
        )
    if kaching_url:
        if not public_key:
            raise LicenceRefused(
                "CHORUS_KACHING_PUBLIC_KEY is not set, and without the server's key no answer of it counts; "
                "set it, or CHORUS_KACHING_PUBLIC_KEY_FILE, to the key with which the server at "
                "CHORUS_KACHING_URL signs"
            )
        return None
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
