"""The conversation that a model is shown: who says what in it, and what of it stands between marks. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from chorus.mind.run.marks import Marks
from chorus.mind.run.records import items_of, text_of
from chorus.mind.run.steps import Act, Said, Step, shortened
from chorus.mind.thinking import ToolCall, Turn

# A setup's output, an earlier decision and a peer's word each take at most this much of the window.
_SETUP_MAX_CHARS: Final = 4000
_DECISION_MAX_CHARS: Final = 1500
_WORD_MAX_CHARS: Final = 1500
_NAMES_MAX: Final = 200

_PLAN: Final = (
    "Before you begin: write your plan in at most ten lines. Other agents will read it and may object. "
    "Do not act yet."
)
_SUMMARISE: Final = (
    "Write a summary of these earlier steps, in at most thirty lines: what was found out, what was changed "
    "in which files, what failed, what is left to do. Keep names of files and exact errors."
)


def system(prompt: str, marks: Marks) -> Turn:
    """The role's prompt, and the rules about the marks of this run."""
    return Turn("system", f"{prompt.strip()}\n\n{marks.rules()}".strip())


def goal(start: dict[str, Any], setup: dict[str, Any] | None, marks: Marks) -> str:
    """The goal and what is known about its task."""
    parts = [aim(start)]
    known = ((name, text_of(start, name)) for name in ("workdir", "language", "network"))
    facts = [f"{name}: {value}" for name, value in known if value]
    if facts:
        parts.append("Facts: " + "; ".join(facts))
    parts += _commands(start, "checks", "The checks that decide, run after finish:", marks)
    if not items_of(start, "checks"):
        parts.append("There are no checks: your own word is the outcome, so check your work yourself.")
    parts += _commands(start, "setup", "Run before the checks, and done already here:", marks)
    parts += _commands(start, "protected", "Files that the checks take as they were sent:", marks)
    parts += _files(start, marks)
    if setup is not None:
        for done in items_of(setup, "commands"):
            if isinstance(done, dict) and (output := text_of(done, "output").strip()):
                parts.append(marks.data(shortened(output, _SETUP_MAX_CHARS), "output of setup"))
    if earlier := [line for one in items_of(start, "context") if (line := _decision(one))]:
        decisions = marks.data("\n\n".join(earlier), "earlier decisions")
        parts.append(f"Earlier decisions that may help:\n{decisions}")
    if continues := text_of(start, "continues"):
        before = marks.data(continues, "earlier run")
        parts.append(f"This goes on from an earlier run, whose changes are in the files:\n{before}")
    return "\n\n".join(parts)


def aim(start: dict[str, Any]) -> str:
    """The goal in its submitter's words."""
    title, words = text_of(start, "title"), text_of(start, "goal")
    return f"Goal: {title}" + (f"\n\n{words}" if words != title else "")


def _commands(start: dict[str, Any], field: str, says: str, marks: Marks) -> list[str]:
    lines = [str(line) for line in items_of(start, field)]
    return [f"{says}\n{marks.data(chr(10).join(lines), field)}"] if lines else []


def _files(start: dict[str, Any], marks: Marks) -> list[str]:
    files = start.get("files")
    if not isinstance(files, dict):
        return []
    names = [str(name) for name in items_of(files, "names")[:_NAMES_MAX]]
    if not names:
        return []
    count = files.get("count")
    shown = f"the first {len(names)} of {count}" if isinstance(count, int) and count > len(names) else "all"
    return [f"Files in the working folder ({shown}):\n{marks.data(chr(10).join(names), 'names of files')}"]


def _decision(one: object) -> str:
    if not isinstance(one, dict):
        return ""
    words = [text_of(one, name) for name in ("title", "summary", "address")]
    return "\n".join(shortened(word, _DECISION_MAX_CHARS) for word in words if word)


def plan_question() -> Turn:
    """What asks for a plan."""
    return Turn("user", _PLAN)


