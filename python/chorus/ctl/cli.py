"""The command line of chorusctl: its words, and which function each of them is."""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from argparse import ArgumentParser, Namespace, _SubParsersAction
from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from chorus.ctl import image_options, kaching_options, task_options, terminal
from chorus.ctl.endings import Signalled
from chorus.ctl.problems import CANCELLED, FAILED, CtlError
from chorus.ctl.texts import check_arguments
from chorus.wire.visible import visible

AGENTS_MAX = 16  # what a development licence allows
# The behaviours of the scripted model (chorus.dev.POLICIES), without loading it.
MODEL_POLICIES = ("oracle", "looper", "malformer", "truncator", "victim", "slow", "dying", "liar")
# Set, an unexpected error is shown with its traceback.
TRACEBACK = "CHORUSCTL_TRACEBACK"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code; SystemExit for help and for arguments that do not fit."""
    terminal.prepare()
    try:
        code = _run(argv)
    except SystemExit as leaving:
        raise SystemExit(_flushed(int(leaving.code or 0))) from None
    except CtlError as error:
        terminal.note_lines(f"chorusctl: {error}")
        code = error.code
    except Signalled as signalled:
        code = signalled.code
    except KeyboardInterrupt:
        code = CANCELLED
    except BrokenPipeError:
        code = 0  # the reader (head, less) has seen enough
    except OSError as error:
        where = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, str | bytes) else ""
        terminal.note(f"chorusctl: {where}{error.strerror or error}")
        terminal.drop_output()
        return FAILED
    except Exception as error:
        terminal.note_lines(_unexpected(error))
        code = FAILED
    return _flushed(code)


def _run(argv: Sequence[str] | None) -> int:
    arguments = build_parser().parse_args(argv)
    check_arguments(arguments)
    return int(arguments.action(arguments))


def _flushed(code: int) -> int:
    """Writes what is still held, or says why that cannot be; the exit code after it."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        pass
    except OSError as error:
        terminal.note(f"chorusctl: standard output: {error.strerror}")
        code = code or FAILED
    terminal.drop_output()
    return code


def _unexpected(error: Exception) -> str:
    """A fault of this program, or an answer that only an agent of another version gives."""
    if os.environ.get(TRACEBACK):
        return traceback.format_exc()
    place = traceback.extract_tb(error.__traceback__)[-1]
    where = f"{Path(place.filename).name}:{place.lineno}"
    said = visible(str(error))
    return (
        f"chorusctl: unexpected {type(error).__name__} at {where}: {said}; a fault of chorusctl, or "
        f"the answer of an agent of another version. With {TRACEBACK}=1 it shows more for a report"
    )


def build_parser() -> ArgumentParser:
    """The parser with all commands."""
    parser = ArgumentParser(
        prog="chorusctl", description="Local CHORUS meshes, tasks, and a look at the mesh."
    )
    parser.add_argument("--version", action="store_true", help="print the version and exit")
    commands = parser.add_subparsers(metavar="COMMAND", required=False)
    parser.set_defaults(action=lambda arguments: _bare(parser, arguments))
    _meshes(commands)
    _tasks(commands)
    _looks(commands)
    _hmmm(commands)
    _ucxl(commands)
    _config(commands)
    _dev(commands)
    return parser


def _meshes(commands: _SubParsersAction[ArgumentParser]) -> None:
    up = _command(commands, "up", "start a mesh of agents on this machine", _plain("up", "up"))
    up.add_argument("-n", dest="agents", type=_count, default=3, metavar="N", help="how many agents (3)")
    up.add_argument("--detach", action="store_true", help="return when the mesh is complete")
    down = _command(commands, "down", "stop a mesh that up started", _plain("up", "down"))
    down.add_argument("--purge", action="store_true", help="remove its data too")
    _command(
        commands, "doctor", "what is missing on this machine, and how to mend it", _plain("doctor", "doctor")
    )
    image_options.add(commands, partial(_plain, "images"), _common)
    scan = _command(commands, "scan", "look for secrets in files; needs no agent", _plain("scan", "scan"))
    scan.add_argument("path", metavar="PATH", help="a file, a folder, or - for what comes in")
    severities = ("low", "medium", "high", "critical")
    scan.add_argument("--severity", choices=severities, default="low", help="the least that counts (low)")
    scan.add_argument("--redact", action="store_true", help="print what comes in, without its secrets")
    scan.add_argument("--rules", metavar="FILE", help="YAML file with rules of your own")
    scan.add_argument("--allow", metavar="FILE", help="YAML file with exceptions")
    scan.add_argument(
        "--max-size", type=task_options.size, default="64MB", metavar="SIZE", help="largest file (64MB)"
    )
    scan.add_argument("--binary", action="store_true", help="look into binary files too")
    scan.add_argument("--git", action="store_true", help="look into the objects of .git too")
    completion = _command(commands, "completion", "print completion for a shell", _completion)
    completion.add_argument("shell", choices=("bash", "zsh", "fish"))


