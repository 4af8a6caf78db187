"""SHHH, the sentinel, as each process of an agent has it: the built-in rules, the operator's, and the
cluster's key for the hashes by which findings are told apart.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from chorus.config import Settings
from chorus.config.secret import derive_audit_key

if TYPE_CHECKING:
    from chorus.core import Scanner


def scanner_of(settings: Settings) -> Scanner:
    """The scanner for these settings."""
    from chorus.core import Scanner

    key = derive_audit_key(settings.cluster_secret.get_secret_value())
    return Scanner(key, rules=settings.shhh_rules or None)
