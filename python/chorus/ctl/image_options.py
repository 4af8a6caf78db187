"""The words of `chorusctl images`."""

from __future__ import annotations

import argparse
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from typing import Any

Action = Callable[[Namespace], int]


def add(commands: Any, action: Callable[[str], Action], common: Callable[[ArgumentParser], None]) -> None:
    """Adds the command; `action` gives the function of `chorus.ctl.images` of that name."""
    text = "the images that tasks run in"
    images = commands.add_parser("images", help=text, description=text)
    common(images)
    verbs = images.add_subparsers(metavar="VERB", required=True)

    def verb(name: str, function: str, text: str) -> ArgumentParser:
        parser: ArgumentParser = verbs.add_parser(
            name, help=text, description=text, argument_default=argparse.SUPPRESS
        )
        common(parser)
        parser.set_defaults(action=action(function))
        return parser

    built = verb("build", "build", "build them from Debian's packages; needs mmdebstrap, no image registry")
    _languages(built)
    built.add_argument("--suite", default="bookworm", metavar="NAME", help="the release of Debian (bookworm)")
    what = "where Debian's packages come from, a URL or a line of sources.list (mmdebstrap's own choice)"
    built.add_argument("--mirror", default="", metavar="URL", help=what)
    _languages(verb("pull", "pull", "pull them from their registry"))
    verb("list", "listed", "list them, and whether they are here")


def _languages(parser: ArgumentParser) -> None:
    what = "languages (base python), or all"
    parser.add_argument("languages", nargs="*", default=[], metavar="LANGUAGE", help=what)
