"""Every metric of an agent, by name, for all its processes, in prometheus_client's multiprocess folder.

The folder is wiped when the agent starts, not when a process does, so that counters are whole across restarts
of processes. Serving them is the api process's work.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.multiprocess import MultiProcessCollector

from chorus.config.paths import METRICS_VARIABLE

# From a warm `true` (tens of milliseconds) to the longest timeout in common use (an hour).
_DURATION_BUCKETS_S: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600)

# The sixteen names of the contract carry no labels: a labelled metric has no series, and so no name on the
# page, before its first event. Its gauges are `livesum`, which shows 0 before the first `set`; each has one
# writing process, and a dead writer's value is not a fact.
TASKS_ACTIVE = Gauge("chorus_tasks_active", "Current active tasks", multiprocess_mode="livesum")
TASKS_COMPLETED = Counter("chorus_tasks_completed_total", "Total completed tasks")
TASKS_FAILED = Counter("chorus_tasks_failed_total", "Total failed tasks")
TASK_DURATION = Histogram(
    "chorus_task_duration_seconds", "Task execution duration", buckets=_DURATION_BUCKETS_S
)

PEERS_CONNECTED = Gauge("chorus_peers_connected", "Number of connected peers", multiprocess_mode="livesum")
PUBSUB_SENT = Counter("chorus_pubsub_messages_sent_total", "PubSub messages sent")
PUBSUB_RECEIVED = Counter("chorus_pubsub_messages_received_total", "PubSub messages received")
DHT_QUERIES = Counter("chorus_dht_queries_total", "DHT query count")
DHT_CACHE_HITS = Counter("chorus_dht_cache_hits_total", "DHT cache hits")
DHT_CACHE_MISSES = Counter("chorus_dht_cache_misses_total", "DHT cache misses")

SANDBOX_CONTAINERS = Gauge(
    "chorus_sandbox_containers_active", "Active Docker containers", multiprocess_mode="livesum"
)
SANDBOX_CPU = Gauge("chorus_sandbox_cpu_usage", "Container CPU usage, in cores", multiprocess_mode="livesum")
SANDBOX_MEMORY = Gauge(
    "chorus_sandbox_memory_usage_bytes", "Container memory usage", multiprocess_mode="livesum"
)

SHHH_FINDINGS = Counter("chorus_shhh_findings_total", "Secrets detected by SHHH")
LICENSE_CHECKS = Counter("chorus_license_checks_total", "License validation attempts")
LICENSE_FAILURES = Counter("chorus_license_failures_total", "Failed license validations")

# What operators need beyond the contract.
LICENSE_REFUSALS = Counter(
    "chorus_license_refusals_total", "Failed license validations, by reason", ["reason"]
)
HUB_QUEUE_DEPTH = Gauge(
    "chorus_hub_queue_depth",
    "Items waiting in a queue of the hub",
    ["queue"],
    multiprocess_mode="livemostrecent",
)
ELECTION_TERM = Gauge(
    "chorus_election_term", "Term of the mesh's newest election", multiprocess_mode="mostrecent"
)
ELECTION_LEADER = Gauge(
    "chorus_election_leader", "1 while this agent leads the mesh", multiprocess_mode="livemostrecent"
)
ENTRIES_APPLIED = Counter(
    "chorus_entries_applied_total", "Entries of the replicated log applied to the table"
)
ENTRIES_REFUSED = Counter("chorus_entries_refused_total", "Entries applied as nothing, by reason", ["reason"])
TASK_WAIT = Histogram(
    "chorus_task_wait_seconds", "Time from submission to the claim", buckets=_DURATION_BUCKETS_S
)
TASKS_INPUT_LOST = Gauge(
    "chorus_tasks_input_lost",
    "Tasks that wait for a source or input which no member holds any more, on the leader",
    multiprocess_mode="livesum",
)
OUTPUTS_LOST = Counter(
    "chorus_outputs_lost_total",
    "Ended tasks whose output only a member had that was removed, counted by the leader of that time",
)
REJECTED_MESSAGES = Counter(
    "chorus_rejected_messages_total", "Gossip messages and frames refused by the core, by reason", ["reason"]
)
HANDLING_FAILURES = Counter(
    "chorus_handling_failures_total",
    "Messages, requests, streams, events and answers of others whose handling ended in an error",
    ["what", "error"],
)
PEERS_BANNED = Counter(
    "chorus_peers_banned_total", "Times that a peer was disconnected and kept out because it misbehaved"
)
SHHH_FINDINGS_BY_RULE = Counter(
    "chorus_shhh_findings_by_rule_total", "Secrets detected by SHHH, by rule", ["rule"]
)
PROCESS_RESTARTS = Counter(
    "chorus_process_restarts_total",
    "Starts of a process after its first since the agent started",
    ["process"],
)
PROCESS_UNRESPONSIVE = Counter(
    "chorus_process_unresponsive_total",
    "Processes that were ended because they lived and did not answer",
    ["process"],
)
HEALTH_CHECK = Gauge(
    "chorus_health_check", "1 while a check of /health passes", ["check"], multiprocess_mode="livemostrecent"
)
HMMM_SESSIONS = Counter(
    "chorus_hmmm_sessions_total", "Discussions that this agent led to an end, by outcome", ["outcome"]
)
HMMM_MESSAGES = Counter(
    "chorus_hmmm_messages_total",
    "Messages of discussions that this agent said, heard, or did not count as a member's",
    ["kind"],
)
MODEL_CALLS = Counter(
    "chorus_model_calls_total",
    "Calls of models, by outcome: answered, unreadable (told to the model) or failed",
    ["provider", "model", "outcome"],
)
MODEL_TOKENS = Counter(
    "chorus_model_tokens_total", "Tokens of models' questions and replies", ["provider", "model", "direction"]
)
MODEL_SECONDS = Histogram(
    "chorus_model_seconds",
    "Time that a model took for a reply",
    ["provider", "model"],
    buckets=_DURATION_BUCKETS_S,
)
MODEL_USD = Counter(
    "chorus_model_usd_total", "Money for models that have a price in CHORUS_AI_PRICES", ["provider", "model"]
)
MODEL_BREAKER = Gauge(
    "chorus_model_breaker_open",
    "1 while a provider that failed is left alone",
    ["provider"],
    multiprocess_mode="livemostrecent",
)
GOALS_ENDED = Counter("chorus_goals_ended_total", "Runs of goals that ended, by cause", ["ended_by"])
GOAL_STEPS = Counter("chorus_goal_steps_total", "Steps of goals: replies of a model with their calls")
BACKBEAT_FRAMES = Counter(
    "chorus_backbeat_frames_total",
    "Beat frames by outcome: accepted, or dropped because of malformed, too_large, repeat, too_fast or "
    "other_cluster",
    ["outcome"],
)
BACKBEAT_PULSE = Gauge(
    "chorus_backbeat_pulse", "1 while the pulse of BACKBEAT comes", multiprocess_mode="livemostrecent"
)
BACKBEAT_QUEUED = Gauge(
    "chorus_backbeat_queued", "Telemetry that waits to be sent", multiprocess_mode="livemostrecent"
)
BACKBEAT_DROPPED = Counter(
    "chorus_backbeat_dropped_total", "Telemetry that made room for newer telemetry, by kind", ["kind"]
)
BACKBEAT_SENT = Counter(
    "chorus_backbeat_sent_total",
    "Tries to send telemetry, by kind and outcome: sent, refused (not tried again) or failed",
    ["kind", "outcome"],
)
HTTP_REQUESTS = Counter("chorus_http_requests_total", "Answered HTTP requests", ["method", "status"])

CONTRACT: Final = (
    "chorus_tasks_active",
    "chorus_tasks_completed_total",
    "chorus_tasks_failed_total",
    "chorus_task_duration_seconds",
    "chorus_peers_connected",
    "chorus_pubsub_messages_sent_total",
    "chorus_pubsub_messages_received_total",
    "chorus_dht_queries_total",
    "chorus_dht_cache_hits_total",
    "chorus_dht_cache_misses_total",
    "chorus_sandbox_containers_active",
    "chorus_sandbox_cpu_usage",
    "chorus_sandbox_memory_usage_bytes",
    "chorus_shhh_findings_total",
    "chorus_license_checks_total",
    "chorus_license_failures_total",
)


def _name(metric: MetricWrapperBase) -> str:
    """The name as it stands on the page: the client keeps counters without their `_total`."""
    family = next(iter(metric.describe()))
    return f"{family.name}_total" if family.type == "counter" else family.name


REGISTERED: Final = tuple(
    _name(value) for value in list(globals().values()) if isinstance(value, MetricWrapperBase)
)

_COUNTED: Final = "licence.counted"
_LIVE_GAUGE_FILE = re.compile(r"gauge_live[a-z]+_(\d+)\.db")


def note_handling_failure(what: str, error: str) -> None:
    """Counts something that was said to this process and was not handled."""
    HANDLING_FAILURES.labels(what, error).inc()


def note_start(process: str) -> None:
    """Counts a process's start as a restart unless it is the first since the folder was wiped."""
    counter = PROCESS_RESTARTS.labels(process)
    if _first(process) is False:
        counter.inc()


