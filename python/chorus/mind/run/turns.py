"""The conversation that a model is shown: who says what in it, and what of it stands between marks. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from chorus.mind.run.marks import Marks
from chorus.mind.run.records import items_of, text_of
from chorus.mind.run.steps import Act, Said, Step, shortened
from chorus.mind.text_protocol import FORM
from chorus.mind.thinking import ToolCall, Turn

# What is known of a task takes at most this much of the window, each part of it: names of files, checks,
# output of the setup, earlier decisions, an earlier run.
_PART_MAX_CHARS: Final = 8000
_DECISION_MAX_CHARS: Final = 1500
_WORD_MAX_CHARS: Final = 1500

_PLAN: Final = (
    "Before you begin: write your plan in at most ten lines. Other agents will read it and may object. "
    "Do not act yet."
)
_WITHOUT_CALL: Final = (
    "Your reply called no tool, so nothing was done. Call a tool, or finish when the goal is reached. If you "
    f"cannot call tools, write one command for the shell instead: reply with {FORM}."
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
    if not items_of(start, "checks"):
        parts.append("There are no checks: your own word is the outcome, so check your work yourself.")
    for says, what, lines in (
        ("The checks that decide, run after finish:", "checks", items_of(start, "checks")),
        ("Run before the checks, and done already here:", "setup", items_of(start, "setup")),
        ("Files that the checks take as they were sent:", "protected", items_of(start, "protected")),
        (_files_said(start), "names of files", _files(start)),
        ("What the setup said:", "output of setup", _outputs(setup)),
        ("Earlier decisions that may help:", "earlier decisions", _decisions(start)),
        ("This goes on from an earlier run; its changes are in the files:", "earlier run", _before(start)),
    ):
        if text := "\n".join(map(str, lines)).strip():
            parts.append(f"{says}\n{marks.data(shortened(text, _PART_MAX_CHARS), what)}")
    return "\n\n".join(parts)


def aim(start: dict[str, Any]) -> str:
    """The goal in its submitter's words."""
    title, words = text_of(start, "title"), text_of(start, "goal")
    return f"Goal: {title}" + (f"\n\n{words}" if words not in ("", title) else "")


def _files(start: dict[str, Any]) -> list[Any]:
    files = start.get("files")
    return items_of(files, "names") if isinstance(files, dict) else []


def _files_said(start: dict[str, Any]) -> str:
    files, names = start.get("files"), _files(start)
    count = files.get("count") if isinstance(files, dict) else None
    more = isinstance(count, int) and count > len(names)
    return f"Files in the working folder ({f'the first {len(names)} of {count}' if more else 'all'}):"


def _outputs(setup: dict[str, Any] | None) -> list[str]:
    done = items_of(setup or {}, "commands")
    return [output for one in done if isinstance(one, dict) and (output := text_of(one, "output").strip())]


def _decisions(start: dict[str, Any]) -> list[str]:
    known = [one for one in items_of(start, "context") if isinstance(one, dict)]
    texts = [[text_of(one, name) for name in ("title", "summary", "address")] for one in known]
    return [shortened("\n".join(filter(None, text)), _DECISION_MAX_CHARS) + "\n" for text in texts]


def _before(start: dict[str, Any]) -> list[str]:
    return [text_of(start, "continues")]


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
            word = shortened_word(text_of(one, "message"))
            lines.append(f"{name}{f' ({intent})' if intent else ''}: {word}")
    return "\n\n".join(lines)


def shortened_word(text: str) -> str:
    """As much of another agent's word as is shown."""
    return shortened(text, _WORD_MAX_CHARS)


def hint(circle: str, marks: Marks) -> str:
    """What a model is told that goes in circles."""
    return (
        "You are going in circles. Look at what happened, and try something else. Code that stands in your "
        "replies is in no file: change files with edit or write.\n"
    ) + marks.data(circle, "seen in your last steps")


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
    elif step.without_call:
        after.append(_WITHOUT_CALL)
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
