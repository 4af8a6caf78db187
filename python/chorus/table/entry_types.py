"""The closed list of the types of entries, apart from the rules: the node's core refuses every other.

Each type came with a version of the table, and counts from that version on.
"""

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
        "goal",
        "goal_result",
        "give_back",
        "models",
        "import_goal",
    }
)

# The version of the table that a type came with; 1 for those that are not named.
SINCE: Final[dict[str, int]] = {
    "removal": 2,
    "holders": 2,
    "import_part": 2,
    "import_task": 2,
    "import_ballot": 2,
    "import_decision": 2,
    "import_version": 2,
    "import_member": 2,
    "goal": 3,
    "goal_result": 3,
    "give_back": 3,
    "models": 3,
    "import_goal": 3,
}