def _tasks(commands: _SubParsersAction[ArgumentParser]) -> None:
    run = _command(commands, "run", "run a command in a sandbox of the mesh", _asking("run", "run"))
    task_options.run(run)
    ask = _command(commands, "ask", "have a model reach a goal in a sandbox", _asking("ask", "ask"))
    task_options.ask(ask)
    task_options.say(_command(commands, "say", "say something to a goal that runs", _asking("say", "say")))
    _one(_command(commands, "show", "a task in short, its checks and patch", _asking("report", "show")))
    tasks = _command(commands, "tasks", "list tasks", _asking("show", "tasks"))
    tasks.add_argument("--state")
    tasks.add_argument("--agent")
    tasks.add_argument("--project")
    tasks.add_argument("--limit", type=int, default=50)
    _one(_command(commands, "task", "show one task as JSON", _asking("show", "task")))
    logs = _one(_command(commands, "logs", "print a task's output", _asking("run", "logs")))
    logs.add_argument("-f", "--follow", action="store_true", help="stay until the task ends")
    logs.add_argument("--raw", action="store_true", help="byte for byte, control characters too")
    logs.add_argument("--stream", choices=("stdout", "stderr", "both"), default="both")
    cancel = _one(_command(commands, "cancel", "cancel a task", _asking("show", "cancel")))
    cancel.add_argument("--reason", default="cancelled with chorusctl")
    _one(_command(commands, "retry", "offer an ended task again", _asking("show", "retry")))
    _one(_command(commands, "wait", "wait for a task's end; exit with its code", _asking("run", "wait")))
    rm = _command(
        commands, "rm", "remove the output and artifacts of tasks that have ended", _asking("show", "rm")
    )
    rm.add_argument("tasks", nargs="+", metavar="TASK", help="the task's id")
    artifacts = _one(
        _command(commands, "artifacts", "list or save artifacts", _asking("artifacts", "artifacts"))
    )
    artifacts.add_argument("path", nargs="?", help="only this one")
    artifacts.add_argument(
        "-o", "--output", metavar="FOLDER", help="save them here; - prints the one, or a tar of all"
    )


def _looks(commands: _SubParsersAction[ArgumentParser]) -> None:
    for name, text in (
        ("status", "the agent that answers, at a glance"),
        ("agents", "who can be given work"),
        ("peers", "whom the agent is connected to"),
        ("token", "print the bearer token of the API"),
    ):
        _command(commands, name, text, _asking("show", name))
    _command(commands, "reload", "have the agent load its assignment anew", _asking("show", "reload"))
    _members(commands)
    _election(commands)
    log = _command(commands, "log", "an agent's signed log, and whether it is genuine", _log)
    log.add_argument("-f", "--follow", action="store_true", help="stay, and print entries as they come")
    log.add_argument("-n", "--lines", type=int, default=20, metavar="N", help="the last N entries (20)")
    log.add_argument("--type", metavar="TYPE", help="only entries of this type")
    log.add_argument("--agent", metavar="AGENT", help="this agent's log, not that of the first to answer")
    log.add_argument("--verify", action="store_true", help="check every entry against the signature")
    log.add_argument("--dir", metavar="FOLDER", help="with --verify: a stopped agent's data folder")
    _decisions(commands)


def _members(commands: _SubParsersAction[ArgumentParser]) -> None:
    listed = _command(
        commands,
        "members",
        "who belongs to the mesh and who votes; changes to that",
        _asking("members", "members"),
    )
    listed.add_argument("--all", action="store_true", help="list those that were removed too")
    verbs = listed.add_subparsers(metavar="VERB", required=False)

    def verb(name: str, text: str, *, one_agent: bool) -> ArgumentParser:
        made = verbs.add_parser(name, help=text, description=text, argument_default=argparse.SUPPRESS)
        _common(made)
        made.add_argument("--yes", action="store_true", default=False, help="go on without a question")
        if one_agent:
            made.add_argument(
                "--agent", default=None, metavar="AGENT", help="this agent, not the first to answer"
            )
        made.set_defaults(action=_asking("members", name))
        return made

    removed = verb("remove", "remove a member for good", one_agent=False)
    removed.add_argument("id", metavar="ID", help="its agent id or peer id")
    removed.add_argument("--force", action="store_true", default=False, help="also while it is present")
    verb("rejoin", "have an agent leave its mesh for the other one that it meets", one_agent=True)
    recovered = verb(
        "recover", "found a new mesh from one agent's log, when a majority is lost for good", one_agent=True
    )
    recovered.add_argument(
        "--force",
        action="store_true",
        default=False,
        help="also where another agent has more of the log",
    )