def discussed(record: dict[str, Any], marks: Marks) -> str:
    """What came of talking the plan over."""
    outcome, plan = text_of(record, "outcome"), text_of(record, "text")
    parts = [f"Your plan was talked over with other agents. Outcome: {outcome or 'none'}."]
    if advice := advised(items_of(record, "advice"), marks):
        parts.append(advice)
    if plan:
        parts.append("The plan as it stands now:\n" + marks.data(plan, "plan"))
    parts.append("Begin.")
    return "\n\n".join(parts)


def advised(advice: Sequence[object], marks: Marks) -> str:
    """Words of other agents, between marks; "" when there are none."""
    return marks.data(words, "from other agents") if (words := unmarked(advice)) else ""


def unmarked(advice: Sequence[object]) -> str:
    """Words of other agents, for what puts marks around them."""
    lines = []
    for one in advice:
        if isinstance(one, dict):
            name, intent = text_of(one, "name") or text_of(one, "from"), text_of(one, "intent")
            word = shortened(text_of(one, "message"), _WORD_MAX_CHARS)
            lines.append(f"{name}{f' ({intent})' if intent else ''}: {word}")
    return "\n\n".join(lines)


def hint(circle: str, marks: Marks) -> str:
    """What a model is told that goes in circles."""
    return "You are going in circles. Look at what happened, and try something else.\n" + marks.data(
        circle, "seen in your last steps"
    )


def said(words: Sequence[Said], marks: Marks) -> list[str]:
    """Words that came in after a step."""
    return [_word(word, marks) for word in words]


def _word(word: Said, marks: Marks) -> str:
    if word.who == "person":
        return marks.person(word.name, word.text)
    return marks.peer(word.name, word.text) if word.who == "peer" else word.text


def of_step(step: Step, marks: Marks) -> list[Turn]:
    """A step as it is shown: the reply, an answer to each call, and what is said about the reply."""
    calls = tuple(ToolCall(act.tool, act.arguments) for act in step.acts)
    turns = [Turn("assistant", step.text, calls)]
    turns += [Turn("tool", _answer(act, marks), tool=act.tool) for act in step.acts]
    after = []
    if step.unreadable:
        after.append(step.unreadable)
    elif step.cut:
        after.append("Your reply was cut because it was too long. Write less at a time.")
    elif not step.acts:
        after.append("Your reply called no tool. Call a tool, or finish when the goal is reached.")
    after += said(step.said, marks)
    return [*turns, Turn("user", "\n\n".join(after))] if after else turns


def _answer(act: Act, marks: Marks) -> str:
    if act.wrong:
        return act.wrong
    if act.outcome is None:
        return "The outcome of this call is not known."
    outcome, says = act.outcome, []
    if act.tool == "finish" and not outcome.ok:
        says.append("Not accepted. Go on.")
    elif outcome.timed_out:
        says.append("It took too long and was killed.")
    elif outcome.exit_code is not None:
        says.append(f"Exit code {outcome.exit_code}.")
    elif not outcome.ok:
        says.append("It failed.")
    if outcome.text:
        says.append(marks.data(outcome.text, f"from {act.tool}"))
    return "\n".join(says) or "Done."


def summary_turns(
    goal: str, earlier: str, steps: Sequence[Step], limit: int, marks: Marks
) -> tuple[Turn, ...]:
    """The question for a summary of older steps, at most about `limit` characters of them."""
    told = [earlier] if earlier else []
    for step in steps:
        for turn in of_step(step, marks):
            calls = "".join(f"\n{call.tool} {call.arguments}" for call in turn.calls)
            told.append(f"{turn.role}: {turn.text}{calls}")
    history = marks.data(shortened("\n\n".join(told), limit), "earlier steps")
    return (
        Turn("system", "You sum up the work of an agent. " + marks.rules()),
        Turn("user", f"{goal}\n\n{history}"),
        Turn("user", _SUMMARISE),
    )
