"""The patch of a goal, against what its run began with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from chorus.executor.goal.checking import Checking
from chorus.executor.goal.inputs import Begun
from chorus.executor.patch import File, make_patch
from chorus.wire.task import parse_task

SENT = {"a": File.of("100644", b"a\n")}
EARLIER = {**SENT, "b": File.of("100644", b"b\n")}
LATER = {**EARLIER, "c": File.of("100644", b"c\n")}


async def test_only_what_is_more_than_the_beginning_is_a_change(tmp_path: Path) -> None:
    fresh: Any = None
    began = {"new": SENT, "going on": EARLIER}
    found = {}
    for name, begun in began.items():
        checking = Checking(Begun(parse_task({"title": "t"}), SENT, begun, None, []), tmp_path, fresh)
        found[name] = [await checking.changed(make_patch(SENT, now)) for now in (SENT, EARLIER, LATER)]
    # Who takes the earlier run's changes back has changed something.
    assert found == {"new": [False, True, True], "going on": [True, False, True]}
