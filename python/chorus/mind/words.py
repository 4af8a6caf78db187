"""Words for HMMM: how a model is asked what it thinks of a plan or of another agent's question, and what its
answer means. Pure; the mind's service does the asking.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final

from chorus.mind.run.marks import Marks
from chorus.mind.run.records import WORDS_MAX_BYTES, bounded, items_of, text_of
from chorus.mind.run.steps import shortened
from chorus.mind.thinking import Turn

# Of the owner of a plan and of the others: what their words may mean.
OWNER: Final = ("proposal", "answer")
OTHERS: Final = ("agreement", "objection", "question")

_GOAL_MAX_CHARS: Final = 8000
_MESSAGES_MAX: Final = 16
_CITATIONS_MAX: Final = 8
_CITATION_MAX_CHARS: Final = 512

_FORM: Final = """\
Reply with one JSON object and nothing else:
{{"intent": {intents}, "message": "…", "citations": []}}
"citations" may name records: {{"ucxl": "ucxl://…", "reason": "…"}}. Keep the message below ten lines."""
_ASK_OTHER: Final = """\
Another agent wants to reach this goal, and says how. What do you think of its plan? "agreement": it can \
work. "objection": it would fail or do harm; say why, and what to do instead. "question": you have to know \
something first. Object only for a reason that changes the plan."""
_ASK_REPEATS: Final = """\
Add "repeats" to an objection: the number of the earlier objection to the same point, or null for a new \
point. Object to the same point again only if its answer does not settle it: a person is then asked."""
_ASK_OWNER: Final = """\
The plan is yours, and others said something about it. "proposal": they are right, and the message is your \
whole new plan. "answer": the plan stays, and the message says why, or answers the question."""
_ASK_ADVICE: Final = """\
Another agent is stuck and asks for your advice. Say in at most ten lines what you would look at and do \
next. You cannot act yourself: write plain text."""

# How a model agrees or objects that does not keep to the form.
_AGREES: Final = re.compile(r"\W*(?:i\s+)?(?:fully\s+)?agree", re.IGNORECASE)
_OBJECTS: Final = re.compile(r"\W*(?:i\s+)?(?:object|disagree)", re.IGNORECASE)


def discuss_turns(
    session: Mapping[str, Any], task: Mapping[str, Any], prompt: str, word: str
) -> tuple[Turn, ...]:
    """The question about a plan. `prompt` is the role's system prompt, `word` a random one for the marks.

    `session` has `plan`, `owner` (whether the plan is this agent's), `messages` as on the wire, and
    `answering`, the ids of those to answer.
    """
    marks, owner = Marks(word), session.get("owner") is True
    earlier = {ident: number for number, ident in enumerate(earlier_objections(session), 1)}
    messages = items_of(dict(session), "messages")[-_MESSAGES_MAX:]
    said = [_line(message, earlier) for message in messages]
    answering = set(map(str, items_of(dict(session), "answering")))
    about = [
        _line(message)
        for message in items_of(dict(session), "messages")
        if isinstance(message, dict) and message.get("message_id") in answering
    ]
    parts = [_goal(task, marks), "The plan:\n" + marks.data(text_of(dict(session), "plan"), "plan")]
    if lines := [line for line in said if line]:
        parts.append("What was said so far:\n" + marks.data("\n\n".join(lines), "discussion"))
    if about:
        parts.append("What is to be answered:\n" + marks.data("\n\n".join(about), "from another agent"))
    intents = " or ".join(f'"{intent}"' for intent in (OWNER if owner else OTHERS))
    question = f"{_ASK_OWNER if owner else _ASK_OTHER}\n\n{_FORM.format(intents=intents)}"
    if earlier and not owner:
        question += f"\n{_ASK_REPEATS}"
    return (_system(prompt, marks), Turn("user", "\n\n".join([*parts, question])))


def earlier_objections(session: Mapping[str, Any]) -> tuple[str, ...]:
    """The ids of the objections of a discussion, in the order of their numbers, which begin at 1."""
    messages = items_of(dict(session), "messages")[-_MESSAGES_MAX:]
    return tuple(
        ident
        for message in messages
        if isinstance(message, dict) and message.get("intent") == "objection"
        if (ident := text_of(message, "message_id"))
    )


def discussed(text: str, *, owner: bool, earlier: tuple[str, ...] = ()) -> dict[str, Any]:
    """The words that a model's answer means: intent, message (at most 4 KiB) and citations; {} for none.

    An objection that makes one of `earlier` again has its id as `repeats`.
    """
    said, allowed = _object(text), OWNER if owner else OTHERS
    message = said.get("message")
    if said.get("intent") in allowed and isinstance(message, str) and message.strip():
        words = _words(said["intent"], message, _citations(said.get("citations")))
        number = said.get("repeats")
        if said["intent"] == "objection" and type(number) is int and 0 < number <= len(earlier):
            words["repeats"] = earlier[number - 1]
        return words
    if said or not text.strip():
        return {}
    if owner:
        return _words("answer", text, [])
    for intent, form in (("agreement", _AGREES), ("objection", _OBJECTS)):
        if form.match(text):
            return _words(intent, text, [])
    return {}


def advise_turns(question: str, task: Mapping[str, Any], prompt: str, word: str) -> tuple[Turn, ...]:
    """The question for advice to another agent that is stuck."""
    marks = Marks(word)
    asked = "Its question:\n" + marks.data(bounded(question, WORDS_MAX_BYTES), "from another agent")
    return (_system(prompt, marks), Turn("user", "\n\n".join([_goal(task, marks), asked, _ASK_ADVICE])))


def advised(text: str) -> dict[str, Any]:
    """The advice that a model's answer is, at most 4 KiB; {} for none."""
    message = bounded(text.strip(), WORDS_MAX_BYTES)
    return {"message": message} if message else {}


def _system(prompt: str, marks: Marks) -> Turn:
    return Turn("system", f"{prompt.strip()}\n\n{marks.rules()}".strip())


def _goal(task: Mapping[str, Any], marks: Marks) -> str:
    """The goal of another agent: for this one it is no order."""
    known = dict(task)
    words = [text_of(known, name) for name in ("title", "goal", "description")]
    told = "\n".join(dict.fromkeys(word for word in words if word))
    return "The goal:\n" + marks.data(shortened(told, _GOAL_MAX_CHARS), "goal")


def _line(message: object, numbers: Mapping[str, int] = {}) -> str:
    if not isinstance(message, dict):
        return ""
    speaker = message.get("from")
    who = speaker if isinstance(speaker, dict) else {}
    name = text_of(who, "person") or text_of(who, "agent_id") or "somebody"
    intent, number = text_of(message, "intent"), numbers.get(text_of(message, "message_id"))
    numbered = intent if number is None else f"{intent} {number}"
    return f"{name} ({numbered}): {bounded(text_of(message, 'message'), WORDS_MAX_BYTES)}"


def _words(intent: str, message: str, citations: list[dict[str, str]]) -> dict[str, Any]:
    return {
        "intent": intent,
        "message": bounded(message.strip(), WORDS_MAX_BYTES),
        "citations": citations,
    }


def _citations(said: object) -> list[dict[str, str]]:
    found = []
    for one in said if isinstance(said, list) else ():
        if isinstance(one, dict) and (address := text_of(one, "ucxl")).startswith("ucxl://"):
            reason = bounded(text_of(one, "reason"), _CITATION_MAX_CHARS)
            found.append({"ucxl": bounded(address, _CITATION_MAX_CHARS), "reason": reason})
    return found[:_CITATIONS_MAX]


def _object(text: str) -> dict[str, Any]:
    """The JSON object in an answer, whatever stands around it; empty when there is none."""
    first, last = text.find("{"), text.rfind("}")
    if first < 0 or last < first:
        return {}
    try:
        said = json.loads(text[first : last + 1])
    except (ValueError, RecursionError):
        return {}
    return said if isinstance(said, dict) else {}
