"""The command line of chorusctl: its words, and which function each of them is."""

from __future__ import annotations

import argparse
import os
import sys
from argparse import ArgumentParser, Namespace, _SubParsersAction
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

from chorus.ctl.problems import CANCELLED, CtlError

AGENTS_MAX = 16  # what a development licence allows


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code."""
    parser = build_parser()
    arguments = parser.parse_args(argv)
    try:
        code: int = arguments.action(arguments)
        sys.stdout.flush()
        return code
    except CtlError as error:
        print(f"chorusctl: {error}", file=sys.stderr)
        return error.code
    except KeyboardInterrupt:
        return CANCELLED
    except BrokenPipeError:
        # The reader (head, less) has seen enough. Python would complain when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


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
    scan = _command(commands, "scan", "look for secrets in files; needs no agent", _plain("scan", "scan"))
    scan.add_argument("path", metavar="PATH", help="a file, a folder, or - for what comes in")
    severities = ("low", "medium", "high", "critical")
    scan.add_argument("--severity", choices=severities, default="low", help="the least that counts (low)")
    scan.add_argument("--redact", action="store_true", help="print what comes in, without its secrets")
    scan.add_argument("--rules", metavar="FILE", help="YAML file with rules of your own")
    scan.add_argument("--allow", metavar="FILE", help="YAML file with exceptions")
    scan.add_argument("--max-size", type=_size, default="64MB", metavar="SIZE", help="largest file (64MB)")
    scan.add_argument("--binary", action="store_true", help="look into binary files too")
    scan.add_argument("--git", action="store_true", help="look into the objects of .git too")
    completion = _command(commands, "completion", "print completion for a shell", _completion)
    completion.add_argument("shell", choices=("bash", "zsh", "fish"))


def _tasks(commands: _SubParsersAction[ArgumentParser]) -> None:
    run = _command(commands, "run", "run a command in a sandbox of the mesh", _asking("run", "run"))
    run.add_argument("--dir", metavar="FOLDER", help="send this folder; the command starts in it")
    run.add_argument("--language", default="", help="choose the image by language")
    run.add_argument("--artifact", action="append", default=[], metavar="GLOB", help="keep these files")
    run.add_argument("--env", action="append", default=[], metavar="NAME=VALUE", help="set in the sandbox")
    run.add_argument("--timeout", type=float, metavar="SECONDS", help="kill the command after this")
    run.add_argument("--title", default="", help="what lists show")
    run.add_argument("--project", default="", help="what the task belongs to")
    run.add_argument("command", nargs=argparse.REMAINDER, metavar="-- COMMAND", help="the command")
    tasks = _command(commands, "tasks", "list tasks", _asking("show", "tasks"))
    tasks.add_argument("--state")
    tasks.add_argument("--agent")
    tasks.add_argument("--project")
    tasks.add_argument("--limit", type=int, default=50)
    _one(_command(commands, "task", "show one task as JSON", _asking("show", "task")))
    logs = _one(_command(commands, "logs", "print a task's output", _asking("run", "logs")))
    logs.add_argument("-f", "--follow", action="store_true", help="stay until the task ends")
    logs.add_argument("--stream", choices=("stdout", "stderr", "both"), default="both")
    cancel = _one(_command(commands, "cancel", "cancel a task", _asking("show", "cancel")))
    cancel.add_argument("--reason", default="cancelled with chorusctl")
    _one(_command(commands, "retry", "offer an ended task again", _asking("show", "retry")))
    _one(_command(commands, "wait", "wait for a task's end; exit with its code", _asking("run", "wait")))
    artifacts = _one(_command(commands, "artifacts", "list or save artifacts", _asking("show", "artifacts")))
    artifacts.add_argument("path", nargs="?", help="only this one")
    artifacts.add_argument("-o", "--output", metavar="FOLDER", help="save them here")


def _looks(commands: _SubParsersAction[ArgumentParser]) -> None:
    for name, text in (
        ("status", "the agent that answers, at a glance"),
        ("agents", "who can be given work"),
        ("peers", "whom the agent is connected to"),
        ("members", "who belongs to the mesh, and who votes"),
        ("election", "who leads, and since when"),
        ("token", "print the bearer token of the API"),
    ):
        _command(commands, name, text, _asking("show", name))
    decisions = _command(commands, "decisions", "list decision records", _asking("show", "decisions"))
    decisions.add_argument("--limit", type=int, default=50)
    decisions.add_argument("--task", metavar="TASK")
    decision = _command(commands, "decision", "check a decision record", _decision)
    decision.add_argument("verb", choices=("verify",))
    decision.add_argument("record", help="a file, or the hash or address of a record")


Action = Callable[[Namespace], int]


def _command(
    commands: _SubParsersAction[ArgumentParser], name: str, text: str, action: Action
) -> ArgumentParser:
    parser = commands.add_parser(name, help=text, description=text)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--context", metavar="NAME", help="the mesh that up --context NAME started")
    parser.set_defaults(action=action)
    return parser


def _one(parser: ArgumentParser) -> ArgumentParser:
    parser.add_argument("task", metavar="TASK", help="the task's id")
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
    return int(_function("decisions", "verify_decision")(arguments, lambda: _connect(arguments)))


def _completion(arguments: Namespace) -> int:
    print(_function("completion", "script")(build_parser(), arguments.shell), end="")
    return 0


def _bare(parser: ArgumentParser, arguments: Namespace) -> int:
    if arguments.version:
        from chorus import __version__

        print(f"chorusctl {__version__}")
        return 0
    parser.print_help(sys.stderr)
    return 2


def _size(text: str) -> int:
    from chorus.config.units import SIZE_FORM, parse_size

    try:
        return parse_size(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected {SIZE_FORM}") from None


def _count(text: str) -> int:
    count = int(text)
    if not 1 <= count <= AGENTS_MAX:
        raise argparse.ArgumentTypeError(f"1 to {AGENTS_MAX} agents, as a development licence allows")
    return count
