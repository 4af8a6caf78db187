"""Settings of what agents say and remember: discussions (HMMM), addresses (UCXI), the sentinel (SHHH)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from chorus.config import forms
from chorus.config.setting import Group, Setting


@dataclass(frozen=True, kw_only=True)
class MemorySettings(Group):
    """How agents talk plans over, and what must not leave them."""

    title = "Memory and talk"

    hmmm_enabled: Annotated[
        bool,
        Setting(
            "CHORUS_HMMM_ENABLED",
            forms.SWITCH,
            "true",
            "Whether this agent takes part in discussions ([hmmm.md](hmmm.md)).",
        ),
    ]
    # How long a plan waits for objections, and for a person's answer.
    hmmm_period_s: Annotated[
        float,
        Setting("CHORUS_HMMM_PERIOD", forms.duration("0s"), "30s", "How long a plan waits for objections."),
    ]
    hmmm_escalation_s: Annotated[
        float,
        Setting("CHORUS_HMMM_ESCALATION", forms.duration("0s"), "10m", "How long a plan waits for a person."),
    ]
    ucxi_enabled: Annotated[
        bool,
        Setting(
            "CHORUS_UCXI_ENABLED",
            forms.SWITCH,
            "true",
            "Whether contents can be read and written by address over HTTP ([ucxi.md](ucxi.md)).",
        ),
    ]
    # Rules and exceptions of the operator's, as the core reads them; empty: none.
    shhh_rules: Annotated[
        str,
        Setting(
            "CHORUS_SHHH_RULES_FILE",
            forms.text("a YAML file of rules and exceptions for the sentinel"),
            help="More rules for finding secrets, and exceptions ([sentinel.md](sentinel.md)).",
        ),
    ]
