"""The core's counters as the agent's metrics: its totals become increments of lasting counters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from chorus.process import metrics


class _Increases(Protocol):
    def inc(self, amount: float = 1) -> None: ...


# Field of the core's stats, and the counter it feeds.
_TOTALS: dict[str, _Increases] = {
    "pubsub_sent": metrics.PUBSUB_SENT,
    "pubsub_received": metrics.PUBSUB_RECEIVED,
    "dht_queries": metrics.DHT_QUERIES,
    "dht_cache_hits": metrics.DHT_CACHE_HITS,
    "dht_cache_misses": metrics.DHT_CACHE_MISSES,
    "peer_bans": metrics.PEERS_BANNED,
}
# Queue depths among the core's stats.
_QUEUES = {"queue_commands": "swarm", "queue_publish": "publish", "requests_in_flight": "requests"}


class CoreMetrics:
    """Carries one core's stats over; made anew with each core, whose counts begin at zero."""

    def __init__(self) -> None:
        self._seen: dict[tuple[str, str], int] = {}

    def update(self, stats: Mapping[str, Any]) -> None:
        """Takes a snapshot of the core's stats."""
        metrics.PEERS_CONNECTED.set(stats.get("peers_connected", 0))
        for field, counter in _TOTALS.items():
            self._add(counter, field, "", stats.get(field, 0))
        for rule, count in stats.get("shhh_findings", {}).items():
            self._add(metrics.SHHH_FINDINGS, "shhh", rule, count)
            self._add(metrics.SHHH_FINDINGS_BY_RULE.labels(rule), "shhh_by_rule", rule, count)
        refused = {
            **stats.get("rejected", {}),
            "raft_frame": stats.get("raft_refused_frames", 0),
            "dht_record": stats.get("dht_refused", 0),
            "hub_frame": stats.get("hub_bad_connections", 0),
        }
        for reason, count in refused.items():
            self._add(metrics.REJECTED_MESSAGES.labels(reason), "rejected", reason, count)
        for field, queue in _QUEUES.items():
            metrics.HUB_QUEUE_DEPTH.labels(queue).set(stats.get(field, 0))

    def _add(self, counter: _Increases, field: str, label: str, total: int) -> None:
        before = self._seen.get((field, label), 0)
        if total > before:
            counter.inc(total - before)
            self._seen[field, label] = total
