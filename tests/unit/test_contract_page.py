"""docs/contract.md names a test that exists for every line of the contract, and leaves out no name of it."""

from __future__ import annotations

import ast
import functools
import re
from pathlib import Path

import pytest

from chorus.agent import problems
from chorus.api import health
from chorus.config.variables import BY_NAME
from chorus.process.metrics import CONTRACT, REGISTERED
from chorus.wire import messages

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
NAMED = re.compile(r"`([\w/.]+\.(?:py|rs))::(\w+)`")
LINK = re.compile(r"\[[^\]]+\]\(([^)#]+)[^)]*\)")
LATER = re.compile(r"later: \S.*")

VARIABLES = (
    "CHORUS_LICENSE_ID", "CHORUS_AGENT_ID", "CHORUS_P2P_PORT", "CHORUS_API_PORT", "CHORUS_HEALTH_PORT",
    "CHORUS_DHT_ENABLED", "CHORUS_DHT_CACHE_SIZE", "CHORUS_BOOTSTRAP_PEERS", "CHORUS_AGENT_ROLE",
    "CHORUS_AGENT_EXPERTISE", "CHORUS_AGENT_REPORTS_TO", "CHORUS_AGENT_SPECIALIZATION",
    "CHORUS_AGENT_MAX_TASKS", "CHORUS_AI_PROVIDER", "OLLAMA_ENDPOINT", "RESETDATA_API_KEY",
    "RESETDATA_BASE_URL", "RESETDATA_MODEL", "ASSIGN_URL", "CHORUS_BACKBEAT_ENABLED",
    "CHORUS_BACKBEAT_ENDPOINT",
)  # fmt: skip
FLAGS = ("--help", "-h", "help", "--version", "-v")
TOPICS = (
    "chorus/tasks", "chorus/coordination/v1", "hmmm/meta-discussion/v1", "chorus/election/v1",
    "chorus/decisions", "chorus/health", "chorus/role/{role}", "chorus/expertise/{expertise}",
    "chorus/reports/{supervisor}",
)  # fmt: skip
ENDPOINTS = ("/healthz", "/ready", "/health", "/metrics")
ASSIGNED = (
    "agent_id", "role", "expertise", "reports_to", "max_tasks", "bootstrap_peers", "join_stagger_ms",
)  # fmt: skip
WORDS = ("SIGINT", "SIGTERM", "SIGHUP", "chorus-peer-discovery", "chorus-hap")
ERRORS = (
    problems.license_line("").removesuffix(": "),
    problems.docker_line("").removesuffix(": "),
    problems.bind_line("").removesuffix(": "),
)


def rows() -> list[list[str]]:
    """The cells of each row: line, pages, tests."""
    lines = (DOCS / "contract.md").read_text().splitlines()
    cells = [line.strip("|").split("|") for line in lines if line.startswith("|")]
    stripped = [[cell.strip() for cell in row] for row in cells]
    return [row for row in stripped if row[0] != "line" and set(row[0]) != {"-"}]


ROWS = rows()


@functools.cache
def names_in(path: str) -> frozenset[str]:
    """The names of the tests in a file of Python or Rust; none when there is no such file."""
    if not (ROOT / path).is_file():
        return frozenset()
    text = (ROOT / path).read_text()
    if path.endswith(".rs"):
        return frozenset(re.findall(r"#\[(?:tokio::)?test.*\](?:\s*#\[.*\])*\s*(?:async )?fn (\w+)\(", text))
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    found = (node.name for node in ast.walk(ast.parse(text)) if isinstance(node, kinds))
    return frozenset(name for name in found if name.startswith("test_"))


def fault_of(row: list[str]) -> str:
    """What is wrong with a row; empty when nothing is."""
    if len(row) != 3:
        return "a row has three cells"
    _, pages, tests = row
    if pages != "here" and not LINK.search(pages):
        return "no page is named"
    if LATER.fullmatch(tests):
        return ""
    named = NAMED.findall(tests)
    if not named or NAMED.sub("", tests).strip(", "):
        return "name tests as `path::name`, or say later and why"
    gone = [f"{path}::{name}" for path, name in named if name not in names_in(path)]
    return f"there is no {', '.join(gone)}" if gone else ""


def test_every_line_is_described_and_proven_or_later() -> None:
    assert ROWS
    faults = [(row[0], fault) for row in ROWS if (fault := fault_of(row))]
    assert not faults


@pytest.mark.parametrize(
    "row",
    [
        ["a", "here", ""],
        ["a", "", "`tests/unit/test_contract_page.py::test_no_line_stands_twice`"],
        ["a", "here", "`tests/unit/test_contract_page.py::test_nothing`"],
        ["a", "here", "`tests/unit/no_file.py::test_nothing`"],
        ["a", "here", "`rust/chorus_core/src/lib.rs::nothing`"],
        ["a", "here", "`tests/unit/test_contract_page.py::fault_of`"],
        ["a", "here", "later"],
        ["a", "here", "not proven"],
    ],
)
def test_what_is_no_row_is_told(row: list[str]) -> None:
    assert fault_of(row)
    assert not fault_of(["a", "here", "`tests/unit/test_contract_page.py::test_what_is_no_row_is_told`"])
    assert not fault_of(["a", "here", "later: it is not there yet"])


def test_every_page_that_is_linked_exists() -> None:
    for path in LINK.findall((DOCS / "contract.md").read_text()):
        assert (DOCS / path).is_file(), path


@pytest.mark.parametrize(
    "names",
    [VARIABLES, FLAGS, TOPICS, ENDPOINTS, ASSIGNED, WORDS, ERRORS, CONTRACT],
    ids=["variables", "flags", "topics", "endpoints", "assigned", "words", "errors", "metrics"],
)
def test_no_name_of_the_contract_is_left_out(names: tuple[str, ...]) -> None:
    lines = "\n".join(row[0] for row in ROWS)
    for name in names:
        assert re.search(rf"(?<![\w/-]){re.escape(name)}(?![\w/])", lines), name


def test_the_package_has_what_the_contract_names() -> None:
    assert set(VARIABLES) <= BY_NAME.keys()
    assert set(CONTRACT) <= set(REGISTERED)
    assert {getattr(route, "path", "") for route in health.router.routes} | {"/metrics"} == set(ENDPOINTS)
    assert {
        messages.TASKS, messages.COORDINATION, messages.META_DISCUSSION, messages.ELECTION,
        messages.DECISIONS, messages.HEALTH, messages.role_topic("{role}"),
        messages.expertise_topic("{expertise}"), messages.reports_topic("{supervisor}"),
    } == set(TOPICS)  # fmt: skip


def test_no_line_stands_twice() -> None:
    lines = [row[0] for row in ROWS]
    assert len(lines) == len(set(lines))
