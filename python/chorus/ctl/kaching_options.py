"""The words of `chorusctl dev kaching`."""

from __future__ import annotations

import argparse
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from typing import Any, Final

from chorus.config import units

# As chorus.dev.kaching.faults has them, without loading it.
FAULTS: Final = ("none", "slow", "silent", "closed", "error", "redirect", "garbage", "lying")
GARBAGE: Final = ("text", "no_token", "endless", "cut", "deep")

Action = Callable[[Namespace], int]


def add(verbs: Any, action: Callable[[str], Action], common: Callable[[ArgumentParser], None]) -> None:
    """Adds the command; `action` gives the function of `chorus.ctl.kaching` of that name."""
    text = "serve licences as KACHING does, and rule that server"
    kaching = verbs.add_parser("kaching", help=text, description=text)
    common(kaching)
    kaching.set_defaults(action=action("serve"))
    _data(kaching)
    kaching.add_argument("--port", type=int, default=0, metavar="PORT", help="on 127.0.0.1 (0: any free one)")
    parts = kaching.add_subparsers(metavar="PART")

    def verb(group: Any, name: str, text: str, function: str, **fixed: Any) -> ArgumentParser:
        parser: ArgumentParser = group.add_parser(name, help=text, description=text)
        common(parser)
        _data(parser)
        parser.set_defaults(action=action(function), **fixed)
        return parser

    def group(name: str, text: str) -> Any:
        return parts.add_parser(name, help=text, description=text).add_subparsers(
            metavar="VERB", required=True
        )

    licence = group("license", "licences")
    create = verb(licence, "create", "make a licence", "create")
    create.add_argument("id", metavar="ID", help="its id")
    create.add_argument("--cluster", default="cluster-1", metavar="NAME", help="its cluster (cluster-1)")
    create.add_argument("--secret", default=None, metavar="TEXT", help="the cluster's secret (made)")
    text = "agents bring the cluster's secret themselves"
    create.add_argument("--keep-secret", action="store_true", help=text)
    create.add_argument("--max-agents", type=int, default=10, metavar="N", help="how many seats (10)")
    create.add_argument("--lease", type=_duration, default=60.0, metavar="TIME", help="of a lease (60s)")
    create.add_argument(
        "--starts", type=_duration, default=None, metavar="TIME", help="valid after so long (now)"
    )
    create.add_argument(
        "--expires", type=_duration, default=None, metavar="TIME", help="valid for so long (ever)"
    )
    text = "what it allows, may be repeated (agent:run)"
    create.add_argument("--permission", action="append", default=[], metavar="NAME", help=text)
    verb(licence, "list", "list licences", "licenses")
    for name, text in (
        ("suspend", "refuse its agents until it is resumed"),
        ("resume", "end a suspension"),
        ("revoke", "refuse its agents for ever"),
    ):
        verb(licence, name, text, "set_state", verb=name).add_argument("id", metavar="ID", help="the licence")
    verb(group("lease", "leases"), "list", "list leases that have not run out", "leases")
    key = group("key", "the keys that sign")
    verb(key, "show", "print what agents pin: the key that signs, and the next one", "key")
    verb(key, "rotate", "sign with the next key, and make another next one", "rotate")
    fault = verb(parts, "fault", "misbehave towards agents, until told otherwise", "fault")
    fault.add_argument("fault", choices=FAULTS, help="how; none: behave")
    fault.add_argument("--times", type=int, default=None, metavar="N", help="for so many questions")
    fault.add_argument("--delay", type=_duration, default=15.0, metavar="TIME", help="slow: before an answer")
    fault.add_argument("--status", type=int, default=500, metavar="CODE", help="error: which (500)")
    fault.add_argument("--kind", choices=GARBAGE, default="text", help="garbage: of this kind (text)")
    text = 'lying: claims instead, such as {"max_agents": 99}; null leaves one out'
    fault.add_argument("--claims", default="{}", metavar="JSON", help=text)


def _data(parser: ArgumentParser) -> None:
    text = "the server's folder ($XDG_STATE_HOME/chorus/kaching)"
    parser.add_argument("--data", default=argparse.SUPPRESS, metavar="FOLDER", help=text)


def _duration(text: str) -> float:
    try:
        return units.parse_duration(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected {units.DURATION_FORM}") from None
