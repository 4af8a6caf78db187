"""Settings of the network: addresses and ports, discovery, and what is kept for others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Final

from chorus.config import forms
from chorus.config.setting import Group, Setting

# Sources and inputs of tasks: some thousand of usual size.
BLOBS_BYTES: Final = 16 * 1024 * 1024 * 1024


@dataclass(frozen=True, kw_only=True)
class NetworkSettings(Group):
    """Where the agent listens, and how it finds others."""

    title = "Network"

    p2p_port: Annotated[int, Setting("CHORUS_P2P_PORT", forms.PORT, "9000", "Where other agents connect to.")]
    api_port: Annotated[
        int, Setting("CHORUS_API_PORT", forms.PORT, "8080", "The HTTP API, with UCXI and metrics.")
    ]
    health_port: Annotated[int, Setting("CHORUS_HEALTH_PORT", forms.PORT, "8081", "The probes and health.")]
    p2p_hosts: Annotated[
        tuple[str, ...],
        Setting(
            "CHORUS_P2P_HOST",
            forms.HOSTS,
            help="The addresses at which P2P listens.",
            otherwise="all addresses; with a development licence 127.0.0.1 and ::1",
        ),
    ]
    api_host: Annotated[
        str,
        Setting("CHORUS_API_HOST", forms.HOST, "127.0.0.1", "The address of the API and of health."),
    ]
    mdns_enabled: Annotated[
        bool,
        Setting(
            "CHORUS_MDNS_ENABLED", forms.SWITCH, "true", "Whether agents of this network find each other."
        ),
    ]
    dht_enabled: Annotated[
        bool,
        Setting(
            "CHORUS_DHT_ENABLED",
            forms.SWITCH,
            "true",
            "Whether contents are kept by, and looked for at, other agents (the distributed hash table).",
        ),
    ]
    dht_cache_bytes: Annotated[
        int,
        Setting(
            "CHORUS_DHT_CACHE_SIZE", forms.size("1MB"), "100MB", "Memory for contents that were read lately."
        ),
    ]
    # What sources and inputs of tasks may take of the disk.
    blobs_bytes: Annotated[
        int,
        Setting(
            "CHORUS_BLOBS_SIZE",
            forms.size("1MB"),
            "16GB",
            "Disk for sources and inputs of tasks; each other member may use an eighth of it.",
        ),
    ]
