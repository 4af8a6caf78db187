"""Settings of the cluster: its name and secret, the keys of its roles, and the API's token."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from chorus.config import forms
from chorus.config.masked import SecretData, SecretText
from chorus.config.setting import Group, Setting


@dataclass(frozen=True, kw_only=True)
class ClusterSettings(Group):
    """Which cluster the agent belongs to, and what it may read there."""

    title = "Cluster and keys"

    cluster_id: Annotated[
        str,
        Setting(
            "CHORUS_CLUSTER_ID",
            forms.A_NAME,
            help="The cluster that this agent belongs to.",
            otherwise="from the licence",
        ),
    ]
    # Bytes, not text: derived secrets are raw, and foreign programs derive keys from the same bytes.
    cluster_secret: Annotated[
        SecretData,
        Setting(
            "CHORUS_CLUSTER_SECRET",
            forms.text("a secret of at least 24 bytes"),
            help="Root of the network key and of the roles' keys: who has it belongs to the cluster.",
            otherwise="from the licence; derived from the id of a development licence",
            secret=True,
        ),
    ]
    # Where the keys of the roles come from, when not from the cluster secret.
    role_keys_file: Annotated[
        Path | None,
        Setting(
            "CHORUS_ROLE_KEYS_FILE",
            forms.folder("a file with the keys of the roles"),
            help="Private file with the age identities this agent may read with and the recipients of all "
            "roles ([dht.md](dht.md)).",
            otherwise="derived from the cluster secret",
        ),
    ]
    # Who may read which role besides those that may anyway.
    role_grants: Annotated[
        tuple[tuple[str, str], ...],
        Setting(
            "CHORUS_ROLE_GRANTS",
            forms.GRANTS,
            help="Roles that may read what is sealed for another one, besides those that may anyway; set it "
            "alike on all agents.",
        ),
    ]
    api_token: Annotated[
        SecretText,
        Setting(
            "CHORUS_API_TOKEN",
            forms.API_TOKEN,
            help="What clients of the API show as their bearer token.",
            otherwise="generated into the data folder as `api-token`",
            secret=True,
        ),
    ]
