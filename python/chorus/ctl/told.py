"""What a goal's run tells, each plan and each judgement of the checks once.

A plan comes as an event, as a proposal of the discussion, and as an event again when that is over; checks
that passed come as an event and in the result.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any, Final

from chorus.ctl.patch_text import PatchedFile
from chorus.ctl.report import goal_of, result_lines
from chorus.ctl.story import Line, check_lines, event_lines, name_of, part_of, shortened, talk_lines

# A discussion has fewer.
PLANS_MAX: Final = 16
# How an event ends whose text was cut.
_CUT: Final = "…"

Data = dict[str, Any]


class Told:
    """The lines of events, talk and result, without what was told before."""

    def __init__(self) -> None:
        self._plans: deque[str] = deque(maxlen=PLANS_MAX)
        self._passed: list[str] | None = None

    def event(self, event: str, data: Data) -> Iterator[Line]:
        """The lines of one event."""
        plan = part_of(data, "plan") if event == "step" else None
        if plan is not None and self._knows(plan.get("text")):
            if plan.get("outcome"):
                yield Line("plan", f"the plan is as above; discussion: {shortened(str(plan['outcome']))}")
            data = {name: value for name, value in data.items() if name != "plan"}
        checks = part_of(data, "checks") if event == "step" else None
        if checks is not None:
            self._passed = _all_passed(checks.get("commands"))
        yield from event_lines(event, data)

    def talk(self, item: Data) -> Iterator[Line]:
        """The lines of one thing of the discussion."""
        if item.get("intent") == "proposal" and self._knows(item.get("message")):
            yield Line("talk", f"{name_of(item)}, proposal: the plan above")
        else:
            yield from talk_lines(item)

    def result(self, task: Data, files: list[PatchedFile] | None) -> Iterator[Line]:
        """The account at the end."""
        passed = _all_passed(goal_of(task).get("checks"))
        yield from result_lines(task, files, with_checks=passed is None or passed != self._passed)

    def _knows(self, text: object) -> bool:
        """Whether a plan was told before; it is from now on."""
        plan = str(text or "").strip()
        if any(_same(known, plan) for known in self._plans):
            return True
        self._plans.append(plan)
        return False


def _same(known: str, plan: str) -> bool:
    return known == plan or (plan.endswith(_CUT) and known.startswith(plan.removesuffix(_CUT)))


def _all_passed(commands: object) -> list[str] | None:
    """The lines of checks that passed, all of them; None where one failed or there is none."""
    lines = list(check_lines(commands))
    return [line.text for line in lines] if lines and all(line.kind == "good" for line in lines) else None
