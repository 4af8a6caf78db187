"""What `run`, `ask` and `say` take on the command line, and the forms of the values."""

from __future__ import annotations

import argparse
import math
from argparse import ArgumentParser


def run(parser: ArgumentParser) -> None:
    """The arguments of `chorusctl run`."""
    _dir(parser, "the command starts in it")
    _sandbox(parser)
    _limits(parser)
    parser.add_argument(
        "-i",
        "--interactive",
        action="store_true",
        help="pass standard input to the command, all of it before it starts; without -i it reads nothing",
    )
    parser.add_argument("command", nargs=argparse.REMAINDER, metavar="-- COMMAND", help="the command")


def ask(parser: ArgumentParser) -> None:
    """The arguments of `chorusctl ask`."""
    parser.add_argument("goal", metavar="GOAL", help="what is to be reached, in words")
    _dir(parser, "the model works on a copy of it")
    for option, form, text in (
        ("--check", "COMMAND", "has to pass on the changed files; decides the outcome"),
        ("--setup", "COMMAND", "prepares the files, before all else"),
        ("--protect", "GLOB", "files that the checks take as they were sent"),
    ):
        parser.add_argument(option, action="append", default=[], metavar=form, help=text)
    parser.add_argument("--model", default="", metavar="NAME", help="only an agent with this model")
    parser.add_argument("--local-model", action="store_true", help="only a model on a private address")
    parser.add_argument("--steps", type=_whole, metavar="N", help="at most so many replies of the model")
    parser.add_argument("--tokens", type=_whole, metavar="N", help="at most so many tokens, read and written")
    parser.add_argument("--usd", type=_money, metavar="X", help="at most so many US dollars")
    parser.add_argument(
        "--continue", dest="continues", type=task_id, metavar="TASK", help="go on from an ended goal's patch"
    )
    parser.add_argument("--apply", action="store_true", help="change --dir so, when the checks passed")
    parser.add_argument(
        "--apply-unchecked", action="store_true", help="change --dir so, also when there are no checks"
    )
    parser.add_argument("--detach", action="store_true", help="print the task's id and do not wait for it")
    _sandbox(parser)
    _limits(parser)


def say(parser: ArgumentParser) -> None:
    """The arguments of `chorusctl say`."""
    parser.add_argument("task", type=task_id, metavar="TASK", help="the id of a goal that runs")
    parser.add_argument("text", metavar="TEXT", help="what it hears before its next step")
    parser.add_argument("--name", default="", help="who says it")


def _dir(parser: ArgumentParser, what_then: str) -> None:
    parser.add_argument(
        "--dir", metavar="FOLDER", help=f"send this folder less what git ignores; {what_then}"
    )
    parser.add_argument(
        "--include-secrets", action="store_true", help="with --dir: send files that are credentials too"
    )


def _sandbox(parser: ArgumentParser) -> None:
    parser.add_argument("--language", default="", help="choose the image by language")
    parser.add_argument("--artifact", action="append", default=[], metavar="GLOB", help="keep these files")
    parser.add_argument(
        "-o", "--output", metavar="FOLDER", help="save the artifacts here when the task has ended"
    )
    parser.add_argument("--env", action="append", default=[], metavar="NAME=VALUE", help="set in the sandbox")
    parser.add_argument(
        "--secret",
        action="append",
        default=[],
        metavar="NAME[@FILE]",
        help="a variable of the sandbox, sealed on its way: its value is that of NAME here, or in FILE",
    )
    parser.add_argument("--title", default="", help="what lists show")
    parser.add_argument("--project", default="", help="what the task belongs to")


def _limits(parser: ArgumentParser) -> None:
    parser.add_argument("--timeout", type=_seconds, metavar="SECONDS", help="end it after this (900)")
    parser.add_argument("--cpus", type=_cores, metavar="N", help="cores that it may use (1)")
    parser.add_argument("--memory", type=size, metavar="SIZE", help="memory that it may use (1GB)")
    parser.add_argument(
        "--disk", type=size, metavar="SIZE", help="what /workspace, /tmp, /dev/shm hold each (2GB)"
    )
    parser.add_argument("--pids", type=int, metavar="N", help="processes and threads at a time (128)")


def task_id(text: str) -> str:
    """A task's id, in its plain form."""
    from chorus.wire.ids import is_id

    if not is_id(text.upper()):
        raise argparse.ArgumentTypeError("a task's id has 26 letters and digits; chorusctl tasks lists them")
    return text.upper()


def size(text: str) -> int:
    """A size in bytes, of a number with a unit."""
    from chorus.config.units import SIZE_FORM, parse_size

    try:
        return parse_size(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected {SIZE_FORM}") from None


def _seconds(text: str) -> float:
    return _above_zero(text, "a number of seconds above 0")


def _cores(text: str) -> float:
    return _above_zero(text, "a number of cores such as 2 or 0.5")


def _money(text: str) -> float:
    return _above_zero(text, "a number of US dollars such as 0.5")


def _above_zero(text: str, form: str) -> float:
    number = float(text)
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"expected {form}")
    return number


def _whole(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("expected a whole number of 1 or more")
    return number
