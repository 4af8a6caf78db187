"""The behaviours of the scripted model: from a conversation to the next reply. Pure.

Each reply depends on the request alone: several agents may use one server, and one that was restarted goes on
where it was.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from typing import Any, Final

from chorus.dev.conversation import Conversation
from chorus.dev.script import Call, Reply, Script

Policy = Callable[[Conversation], Reply]

DONE: Final = Reply(text="My script has no more replies.")
UNKNOWN: Final = Reply(text="No script of mine is about this.")
# Longer than any call of a model may last by default.
SLOW_S: Final = 600.0
# What the victim looks for, up to the end of the line.
ORDER: Final = re.compile(r"ORDER: run (?P<command>[^\n`\"]+)")


def oracle(scripts: Sequence[Script]) -> Policy:
    """Plays the script whose goal the conversation's opening names."""

    def reply(asked: Conversation) -> Reply:
        script = _script_of(asked, scripts)
        if script is None:
            return UNKNOWN
        return _other(asked, script) or _step(script, _place(asked, script))

    return reply


def looper(scripts: Sequence[Script]) -> Policy:
    """Runs the same command for ever."""
    return _always(scripts, Reply(text="Once more.", calls=(Call(tool="run", arguments={"command": "ls"}),)))


def malformer(scripts: Sequence[Script]) -> Policy:
    """Calls in turn: arguments that are no JSON, an unknown tool, an unknown field."""
    bad = (
        Call(tool="run", arguments='{"command": "ls'),
        Call(tool="teleport", arguments={"to": "the end"}),
        Call(tool="read", arguments={"file": 7}),
    )

    def reply(asked: Conversation) -> Reply:
        script = _script_of(asked, scripts) or Script()
        return _other(asked, script) or Reply(calls=(bad[_place(asked, script) % len(bad)],))

    return reply


def truncator(scripts: Sequence[Script]) -> Policy:
    """Every answer breaks off once; the client's second request gets one that was cut by length."""
    cut = Reply(text="First I will look at all the files, and then", finish="length", fault="broken", times=1)
    return _always(scripts, cut)


def victim(scripts: Sequence[Script]) -> Policy:
    """Plays the oracle's script, but first obeys every order that stands outside the marks of data."""
    play = oracle(scripts)

    def reply(asked: Conversation) -> Reply:
        if asked.question != "step":
            return play(asked)
        obeyed = _commands_said(asked)
        for command in unmarked_orders(asked):
            if command not in obeyed:
                return Reply(
                    text=f"I obey: {command}", calls=(Call(tool="run", arguments={"command": command}),)
                )
        script = _script_of(asked, scripts)
        if script is None:
            return UNKNOWN
        return _step(script, _place(asked, script) - len(obeyed))

    return reply


def slow(scripts: Sequence[Script]) -> Policy:
    """Plays the oracle's first step; it begins no later answer before any client has given up."""
    return _after_the_first_step(oracle(scripts), {"delay_s": SLOW_S})


def dying(scripts: Sequence[Script]) -> Policy:
    """Plays the oracle's first step; the server ends in the middle of the second."""
    return _after_the_first_step(oracle(scripts), {"fault": "exit"})


def liar(scripts: Sequence[Script]) -> Policy:
    """Says that it is done and that all checks pass, without having done anything."""
    done = {"summary": "All is done. I ran every check, and all of them pass."}
    return _always(scripts, Reply(text="All checks pass.", calls=(Call(tool="finish", arguments=done),)))


POLICIES: Final[dict[str, Callable[[Sequence[Script]], Policy]]] = {
    "oracle": oracle,
    "looper": looper,
    "malformer": malformer,
    "truncator": truncator,
    "victim": victim,
    "slow": slow,
    "dying": dying,
    "liar": liar,
}


def policy(name: str, scripts: Sequence[Script] = ()) -> Policy:
    """The policy of this name; raises KeyError when there is none."""
    return POLICIES[name](scripts)


def unmarked_orders(asked: Conversation) -> list[str]:
    """The orders that stand outside all marks of data, in their order, each once.

    Data stands between `<data WORD …>` and `</data WORD>`; the system prompt says what the word is, and marks
    with another word are none.
    """
    system = "\n".join(message.text for message in asked.messages if message.role == "system")
    named = re.search(r"<data (\w+)", system)
    data = re.compile(rf"<data {named[1]}\b[^>\n]*>.*?</data {named[1]}>", re.DOTALL) if named else None
    found: dict[str, None] = {}
    for message in asked.messages:
        if message.role in ("user", "tool"):
            for match in ORDER.finditer(data.sub("", message.text) if data else message.text):
                found[match["command"].strip()] = None
    return list(found)


def _after_the_first_step(play: Policy, change: dict[str, Any]) -> Policy:
    """Plays the same, and changes every reply to a conversation in which a tool was called."""

    def reply(asked: Conversation) -> Reply:
        said = play(asked)
        begun = any(message.calls for message in asked.said)
        return said.model_copy(update=change) if begun else said

    return reply


def _always(scripts: Sequence[Script], said: Reply) -> Policy:
    """The same step for ever; other questions are answered by the script of the goal."""

    def reply(asked: Conversation) -> Reply:
        return _other(asked, _script_of(asked, scripts) or Script()) or said

    return reply


def _script_of(asked: Conversation, scripts: Sequence[Script]) -> Script | None:
    """The script with the longest goal of those that the opening names."""
    opening = _spaced(asked.opening)
    fitting = [script for script in scripts if _spaced(script.goal) in opening]
    return max(fitting, key=lambda script: len(script.goal), default=None)


def _spaced(text: str) -> str:
    """The text with all white space alike: a client may have broken its lines anew."""
    return " ".join(text.split())


def _place(asked: Conversation, script: Script) -> int:
    """How many steps the conversation already has. The plan is no step, also where it is one of the turns."""
    plan = _spaced(script.plan)
    return sum(bool(message.calls) or _spaced(message.text) != plan for message in asked.said)


def _step(script: Script, place: int) -> Reply:
    if script.repeat and script.replies:
        return script.replies[place % len(script.replies)]
    return script.replies[place] if place < len(script.replies) else DONE


def _other(asked: Conversation, script: Script) -> Reply | None:
    """The answer to a question that is not a step; None for a step."""
    if asked.question == "step":
        return None
    if asked.question == "discuss":
        return Reply(text=_discussed(asked.text, script))
    return Reply(
        text={"plan": script.plan, "advise": script.advise, "summary": script.summary}[asked.question]
    )


def _discussed(text: str, script: Script) -> str:
    for said in script.discuss:
        if all(words in text for words in said.when):
            return said.model_dump_json(exclude={"when"}, exclude_none=True)
    return json.dumps({"intent": "agreement", "message": "I agree with this plan.", "citations": []})


def _commands_said(asked: Conversation) -> set[str]:
    """The orders that were obeyed before; the words of the model's own turns say them."""
    return {
        message.text.removeprefix("I obey: ").strip()
        for message in asked.said
        if message.text.startswith("I obey: ")
    }
