"""Settings of the services around the mesh: KACHING (licences), WHOOSH (assignments), BACKBEAT (telemetry),
and where sources are fetched from.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from chorus.config import forms
from chorus.config.masked import SecretText
from chorus.config.setting import Group, Setting


@dataclass(frozen=True, kw_only=True)
class ServiceSettings(Group):
    """Whom the agent asks besides other agents."""

    title = "Services around the mesh"

    kaching_url: Annotated[
        str,
        Setting(
            "CHORUS_KACHING_URL",
            forms.SERVICE,
            help="The licence server, KACHING ([licences.md](licences.md)).",
            otherwise="none: only development licences are known",
        ),
    ]
    kaching_public_key: Annotated[
        SecretText,
        Setting(
            "CHORUS_KACHING_PUBLIC_KEY",
            forms.KEYS,
            help="The key with which the licence server signs; several while it changes.",
            otherwise="required with a licence server",
            secret=True,
        ),
    ]
    license_grace_s: Annotated[
        float,
        Setting(
            "CHORUS_LICENSE_GRACE",
            forms.duration("0s"),
            "24h",
            "How long an agent goes on while the licence server cannot be reached, from its last successful "
            "check on. Give it more than a third of a lease.",
        ),
    ]
    assign_url: Annotated[
        str,
        Setting(
            "ASSIGN_URL",
            forms.ASSIGN_URL,
            help="Where this agent's assignment is ([assignments.md](assignments.md)).",
        ),
    ]
    assign_token: Annotated[
        SecretText,
        Setting(
            "ASSIGN_TOKEN",
            forms.TOKEN,
            help="Shown to that server as a bearer token.",
            secret=True,
        ),
    ]
    backbeat_enabled: Annotated[
        bool,
        Setting(
            "CHORUS_BACKBEAT_ENABLED",
            forms.SWITCH,
            "false",
            "Whether telemetry is sent ([backbeat.md](backbeat.md)).",
        ),
    ]
    backbeat_endpoint: Annotated[
        str,
        Setting("CHORUS_BACKBEAT_ENDPOINT", forms.BACKBEAT, help="The server of BACKBEAT, the telemetry."),
    ]
    fetch_allow: Annotated[
        tuple[str, ...],
        Setting(
            "CHORUS_FETCH_ALLOW",
            forms.many("hosts"),
            help="Private hosts that sources may come from.",
            later=True,
        ),
    ]
    fetch_credentials_file: Annotated[
        str,
        Setting(
            "CHORUS_FETCH_CREDENTIALS_FILE",
            forms.text("a file"),
            help="Credentials for sources, by host and path prefix.",
            later=True,
        ),
    ]

    @property
    def backbeat(self) -> str:
        """The server of BACKBEAT; empty while telemetry is off."""
        return self.backbeat_endpoint if self.backbeat_enabled else ""
