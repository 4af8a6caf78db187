"""SHHH, the sentinel, as each process of an agent has it: the built-in rules, the operator's, and the
cluster's key for the hashes by which findings are told apart.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from chorus.config import Settings
from chorus.config.secret import derive_audit_key
from chorus.process.logs import Logger

if TYPE_CHECKING:
    from chorus.core import Finding, Scanner


def scanner_of(settings: Settings) -> Scanner:
    """The scanner for these settings."""
    from chorus.core import Scanner

    key = derive_audit_key(settings.cluster_secret.get_secret_value())
    return Scanner(key, rules=settings.shhh_rules or None)


def record(finding: Finding, place: str, log: Logger | None) -> None:
    """Counts a finding and writes it down: rule, place and hash, never the secret."""
    # Not at the top: the parent has no metrics, and its memory is not to grow by them.
    from chorus.process import metrics

    metrics.SHHH_FINDINGS.inc()
    metrics.SHHH_FINDINGS_BY_RULE.labels(finding.rule).inc()
    if log is not None:
        log.warning(
            "a secret was found on its way out",
            place=place,
            rule=finding.rule,
            severity=finding.severity,
            start=finding.start,
            end=finding.end,
            audit=finding.audit,
        )
