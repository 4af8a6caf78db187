"""Settings of the agent itself: who it is, where its files lie, what it says, and how it ends."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from chorus.config import forms
from chorus.config.setting import Group, Setting


@dataclass(frozen=True, kw_only=True)
class AgentSettings(Group):
    """Who this agent is on this machine."""

    title = "The agent"

    # The id itself ends at the gate: no process needs it, and whoever reads these settings cannot use it.
    license_shown: Annotated[
        str,
        Setting(
            "CHORUS_LICENSE_ID",
            forms.LICENSE_ID,
            help="The licence: an id of KACHING's, or one of your own that begins with `dev-`, to develop.",
            otherwise="required",
            secret=True,
        ),
    ]
    agent_id: Annotated[
        str,
        Setting(
            "CHORUS_AGENT_ID",
            forms.A_NAME,
            help="What this agent is called. On the wire it is known by its peer id.",
            otherwise="optional; auto-generated if empty",
        ),
    ]
    mode: Annotated[
        Literal["agent"],
        Setting(
            "CHORUS_MODE",
            forms.one_of("agent", words="agent (hap comes in a later version)"),
            "agent",
            "Whether this agent takes tasks by itself.",
        ),
    ]
    data_dir: Annotated[
        Path,
        Setting(
            "CHORUS_DATA_DIR",
            forms.folder(),
            help="Identity key, stores, log and results: what lasts. One living agent for each folder.",
            otherwise="`$XDG_STATE_HOME/chorus/<agent id, or p2p-PORT>`",
        ),
    ]
    run_dir: Annotated[
        Path,
        Setting(
            "CHORUS_RUN_DIR",
            forms.folder("a folder with a short path"),
            help="Sockets and generated files: what ends with the agent.",
            otherwise="a short private folder",
        ),
    ]
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"],
        Setting(
            "CHORUS_LOG_LEVEL",
            forms.one_of("debug", "info", "warning", "error", warn="warning"),
            "info",
            "The least that is logged.",
        ),
    ]
    log_format: Annotated[
        Literal["auto", "json", "text"],
        Setting(
            "CHORUS_LOG_FORMAT",
            forms.one_of("auto", "json", "text"),
            "auto",
            "The form of log lines on stderr; `auto` is text on a terminal and JSON elsewhere.",
        ),
    ]
    docker_host: Annotated[
        str | None,
        Setting(
            "DOCKER_HOST",
            forms.DOCKER_HOST,
            help="Where the Docker daemon, or a filtering proxy before it, answers.",
            otherwise="`unix:///var/run/docker.sock`",
        ),
    ]
    shutdown_timeout_s: Annotated[
        float,
        Setting(
            "CHORUS_SHUTDOWN_TIMEOUT",
            forms.duration("0s"),
            "300s",
            "How long tasks in flight may run on after a stop was asked for.",
        ),
    ]
    retention_s: Annotated[
        float,
        Setting(
            "CHORUS_RETENTION",
            forms.duration("0s"),
            "30d",
            "How long output and artifacts of ended tasks are kept; records and log stay.",
        ),
    ]