def _election(commands: _SubParsersAction[ArgumentParser]) -> None:
    shown = _command(commands, "election", "who leads, and since when", _asking("show", "election"))
    verbs = shown.add_subparsers(metavar="VERB", required=False)
    text = "hand leadership over"
    made = verbs.add_parser("transfer", help=text, description=text, argument_default=argparse.SUPPRESS)
    _common(made)
    made.add_argument("to", metavar="AGENT", nargs="?", default=None, help="to this voter (the best one)")
    made.set_defaults(action=_asking("show", "transfer"))


def _decisions(commands: _SubParsersAction[ArgumentParser]) -> None:
    listed = _command(commands, "decisions", "list decision records", _asking("decisions", "decisions"))
    listed.add_argument("--limit", type=int, default=50)
    listed.add_argument("--task", metavar="TASK")
    listed.add_argument("--agent", help="only of this agent")
    listed.add_argument("--project")
    listed.add_argument("--kind", choices=("task_result", "hmmm_outcome", "vote"))
    listed.add_argument("--since", metavar="WHEN", help="a time, or how long ago: 2h, 7d")
    listed.add_argument("--text", metavar="WORDS", help="with all these words, best first")
    listed.add_argument("--graph", choices=("dot", "json"), help="print the links between them")
    one = _command(commands, "decision", "show or check a decision record", _decision)
    one.add_argument("verb", choices=("show", "verify"))
    one.add_argument("record", nargs="?", help="a file, or the hash or address of a record")
    one.add_argument("--key", metavar="PEER_ID", help="whose signature it has to be")
    one.add_argument("--all", action="store_true", help="verify: all records of the mesh")
    one.add_argument("--raw", action="store_true", help="show: byte for byte as signed, to be kept as a file")
    vote = _command(commands, "vote", "vote on a decision, or show its votes", _asking("decisions", "vote"))
    vote.add_argument("record", metavar="HASH", help="the hash or address of the decision")
    vote.add_argument("choice", nargs="?", choices=("approve", "reject", "abstain"))
    vote.add_argument("--reason", default="")
    vote.add_argument("--by", default="", metavar="NAME", help="who votes through the agent")
    vote.add_argument("--quorum", type=int, metavar="N", help="how many have to vote (a majority)")
    vote.add_argument("--open", metavar="DURATION", help="how long the first vote leaves it open (24h)")


def _hmmm(commands: _SubParsersAction[ArgumentParser]) -> None:
    text = "what agents say to each other about plans; your own word in it"
    listed = _command(commands, "hmmm", text, _asking("hmmm", "sessions"))
    listed.add_argument("--task", type=task_options.task_id, metavar="TASK", help="only of this task")
    listed.add_argument("--limit", type=int, default=50)
    verbs = listed.add_subparsers(metavar="VERB", required=False)

    def verb(name: str, function: str, text: str) -> ArgumentParser:
        made = verbs.add_parser(name, help=text, description=text, argument_default=argparse.SUPPRESS)
        _common(made)
        made.set_defaults(action=_asking("hmmm", function))
        return made

    listing = verb("list", "sessions", "list discussions")
    listing.add_argument("--task", type=task_options.task_id, metavar="TASK", help="only of this task")
    listing.add_argument("--limit", type=int)
    _session(verb("show", "show", "show a discussion"))
    _session(verb("follow", "follow", "print a discussion, or all, as they go on"), nargs="?", default=None)
    said = verb("say", "speak", "say something, as a person through the agent")
    _session(said)
    said.add_argument("message", metavar="TEXT", help="at most 4 KiB")
    intents = ("question", "answer", "update", "objection", "agreement")
    said.add_argument("--intent", choices=intents, default=None, help="what you mean by it")
    said.add_argument("--name", default="", metavar="NAME", help="who speaks (your user name)")
    said.add_argument("--to", default=None, metavar="MESSAGE", help="the message answered (the plan)")


