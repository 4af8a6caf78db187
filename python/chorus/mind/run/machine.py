"""The loop: from the records of an attempt's journal to what is to be done next. Pure.

The state is a function of the records alone, so that whoever reads the journal after a restart goes on where
it was. A record that comes twice counts once; unknown kinds are ignored.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final

from chorus.mind.run import room, stuck, turns
from chorus.mind.run.actions import Action, Ask, Call, Discuss, Finish, Help, Note, Plan, Summarise, Wait
from chorus.mind.run.budget import Budget, Used
from chorus.mind.run.marks import Marks
from chorus.mind.run.records import (
    WORDS_MAX_BYTES,
    bounded,
    items_of,
    note,
    number_of,
    seconds_of,
    text_of,
)
from chorus.mind.run.steps import Act, Said, Step, outcome_of, step_of
from chorus.mind.run.tools import SPECS
from chorus.mind.thinking import Turn

# Of a task without a limit of time.
_DEADLINE_S: Final = 3600.0
# Talking a plan over takes at most this share of the task's time.
_TALK_SHARE: Final = 0.5
# Other agents are asked at most so often in a run: their time is not this run's.
_QUESTIONS_MAX: Final = 3
# Of what other agents say unasked the newest words are shown: they must not crowd out a run's own work.
_PEERS_WORDS_MAX: Final = 8
_PLAIN_LINES: Final = 40
# A prompt that the model's server refuses as too long counts for more tokens from then on, by this factor at
# least; it is shortened so often at one step.
_UNDERRATED: Final = 1.25
_TOO_LONG_MAX: Final = 4


@dataclass(frozen=True, slots=True)
class RunSettings:
    """What a run is given besides its journal.

    `prompt` is the system prompt of the role. `window` is the model's, in tokens, and `count` counts them.
    With `talks` somebody could answer a plan.
    """

    prompt: str
    window: int
    count: Callable[[str], int]
    talks: bool = False


class Run:
    """One attempt of a goal. Give it each record in order with `apply`; `next` says what to do."""

    def __init__(self, settings: RunSettings) -> None:
        self._settings = settings
        self._start: dict[str, Any] | None = None
        self._setup: dict[str, Any] | None = None
        self._plan: str | None = None
        self._talk: dict[str, Any] | None = None
        self._steps: list[Step] = []
        # What people and others said before the first step that is still shown.
        self._said: list[Said] = []
        self._summary = ""
        self._used = Used()
        self._notes: set[str] = set()
        self._messages: set[tuple[str, str]] = set()
        # Other agents' words that are shown, oldest first, each with the list that it is in.
        self._peers_words: deque[tuple[list[Said], Said]] = deque()
        self._questions = 0
        self._blanked = 0
        # How much more tokens there are than `count` says, and how often the next step's prompt was refused.
        self._factor = 1.0
        self._too_long = 0
        # Circles are looked for from this step on: what is new to the model may break them.
        self._since = 0
        self._hinted = False
        self._helped = False
        self._fallback: dict[str, Any] | None = None
        self._over = False
        self._marks = Marks("")
        self._budget = Budget(None, None, None, None, None)

    @property
    def begun(self) -> bool:
        """Whether a reply of the model is in the journal."""
        return self._used.steps > 0

    def resize(self, window: int) -> None:
        """The model's window is known better now: so many tokens."""
        if window != self._settings.window:
            self._settings = replace(self._settings, window=window)

    @property
    def started(self) -> bool:
        """Whether the journal has its first record."""
        return self._start is not None

    @property
    def start(self) -> dict[str, Any]:
        """The first record of the journal; empty before there is one."""
        return self._start or {}

    @property
    def step(self) -> int:
        """The number of the last reply; 0 before the first."""
        return self._used.steps

    def left_s(self, now: float) -> float:
        """Seconds at `now` (since 1970) until nothing is begun any more: the task's time is nearly over."""
        left = self._budget.left_s(now)
        return _DEADLINE_S if left is None else left - self._budget.margin_s

    # What the journal says

    def apply(self, record: dict[str, Any]) -> None:
        """Takes in the next record."""
        match record.get("kind"):
            case "start" if self._start is None:
                self._start = record
                self._marks = Marks(text_of(record, "word"))
                self._budget = Budget.of(record, seconds_of(record.get("at")))
            case "setup":
                self._setup = record
            case "plan":
                self._take_plan(record)
            case "reply":
                self._take_reply(record)
            case "outcome":
                self._take_outcome(record)
            case "message":
                self._take_message(record)
            case "note":
                self._take_note(record)
            case "end":
                self._over = True

    def _take_plan(self, record: dict[str, Any]) -> None:
        if text_of(record, "id") == "discussed":
            self._talk = self._talk or record
        elif self._plan is None:
            self._plan = text_of(record, "text").strip()
            self._used.add(record)

    def _take_reply(self, record: dict[str, Any]) -> None:
        number = number_of(record, "step")
        if number <= self._used.steps:
            return
        step = step_of(record)
        if self._steps and self._steps[-1].provider != step.provider:
            text = f"from here on {step.provider} answers"
            self._fallback = note("fallback", f"fallback-{number}", text)
        self._steps.append(step)
        self._too_long = 0
        self._used.steps = number
        self._used.add(record)

    def _take_outcome(self, record: dict[str, Any]) -> None:
        act = self._act(number_of(record, "step"), number_of(record, "call"))
        if act is not None and act.outcome is None:
            act.outcome = outcome_of(record)
            self._over = self._over or (act.tool == "finish" and act.outcome.ok)

    def _act(self, step: int, call: int) -> Act | None:
        acts = (act for one in reversed(self._steps) if one.number == step for act in one.acts)
        return next((act for act in acts if act.call == call), None)

    def _take_message(self, record: dict[str, Any]) -> None:
        known = text_of(record, "from"), text_of(record, "id")
        if known in self._messages:
            return
        self._messages.add(known)
        name, text = text_of(record, "name"), text_of(record, "text")
        self._since = self._used.steps
        if record.get("from") == "person":
            self._hear(Said("person", name, text))
            return
        word = Said("peer", name, turns.shortened_word(text))
        self._peers_words.append((self._hear(word), word))
        if len(self._peers_words) > _PEERS_WORDS_MAX:
            place, oldest = self._peers_words.popleft()
            if oldest in place:
                place.remove(oldest)

    def _take_note(self, record: dict[str, Any]) -> None:
        id = text_of(record, "id")
        if id in self._notes:
            return
        self._notes.add(id)
        text = text_of(record, "text")
        match record.get("kind2"):
            case "hint" if "advice" in record:
                self._take_advice(record)
            case "hint":
                self._hinted, self._since = True, self._used.steps
                self._hear(Said("program", "", turns.hint(text, self._marks)))
            case "budget":
                self._hear(Said("program", "", text))
            case "blanked":
                upto = items_of(record, "upto")
                if len(upto) == 2 and all(isinstance(part, int) for part in upto):
                    room.blank(self._steps, (upto[0], upto[1]), number_of(record, "kept"))
                self._blanked += 1
            case "summary":
                self._take_summary(text, number_of(record, "upto"))
                self._used.add(record)
            case "too_long":
                factor = record.get("factor")
                self._factor = factor if isinstance(factor, float) and factor > 1 else self._factor
                self._too_long += 1
            case "fallback":
                self._fallback = None

    def _take_advice(self, record: dict[str, Any]) -> None:
        advice, call = items_of(record, "advice"), number_of(record, "call")
        words = turns.advised(advice, self._marks)
        self._questions += 1
        if call:
            act = self._act(number_of(record, "step"), call)
            if act is not None and act.outcome is None:
                text = turns.unmarked(advice) or text_of(record, "text")
                act.outcome = outcome_of({"ok": bool(advice), "text": text})
            return
        self._helped = True
        # Without advice it still goes in circles, and ends.
        if words:
            self._since = self._used.steps
            self._hear(Said("program", "", "Other agents were asked, because you go in circles.\n" + words))

    def _take_summary(self, text: str, upto: int) -> None:
        gone = [step for step in self._steps if step.number <= upto]
        # What people said stays; what others said is in the summary.
        self._said += [word for step in gone for word in step.said if word.who == "person"]
        self._steps = [step for step in self._steps if step.number > upto]
        self._summary = text

    def _hear(self, word: Said) -> list[Said]:
        """Words that the model is shown after the last step; returns the list that they are in."""
        place = self._steps[-1].said if self._steps else self._said
        place.append(word)
        return place

    # What is to be done

    def next(self, now: float) -> Action:
        """What is to be done at `now` (seconds since 1970)."""
        if self._start is None:
            return Wait(over=False)
        if self._over:
            return Wait(over=True)
        if (pending := self._pending()) is not None:
            return pending
        left = self.left_s(now)
        if left <= 0:
            return Wait(over=False)  # the executor ends what takes too long
        if (talk := self._talk_over(left)) is not None:
            return talk
        if (end := self._end()) is not None:
            return end
        if self._fallback is not None:
            return Note(self._fallback)
        if (warning := self._budget.warning(self._used, now, self._notes)) is not None:
            return Note(warning)
        shown = self._shown()
        if (smaller := self._make_room(shown, left, self._factor)) is not None:
            return smaller
        return Ask(self._used.steps + 1, shown, SPECS, left, self._may_write())

    def _may_write(self) -> bool:
        """Whether the model was told that it may write its calls, and has called no tool since."""
        last = self._steps[-1] if self._steps else None
        return last is not None and (last.without_call or last.written)

    def _pending(self) -> Action | None:
        """The first call of the last reply that has no outcome."""
        step = self._steps[-1] if self._steps else None
        act = step.open() if step is not None else None
        if step is None or act is None:
            return None
        if act.tool == "ask_peers":
            question = bounded(act.arguments["question"], WORDS_MAX_BYTES)
            id = f"answer-{step.number}-{act.call}"
            if self._questions >= _QUESTIONS_MAX:
                text = f"other agents were asked {_QUESTIONS_MAX} times, which is all a run may"
                return Note(note("hint", id, text, step=step.number, call=act.call, advice=[]))
            return Help(id, question, step.number, act.call)
        if act.tool == "finish":
            ended_by = "gave_up" if act.arguments.get("gave_up") else "finished"
            return Finish(ended_by, act.arguments["summary"], step.number, act.call)
        return Call(step.number, act.call, act.tool, act.arguments)

    def _talk_over(self, left: float) -> Action | None:
        """What is to be done about the plan before the first step."""
        if not self.begun and self._plan is None and self._settings.talks:
            return Plan((*self._opening(), turns.plan_question()), left)
        if not self.begun and self._plan and self._talk is None:
            return Discuss(self._plan, left * _TALK_SHARE)
        return None

    def _end(self) -> Action | None:
        """The run's end, or what comes before it when the run is stuck."""
        if stuck.unreadable(self._steps):
            reason = f"{stuck.UNREADABLE} replies in a row could not be read"
            return self._finish("format", f"{reason}: {self._steps[-1].unreadable or self._wrong()}")
        if (used_up := self._budget.ended(self._used)) is not None:
            return self._finish(*used_up)
        circle = stuck.circle([step for step in self._steps if step.number > self._since])
        if not circle:
            return None
        if not self._hinted:
            return Note(note("hint", "hint", circle))
        if not self._helped:
            return Help("help", self._question(circle))
        return self._finish("stuck", f"{circle}. Tried:\n{stuck.tried(self._steps)}")

    def _wrong(self) -> str:
        return "; ".join(act.wrong for act in self._steps[-1].acts if act.wrong)

    def _finish(self, ended_by: str, reason: str) -> Finish:
        return Finish(ended_by, reason, self._used.steps, 0)

    def _question(self, circle: str) -> str:
        goal = text_of(self.start, "title") or text_of(self.start, "goal")[:200]
        tried = stuck.tried(self._steps)
        return bounded(f"I am stuck on: {goal}\n{circle}\nTried:\n{tried}", WORDS_MAX_BYTES)

    def _opening(self) -> tuple[Turn, Turn]:
        goal = turns.goal(self.start, self._setup, self._marks)
        return turns.system(self._settings.prompt, self._marks), Turn("user", goal)

    def _shown(self) -> tuple[Turn, ...]:
        """The conversation up to now."""
        head, goal = self._opening()
        before = turns.said(self._said, self._marks)
        if self._summary:
            before.append("What you did so far:\n" + self._marks.data(self._summary, "summary"))
        shown = [head, goal]
        if self._plan:
            before.insert(0, turns.discussed(self._talk or {}, self._marks))
        if before:
            # The plan is no turn of the model's: small ones go on as they began, and call nothing.
            shown[1] = Turn("user", "\n\n".join([goal.text, *before]))
        for step in self._steps:
            shown += turns.of_step(step, self._marks)
        return tuple(shown)

    def too_long(self, reason: str) -> dict[str, Any] | None:
        """The note about a prompt that was refused as longer than the model's window, after which the loop
        makes room; None: nothing is left to shorten, or it was refused too often.
        """
        shown, window = self._shown(), self._settings.window
        # It has more tokens than fit, whatever was counted.
        counted = room.tokens(shown, SPECS, self._settings.count)
        factor = max(self._factor * _UNDERRATED, window / counted)
        if self._too_long >= _TOO_LONG_MAX or self._make_room(shown, _DEADLINE_S, factor) is None:
            return None
        id = f"too-long-{self._used.steps + 1}-{self._too_long + 1}"
        return note("too_long", id, reason, factor=factor)

    def _make_room(self, shown: tuple[Turn, ...], left: float, factor: float) -> Action | None:
        window = self._settings.window

        def count(text: str) -> int:
            return int(self._settings.count(text) * factor)

        total = room.tokens(shown, SPECS, count)
        if total <= room.FULL * window:
            return None
        if smaller := room.blank_old(self._steps, total, window, count, self._blanked):
            return Note(smaller)
        if old := self._steps[: -room.STEPS_KEPT]:
            # Half of the window, at about three characters a token.
            goal, limit = turns.aim(self.start), int(window * 3 / 2 / factor)
            asked = turns.summary_turns(goal, self._summary, old, limit, self._marks)
            plain = "\n".join(part for part in (self._summary, stuck.tried(old, _PLAIN_LINES)) if part)
            return Summarise(old[-1].number, asked, plain, left)
        smaller = room.shorten_last(self._steps, total, window, count, self._blanked)
        return None if smaller is None else Note(smaller)