def note_licence(checks: int, failures: Mapping[str, int]) -> None:
    """Counts up to these totals since the agent's start, which its parent gives: it counts nothing itself."""
    counted = _counted()
    totals = {"": checks, **failures}
    if counted is None or totals == counted:
        return
    try:
        # First: what is counted twice would be worse than what is not.
        (Path(os.environ[METRICS_VARIABLE]) / _COUNTED).write_text(json.dumps(totals))
    except OSError:
        return
    LICENSE_CHECKS.inc(max(0, checks - counted.get("", 0)))
    for reason, count in failures.items():
        more = max(0, count - counted.get(reason, 0))
        LICENSE_FAILURES.inc(more)
        LICENSE_REFUSALS.labels(reason).inc(more)


def _counted() -> dict[str, int] | None:
    """What of the licence has been counted since the folder was wiped; None when nobody can say."""
    folder = os.environ.get(METRICS_VARIABLE)
    if folder is None:
        return None
    try:
        counted: dict[str, int] = json.loads((Path(folder) / _COUNTED).read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError):
        return None
    return counted


def _first(what: str) -> bool | None:
    """Whether this is the first call for it since the folder was wiped; None when nobody can say."""
    folder = os.environ.get(METRICS_VARIABLE)
    if folder is None:
        return None
    try:
        (Path(folder) / f"started.{what}").touch(mode=0o600, exist_ok=False)
    except FileExistsError:
        return False
    except OSError:
        return None  # a metric is never worth a process's start
    return True


def drop_dead_gauges(folder: Path) -> None:
    """Removes the gauges of processes that are gone; their counters and histograms stay and keep counting."""
    for path in folder.glob("gauge_live*.db"):
        match = _LIVE_GAUGE_FILE.fullmatch(path.name)
        if match is None or Path(f"/proc/{match.group(1)}").exists():
            continue
        with contextlib.suppress(FileNotFoundError):
            path.unlink()


def render() -> bytes:
    """The page for /metrics: all processes of the agent when the folder is set, else this one alone."""
    folder = os.environ.get(METRICS_VARIABLE)
    if folder is None:
        return generate_latest()
    drop_dead_gauges(Path(folder))
    registry = CollectorRegistry()
    MultiProcessCollector(registry, path=folder)  # type: ignore[no-untyped-call]
    return generate_latest(registry)