def _session(parser: ArgumentParser, **more: Any) -> None:
    parser.add_argument("session", type=_session_id, metavar="SESSION", help="the discussion's id", **more)


def _ucxl(commands: _SubParsersAction[ArgumentParser]) -> None:
    ucxl = commands.add_parser("ucxl", help="what the mesh remembers, by address", description=_UCXL)
    # Said here or after the verb.
    _common(ucxl)
    verbs = ucxl.add_subparsers(metavar="VERB", required=True)

    def verb(name: str, text: str, address: str, **more: Any) -> ArgumentParser:
        made = verbs.add_parser(name, help=text, description=text, argument_default=argparse.SUPPRESS)
        _common(made)
        made.set_defaults(action=_asking("ucxl", name))
        made.add_argument("address", metavar=address, help="ucxl://agent:role@project:task/*^/path", **more)
        return made

    everywhere: dict[str, Any] = {"nargs": "?", "default": "ucxl://any:any@any:any/*^/"}
    get = verb("get", "print what lies at an address", "ADDRESS")
    get.add_argument("-o", "--output", metavar="FILE", default=None, help="save it here")
    get.add_argument("--raw", action="store_true", default=False, help="byte for byte on a terminal too")
    put = verb("put", "write a new version", "ADDRESS")
    put.add_argument("file", metavar="FILE", nargs="?", default="-", help="a file, or - for standard input")
    put.add_argument("--type", metavar="MEDIA", default="", help="its media type (guessed from the name)")
    put.add_argument("--create", action="store_true", default=False, help="only if nothing is there")
    put.add_argument("--after", type=int, metavar="N", default=None, help="only if the latest is version N")
    query = verb("query", "list what a pattern names", "PATTERN", **everywhere)
    query.add_argument("--text", metavar="WORDS", default=None, help="only content with these words")
    history = verb("history", "list the versions at an address", "ADDRESS")
    tree = verb("tree", "show addresses as a tree", "PATTERN", **everywhere)
    for listing, most in ((query, 50), (history, 50), (tree, 1000)):
        listing.add_argument("--limit", type=int, metavar="N", default=most, help=f"at most so many ({most})")
    follow = verb("follow", "print new versions as they come", "PATTERN", **everywhere)
    follow.add_argument("--since", type=int, metavar="INDEX", default=None, help="those after this index too")


def _config(commands: _SubParsersAction[ArgumentParser]) -> None:
    config = commands.add_parser("config", help="what an agent would make of its environment")
    _common(config)
    verbs = config.add_subparsers(metavar="VERB", required=True)
    codes = "Exit code 0: all is well; 1: an agent would not start; 2: the file cannot be read."
    for name, text in (
        ("check", "name every setting that is wrong, and what is expected"),
        ("show", "print every setting, its value and where that comes from; secrets are masked"),
    ):
        made = verbs.add_parser(
            name, help=text, description=f"{text}. {codes}", argument_default=argparse.SUPPRESS
        )
        _common(made)
        made.set_defaults(action=_plain("config", name))
        what = "variables as NAME=VALUE lines, as docker run takes them, instead of the environment"
        made.add_argument("--env-file", metavar="FILE", default=None, help=what)


