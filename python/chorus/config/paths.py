"""Where the files of an agent lie: its data directory is kept, its run directory goes with the agent."""

from __future__ import annotations

from pathlib import Path
from typing import Final

# Where a process finds the folder of its agent's metrics; the name is prometheus_client's.
METRICS_VARIABLE: Final = "PROMETHEUS_MULTIPROC_DIR"


class Paths:
    """The files of an agent."""

    def __init__(self, data_dir: Path, run_dir: Path) -> None:
        self.data = data_dir
        self.run = run_dir
        self.identity_key = data_dir / "identity.key"
        self.api_token = data_dir / "api-token"
        # The last token of a licence, and what goes with it; what the parent says of the licence now.
        self.license = data_dir / "license.json"
        self.license_status = run_dir / "license.json"
        self.agent_json = data_dir / "agent.json"
        self.agent_lock = data_dir / "agent.lock"
        self.core = data_dir / "core"
        self.vote_file = self.core / "raft.redb"
        # Why the identity is to be replaced at the next start; what old identities left.
        self.identity_lost = data_dir / "identity.lost"
        self.replaced = data_dir / "replaced"
        # That this agent is to leave its mesh, and for what; what it takes along; the mesh it is to found.
        self.departure = data_dir / "departure.json"
        self.carried = data_dir / "carried.jsonl"
        self.founding_instruction = data_dir / "founding.json"
        self.table_db = data_dir / "table.sqlite"
        self.executor_db = data_dir / "executor.sqlite"
        self.curator_db = data_dir / "curator.sqlite"
        self.spending = data_dir / "spending.json"
        self.model_calls = data_dir / "model-calls.json"
        # The last good copy of what WHOOSH gave out.
        self.assigned_json = data_dir / "assigned.json"
        self.blobs = data_dir / "blobs"
        self.tasks = data_dir / "tasks"
        self.hub_socket = run_dir / "hub.sock"
        self.settings_json = run_dir / "settings.json"
        # The assignment, once it is another one than that of the start.
        self.assignment_json = run_dir / "assignment.json"
        self.supervisord_conf = run_dir / "supervisord.conf"
        self.supervisor_socket = run_dir / "supervisor.sock"
        self.metrics_dir = run_dir / "metrics"
        self.crashes_json = run_dir / "crashes.json"
        self.journal_boot = run_dir / "journal.boot"

    def alive(self, generation: int) -> Path:
        """The FIFO that the parent holds open while the processes of this generation may live."""
        return self.run / f"alive.{generation}"
