"""The closed list of the types of entries, apart from the rules: the node's core refuses every other."""

from __future__ import annotations

from typing import Final

# Types that the core itself writes; nobody proposes them.
OF_THE_CORE: Final = frozenset({"found", "leader", "join", "voter", "removal"})

PROPOSABLE: Final = frozenset(
    {
        "member",
        "presence",
        "table_version",
        "submit",
        "award",
        "decline",
        "claim",
        "started",
        "result",
        "release",
        "reoffer",
        "cancel",
        "retry",
        "remove",
        "expire",
        "dependency_failed",
        "waiting",
        "decision",
        "version",
        "holders",
        "ballot",
        "vote",
        "ballot_end",
        "import_part",
        "import_task",
        "import_ballot",
        "import_decision",
        "import_version",
        "import_member",
    }
)