def _dev(commands: _SubParsersAction[ArgumentParser]) -> None:
    dev = commands.add_parser("dev", help="programs for developing and testing CHORUS", description=_DEV)
    _common(dev)
    verbs = dev.add_subparsers(metavar="VERB", required=True)
    text = "serve a scripted model, which Ollama's clients and those of OpenAI's API take for a real one"
    model = verbs.add_parser("model", help=text, description=text, argument_default=argparse.SUPPRESS)
    _common(model)
    model.set_defaults(action=_plain("dev", "model"))
    what = "its replies, or a folder in which each goal.yaml has some; may be repeated"
    model.add_argument("--script", metavar="FILE", action="append", default=[], help=what)
    model.add_argument("--policy", choices=MODEL_POLICIES, default="oracle", help="how it behaves (oracle)")
    model.add_argument("--port", type=int, default=0, metavar="PORT", help="on 127.0.0.1 (0: any free one)")
    model.add_argument("--delay", type=float, default=0.0, metavar="S", help="seconds before each answer (0)")
    model.add_argument("--model", default="scripted", metavar="NAME", help="its name (scripted)")
    model.add_argument("--window", type=int, default=32768, metavar="TOKENS", help="its context (32768)")
    model.add_argument("--no-tools", action="store_true", default=False, help="it cannot call tools")
    kaching_options.add(verbs, partial(_plain, "kaching"), _common)

    text = "serve assignments as WHOOSH does, from files that may be edited while it runs"
    whoosh = verbs.add_parser("whoosh", help=text, description=text, argument_default=argparse.SUPPRESS)
    _common(whoosh)
    whoosh.set_defaults(action=_plain("dev", "whoosh"))
    what = "a folder: NAME.json answers for NAME, default.json for all others"
    whoosh.add_argument("folder", metavar="FOLDER", help=what)
    whoosh.add_argument("--port", type=int, default=0, metavar="PORT", help="on 127.0.0.1 (0: any free one)")
    whoosh.add_argument("--token", default="", metavar="TOKEN", help="ask for this bearer token")
    text = "serve a BACKBEAT server, the telemetry around a mesh, that misbehaves on command"
    backbeat = verbs.add_parser("backbeat", help=text, description=text, argument_default=argparse.SUPPRESS)
    _common(backbeat)
    backbeat.set_defaults(action=_plain("dev_backbeat", "serve"))
    backbeat.add_argument(
        "--port", type=int, default=0, metavar="PORT", help="on 127.0.0.1 (0: any free one)"
    )
    backbeat.add_argument("--cluster", metavar="ID", default="dev", help="whose pulse it is (dev)")
    what = "beats per minute, 0.1 to 1000 (2); 0: only on command"
    backbeat.add_argument("--tempo", type=_tempo, default=2.0, metavar="BPM", help=what)


def _tempo(text: str) -> float:
    tempo = float(text)
    if tempo and not 0.1 <= tempo <= 1000:
        raise argparse.ArgumentTypeError("0, or 0.1 to 1000 beats per minute")
    return tempo


_DEV = "Programs for developing and testing CHORUS itself; a mesh at work needs none of them."
_UCXL = "Read, write and follow what lies at UCXL addresses. `any` in an address stands for every name."

Action = Callable[[Namespace], int]


def _command(
    commands: _SubParsersAction[ArgumentParser], name: str, text: str, action: Action
) -> ArgumentParser:
    parser = commands.add_parser(name, help=text, description=text)
    _common(parser)
    parser.set_defaults(action=action)
    return parser


def _common(parser: ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--context", metavar="NAME", help="the mesh that up --context NAME started")


def _one(parser: ArgumentParser) -> ArgumentParser:
    parser.add_argument("task", type=task_options.task_id, metavar="TASK", help="the task's id")
    return parser


def _function(module: str, name: str) -> Any:
    # Loaded when it is wanted: help and completion answer at once.
    return getattr(import_module(f"chorus.ctl.{module}"), name)


def _plain(module: str, name: str) -> Action:
    return lambda arguments: int(_function(module, name)(arguments))


def _asking(module: str, name: str) -> Action:
    def action(arguments: Namespace) -> int:
        with _connect(arguments) as client:
            return int(_function(module, name)(client, arguments))

    return action


def _connect(arguments: Namespace) -> Any:
    contexts, client = import_module("chorus.ctl.contexts"), import_module("chorus.ctl.client")
    return client.Client(contexts.target(arguments.context, os.environ))


def _decision(arguments: Namespace) -> int:
    return int(_function("decisions", "decision")(arguments, lambda: _connect(arguments)))


def _log(arguments: Namespace) -> int:
    return int(_function("log", "log")(arguments, lambda: _connect(arguments)))


def _completion(arguments: Namespace) -> int:
    terminal.say_lines(_function("completion", "script")(build_parser(), arguments.shell).rstrip("\n"))
    return 0


def _bare(parser: ArgumentParser, arguments: Namespace) -> int:
    if arguments.version:
        from chorus import __version__

        terminal.say(f"chorusctl {__version__}")
        return 0
    parser.print_help(sys.stderr)
    return 2


def _session_id(text: str) -> str:
    from chorus.wire.ids import is_id

    if not is_id(text.upper()):
        raise argparse.ArgumentTypeError(
            "a discussion's id has 26 letters and digits; chorusctl hmmm lists them"
        )
    return text.upper()


def _count(text: str) -> int:
    count = int(text)
    if not 1 <= count <= AGENTS_MAX:
        raise argparse.ArgumentTypeError(f"1 to {AGENTS_MAX} agents, as a development licence allows")
    return count
