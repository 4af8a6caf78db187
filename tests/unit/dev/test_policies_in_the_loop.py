"""How the loop ends with each behaviour of the scripted model. The executor and the wire are stood in for."""

from __future__ import annotations

from typing import Any

import pytest

from chorus.dev import Conversation, Message, Reply, Script, policy
from chorus.mind.run import Ask, Call, Finish, Help, Note, Run, RunSettings
from chorus.mind.run.records import note, reply_record
from chorus.mind.thinking import Reply as ModelReply
from chorus.mind.thinking import ToolCall

GOAL = "Write done.txt"
SCRIPT = Script.model_validate(
    {
        "goal": GOAL,
        "replies": [
            {"calls": [{"tool": "write", "arguments": {"path": "done.txt", "text": "done"}}]},
            {"calls": [{"tool": "finish", "arguments": {"summary": "Written."}}]},
        ],
    }
)
TURNS = Script.model_validate(
    {
        "replies": [
            {"calls": [{"tool": "run", "arguments": {"command": command}}]}
            for command in ("true", "date +%N")
        ],
        "repeat": True,
    }
)
ROUNDS_MAX = 200


def through(name: str, *scripts: Script) -> str:
    """Runs the loop with that behaviour; by what it ended. The check wants done.txt."""
    play, files = policy(name, scripts), dict[str, str]()
    run = Run(RunSettings("", 32768, len))
    run.apply({"kind": "start", "n": 1, "title": GOAL, "word": "w0rd", "checks": ["test -s done.txt"]})
    for number in range(ROUNDS_MAX):
        match run.next(0):
            case Ask() as asked:
                turns = tuple(Message(t.role, t.text, tuple(c.tool for c in t.calls)) for t in asked.turns)
                said = play(Conversation(turns, tuple(tool.name for tool in asked.tools)))
                run.apply(reply_record(asked.step, _read(said)))
            case Call() as call:
                text = f"{number}" if "date" in str(call.arguments) else ""
                if call.tool == "write":
                    files[call.arguments["path"]] = call.arguments["text"]
                run.apply(_outcome(call.step, call.call, True, text))
            case Finish() as end:
                accepted = end.ended_by != "finished" or "done.txt" in files
                if accepted:
                    return end.ended_by
                run.apply(_outcome(end.step, end.call, False, "test -s done.txt: exit code 1"))
            case Help() as asked_peers:
                run.apply(note("hint", asked_peers.id, "nobody", advice=[]))
            case Note() as said_note:
                run.apply(said_note.record)
            case other:
                raise AssertionError(other)
    raise AssertionError("it does not end")


def _outcome(step: int, call: int, ok: bool, text: str) -> dict[str, Any]:
    return {"kind": "outcome", "step": step, "call": call, "ok": ok, "text": text}


def _read(said: Reply) -> ModelReply:
    """A reply as a provider reads it: what is no JSON is no call."""
    wrong = next((call for call in said.calls if isinstance(call.arguments, str)), None)
    calls = tuple(ToolCall(c.tool, c.arguments) for c in said.calls if isinstance(c.arguments, dict))
    unreadable = "the arguments are no JSON" if wrong else ""
    finish = "length" if said.finish == "length" else "calls" if calls else "stop"
    return ModelReply(said.text, calls, finish, unreadable, "ollama", "scripted", 1, 1, 0.1, None)


@pytest.mark.parametrize(
    ("name", "scripts", "ended_by"),
    [
        ("oracle", [SCRIPT], "finished"),
        ("victim", [SCRIPT], "finished"),
        ("oracle", [TURNS], "stuck"),
        ("oracle", [], "stuck"),
        ("looper", [], "stuck"),
        ("truncator", [], "stuck"),
        ("liar", [], "stuck"),
        ("malformer", [], "format"),
    ],
)
def test_the_loop_ends_by_name(name: str, scripts: list[Script], ended_by: str) -> None:
    assert through(name, *scripts) == ended_by
