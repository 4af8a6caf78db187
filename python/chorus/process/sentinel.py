"""SHHH, the sentinel, as each process of an agent has it: the built-in rules, the operator's, and the
cluster's key for the hashes by which findings are told apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from chorus.config import Settings
from chorus.config.secret import derive_audit_key
from chorus.process.logs import Logger

if TYPE_CHECKING:
    from chorus.core import Finding, Scanner


# Written down of the findings in one text: a message full of tokens must not become a log full of lines.
LOGGED_MAX: Final = 8


def scanner_of(settings: Settings) -> Scanner:
    """The scanner for these settings."""
    from chorus.core import Scanner

    key = derive_audit_key(settings.cluster_secret.get_secret_value())
    return Scanner(key, rules=settings.shhh_rules or None)


def record(found: Sequence[Finding], place: str, log: Logger | None) -> None:
    """Counts findings and writes some down: rule, place and hash, never the secret."""
    # Not at the top: the parent has no metrics, and its memory is not to grow by them.
    from chorus.process import metrics

    for finding in found:
        metrics.SHHH_FINDINGS.inc()
        metrics.SHHH_FINDINGS_BY_RULE.labels(finding.rule).inc()
    if log is None:
        return
    for finding in found[:LOGGED_MAX]:
        log.warning(
            "a secret was found on its way out",
            place=place,
            rule=finding.rule,
            severity=finding.severity,
            start=finding.start,
            end=finding.end,
            audit=finding.audit,
        )
    if len(found) > LOGGED_MAX:
        log.warning("more secrets were found on their way out", place=place, count=len(found) - LOGGED_MAX)
