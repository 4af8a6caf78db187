"""Every environment variable the agent knows: its default, the form it takes and how it is read.

Names and defaults are an interface. What a value means for the settings as a whole is `load`'s.
"""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from chorus.config import units
from chorus.wire.languages import canonical

NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
# A role, an expertise or a specialization becomes part of a topic's name.
WORD = re.compile(r"[A-Za-z0-9_.+#-]{1,64}")
_IP = r"/ip4/\d{1,3}(?:\.\d{1,3}){3}|/ip6/[0-9A-Fa-f:.]+"
_DNS = r"/dns[46]?/[A-Za-z0-9._-]{1,253}"
DOCKER_HOST = re.compile(r"unix:///\S+|(?:tcp|https?)://[^\s/?#]+/?")
MULTIADDR = re.compile(rf"(?:{_IP}|{_DNS})/tcp/(\d{{1,5}})(?:/p2p/[1-9A-HJ-NP-Za-km-z]{{40,64}})?")

# A model as its provider calls it, such as llama3.1:8b or org/model.
MODEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:/@+-]{0,127}")
# It travels in a header.
API_KEY = re.compile(r"[!-~]{1,4096}")

PROVIDERS = ("ollama", "resetdata")
STEPS_MAX = 10_000
TOKENS_MAX = 999_999_999
# With less, prompt and tools leave no room to work in.
CONTEXT_MIN = 2_048
CONTEXT_MAX = 10_000_000
# Of a million tokens.
PRICE_MAX_USD = 1_000_000

PORT_MAX = 65_535
TASKS_MAX = 1_000
# Five votes carry a mesh of a hundred; more only cost the leader.
VOTERS_MAX = 31
WARM_MAX = 64
# Sources and inputs of tasks: some thousand of usual size.
BLOBS_BYTES = 16 * 1024 * 1024 * 1024

DEFAULT_IMAGES = {
    "base": "anthonyrawlins/chorus-base:latest",
    "python": "anthonyrawlins/chorus-python-dev:latest",
    "node": "anthonyrawlins/chorus-node-dev:latest",
    "javascript": "anthonyrawlins/chorus-node-dev:latest",
    "typescript": "anthonyrawlins/chorus-node-dev:latest",
    "rust": "anthonyrawlins/chorus-rust-dev:latest",
    "go": "anthonyrawlins/chorus-go-dev:latest",
    "java": "anthonyrawlins/chorus-java-dev:latest",
    "c": "anthonyrawlins/chorus-cpp-dev:latest",
    "cpp": "anthonyrawlins/chorus-cpp-dev:latest",
}

Parser = Callable[[str], Any]


@dataclass(frozen=True, slots=True)
class Variable:
    """One variable. An empty value counts as unset."""

    name: str
    parse: Parser
    form: str
    default: Any
    secret: bool = False
    # Accepted and checked, but without effect in this version.
    later: bool = False


def _text(text: str) -> str:
    return text


def _matching(pattern: re.Pattern[str]) -> Parser:
    def parse(text: str) -> str:
        if not pattern.fullmatch(text):
            raise ValueError(text)
        return text

    return parse


def _whole(least: int, most: int) -> Parser:
    def parse(text: str) -> int:
        if not re.fullmatch(r"\d{1,9}", text) or not least <= int(text) <= most:
            raise ValueError(text)
        return int(text)

    return parse


def _number(least: float, most: float) -> Parser:
    def parse(text: str) -> float:
        if not re.fullmatch(r"\d+(\.\d+)?", text) or not least <= float(text) <= most:
            raise ValueError(text)
        return float(text)

    return parse


def _duration(least: float) -> Parser:
    def parse(text: str) -> float:
        seconds = units.parse_duration(text)
        if seconds < least:
            raise ValueError(text)
        return seconds

    return parse


def _size(least: int) -> Parser:
    def parse(text: str) -> int:
        size = units.parse_size(text)
        if size < least:
            raise ValueError(text)
        return size

    return parse


def _one_of(*words: str) -> Parser:
    def parse(text: str) -> str:
        if text.lower() not in words:
            raise ValueError(text)
        return text.lower()

    return parse


def _list_of(parse_item: Parser) -> Parser:
    def parse(text: str) -> tuple[Any, ...]:
        items = (item.strip() for item in text.split(","))
        return tuple(dict.fromkeys(parse_item(item) for item in items if item))

    return parse


def _multiaddr(text: str) -> str:
    match = MULTIADDR.fullmatch(text)
    if not match or not 0 < int(match[1]) <= PORT_MAX:
        raise ValueError(text)
    if text.startswith(("/ip4/", "/ip6/")):
        ipaddress.ip_address(text.split("/")[2])
    return text


def _host(text: str) -> str:
    return str(ipaddress.ip_address(text.strip("[]")))


def _bind_host(text: str) -> str:
    return "127.0.0.1" if text == "localhost" else _host(text)


def _host_port(text: str) -> str:
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) <= PORT_MAX:
        raise ValueError(text)
    return text


def _grant(text: str) -> tuple[str, str]:
    reader, _, role = text.partition(":")
    if not (NAME.fullmatch(reader) and NAME.fullmatch(role)):
        raise ValueError(text)
    return reader, role


def _url(*schemes: str) -> Parser:
    return _matching(re.compile(rf"(?:{'|'.join(schemes)})://[^\s/?#]+\S*"))


def _endpoint(text: str) -> str:
    parts = urlsplit(text)
    # A name and a password would be shown with the address; a query or fragment has no meaning there.
    if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
        raise ValueError(text)
    if parts.query or parts.fragment or not re.fullmatch(r"[!-~]+", text):
        raise ValueError(text)
    _ = parts.port  # raises ValueError for one that is none
    return text.rstrip("/")


def _prices(text: str) -> dict[str, tuple[float, float]]:
    said = json.loads(text)
    if not isinstance(said, dict):
        raise ValueError(text)
    prices = {}
    for model, price in said.items():
        if not MODEL.fullmatch(model) or not isinstance(price, dict) or price.keys() != {"in", "out"}:
            raise ValueError(text)
        if not all(type(usd) in (int, float) and 0 <= usd < PRICE_MAX_USD for usd in price.values()):
            raise ValueError(text)
        prices[model] = (float(price["in"]), float(price["out"]))
    return prices


def _images(text: str) -> dict[str, str]:
    images = json.loads(text)
    if not isinstance(images, dict) or not all(isinstance(value, str) and value for value in images.values()):
        raise ValueError(text)
    named = {canonical(language): image for language, image in images.items()}
    if len(named) != len(images):
        raise ValueError(text)  # one language under two of its names
    return named


def _log_level(text: str) -> str:
    level = text.lower()
    level = {"warn": "warning"}.get(level, level)
    return str(_one_of("debug", "info", "warning", "error")(level))


_PORT_FORM = f"a port from 0 to {PORT_MAX} (0: any free port), such as 9000"
_NAME_FORM = "1 to 64 letters, digits, _ or -"
_WORD_FORM = "1 to 64 letters, digits or _ . + # -"
_MULTIADDR_FORM = (
    "comma-separated multiaddrs such as /ip4/192.168.1.100/tcp/9000/p2p/12D3KooW… or /dns4/HOST/tcp/9000"
)
_URL_FORM = "a URL such as https://host:port/"
_ENDPOINT_FORM = "a URL such as https://host:port, without a user or a query"
_MODEL_FORM = "a model's name such as llama3.1:8b"
_MIB = 1 << 20


def _switch(name: str, default: bool, *, later: bool = False) -> Variable:
    return Variable(name, units.parse_switch, units.SWITCH_FORM, default, later=later)


def _span(name: str, default: float, least: float, least_text: str, *, later: bool = False) -> Variable:
    return Variable(
        name, _duration(least), f"{units.DURATION_FORM}, at least {least_text}", default, later=later
    )


def _port(name: str, default: int) -> Variable:
    return Variable(name, _whole(0, PORT_MAX), _PORT_FORM, default)


VARIABLES: tuple[Variable, ...] = (
    Variable("CHORUS_LICENSE_ID", _text, "a licence id such as dev-123", ""),
    Variable("CHORUS_AGENT_ID", _matching(NAME), _NAME_FORM, ""),
    Variable("CHORUS_MODE", _one_of("agent"), "agent (hap comes in a later version)", "agent"),
    Variable("CHORUS_DATA_DIR", _text, "a folder", ""),
    Variable("CHORUS_RUN_DIR", _text, "a folder with a short path", ""),
    Variable("CHORUS_LOG_LEVEL", _log_level, "debug, info, warning or error", "info"),
    Variable("CHORUS_LOG_FORMAT", _one_of("auto", "json", "text"), "auto, json or text", "auto"),
    Variable("DOCKER_HOST", _matching(DOCKER_HOST), "unix:///path or tcp://host:port", None),
    # Network
    _port("CHORUS_P2P_PORT", 9000),
    _port("CHORUS_API_PORT", 8080),
    _port("CHORUS_HEALTH_PORT", 8081),
    Variable("CHORUS_P2P_HOST", _list_of(_host), "comma-separated IP addresses such as 0.0.0.0,::", ()),
    Variable("CHORUS_API_HOST", _bind_host, "an IP address such as 127.0.0.1", "127.0.0.1"),
    Variable("CHORUS_BOOTSTRAP_PEERS", _list_of(_multiaddr), _MULTIADDR_FORM, ()),
    _switch("CHORUS_MDNS_ENABLED", True),
    _switch("CHORUS_DHT_ENABLED", True),
    Variable("CHORUS_DHT_CACHE_SIZE", _size(_MIB), f"{units.SIZE_FORM}, at least 1MB", 100 * _MIB),
    Variable("CHORUS_BLOBS_SIZE", _size(_MIB), f"{units.SIZE_FORM}, at least 1MB", BLOBS_BYTES),
    # Who the agent is and whom it trusts
    Variable("CHORUS_CLUSTER_ID", _matching(NAME), _NAME_FORM, ""),
    Variable("CHORUS_CLUSTER_SECRET", _text, "a secret of at least 24 bytes", "", secret=True),
    Variable(
        "CHORUS_API_TOKEN",
        _matching(re.compile(r"[!-~]{16,}")),
        "at least 16 visible characters",
        "",
        secret=True,
    ),
    Variable("CHORUS_KACHING_URL", _url("https?"), _URL_FORM, ""),
    Variable("CHORUS_KACHING_PUBLIC_KEY", _text, "an Ed25519 public key", "", secret=True, later=True),
    Variable("CHORUS_ROLE_KEYS_FILE", _text, "a file with the keys of the roles", ""),
    Variable("CHORUS_ROLE_GRANTS", _list_of(_grant), "comma-separated READER:ROLE such as qa:developer", ()),
    _span("CHORUS_LICENSE_GRACE", 86_400.0, 0.0, "0s", later=True),
    Variable("CHORUS_AGENT_ROLE", _matching(NAME), _NAME_FORM, ""),
    Variable("CHORUS_AGENT_EXPERTISE", _list_of(_matching(WORD)), f"comma-separated, each {_WORD_FORM}", ()),
    Variable("CHORUS_AGENT_REPORTS_TO", _matching(NAME), f"an agent id: {_NAME_FORM}", ""),
    Variable("CHORUS_AGENT_SPECIALIZATION", _matching(WORD), _WORD_FORM, "general"),
    # Mesh and tasks
    Variable("CHORUS_AGENT_MAX_TASKS", _whole(1, TASKS_MAX), f"a whole number from 1 to {TASKS_MAX}", 3),
    _span("CHORUS_ELECTION_HEARTBEAT", 5.0, 0.1, "100ms"),
    _span("CHORUS_ELECTION_TIMEOUT", 15.0, 0.3, "300ms"),
    Variable("CHORUS_VOTERS", _whole(1, VOTERS_MAX), f"a whole number from 1 to {VOTERS_MAX}", 5),
    _span("CHORUS_MEMBER_ABSENCE", 600.0, 1.0, "1s"),
    # Whether an agent of a mesh that is gone joins another one that it meets; the image says true.
    _switch("CHORUS_REJOIN", False),
    _span("CHORUS_ELECTION_JOIN_WAIT", 3.0, 0.0, "0s"),
    Variable("CHORUS_LEADERLESS", _one_of("run", "wait"), "run or wait", "run", later=True),
    _span("CHORUS_TASK_LEASE", 30.0, 0.6, "600ms"),
    _span("CHORUS_SHUTDOWN_TIMEOUT", 300.0, 0.0, "0s"),
    _span("CHORUS_RETENTION", 30 * 86_400.0, 0.0, "0s"),
    # Sandboxes
    Variable(
        "CHORUS_SANDBOX_IMAGES",
        _images,
        'a JSON object from language to image, such as {"python": "IMAGE"}, each language once',
        None,
    ),
    Variable("CHORUS_SANDBOX_ALLOW", _list_of(_text), "comma-separated images", ()),
    Variable("CHORUS_SANDBOX_CPUS", _number(0.01, 1024), "a number of cores such as 2 or 0.5", 2.0),
    Variable("CHORUS_SANDBOX_MEMORY", _size(8 * _MIB), f"{units.SIZE_FORM}, at least 8MB", 2048 * _MIB),
    Variable("CHORUS_SANDBOX_PIDS", _whole(8, 1_000_000), "a whole number of at least 8", 256),
    Variable("CHORUS_SANDBOX_DISK", _size(_MIB), f"{units.SIZE_FORM}, at least 1MB", 4096 * _MIB),
    Variable("CHORUS_SANDBOX_EGRESS", _list_of(_host_port), "comma-separated host:port", (), later=True),
    Variable("CHORUS_SANDBOX_WARM", _whole(0, WARM_MAX), f"a whole number from 0 to {WARM_MAX}", 1),
    # Memory and talk
    _switch("CHORUS_HMMM_ENABLED", True),
    _switch("CHORUS_UCXI_ENABLED", True),
    _span("CHORUS_HMMM_PERIOD", 30.0, 0.0, "0s"),
    _span("CHORUS_HMMM_ESCALATION", 600.0, 0.0, "0s"),
    # Models
    Variable("CHORUS_AI_PROVIDER", _one_of("none", *PROVIDERS), "none, ollama or resetdata", "ollama"),
    Variable("CHORUS_AI_FALLBACK", _one_of("none", *PROVIDERS), "none, ollama or resetdata", "none"),
    Variable("CHORUS_AI_MAX_STEPS", _whole(1, STEPS_MAX), f"a whole number from 1 to {STEPS_MAX}", 25),
    Variable(
        "CHORUS_AI_MAX_TOKENS",
        _whole(1, TOKENS_MAX),
        f"a whole number of tokens from 1 to {TOKENS_MAX}",
        1_000_000,
    ),
    Variable(
        "CHORUS_AI_MAX_USD",
        _number(0.001, 1_000_000),
        "a number of USD of at least 0.001, such as 2 or 0.5",
        None,
    ),
    _span("CHORUS_AI_TIMEOUT", 120.0, 1.0, "1s"),
    # Unset: what is usual for the provider.
    Variable(
        "CHORUS_AI_CONTEXT",
        _whole(CONTEXT_MIN, CONTEXT_MAX),
        f"a whole number of tokens from {CONTEXT_MIN} to {CONTEXT_MAX}",
        None,
    ),
    Variable(
        "CHORUS_AI_PRICES",
        _prices,
        'a JSON object from model to USD per million tokens, such as {"MODEL": {"in": 3, "out": 15}}',
        {},
    ),
    Variable("CHORUS_AI_DAILY_USD", _number(0, 1_000_000), "a number of USD such as 5 or 0.5", None),
    Variable("CHORUS_PROMPTS_DIR", _text, "a folder", "/prompts"),
    Variable("OLLAMA_ENDPOINT", _endpoint, _ENDPOINT_FORM, "http://localhost:11434"),
    Variable("OLLAMA_MODEL", _matching(MODEL), _MODEL_FORM, "llama3.1:8b"),
    Variable("RESETDATA_API_KEY", _matching(API_KEY), "a key: visible characters", "", secret=True),
    Variable("RESETDATA_BASE_URL", _endpoint, _ENDPOINT_FORM, ""),
    Variable("RESETDATA_MODEL", _matching(MODEL), _MODEL_FORM, ""),
    Variable("CHORUS_SHHH_RULES_FILE", _text, "a YAML file of rules and exceptions for the sentinel", ""),
    # Services around the mesh: none in this version
    Variable("ASSIGN_URL", _url("https?"), _URL_FORM, "", later=True),
    _switch("CHORUS_BACKBEAT_ENABLED", False, later=True),
    Variable(
        "CHORUS_BACKBEAT_ENDPOINT", _url("https?", "nats"), "an http, https or nats URL", "", later=True
    ),
    Variable("CHORUS_FETCH_ALLOW", _list_of(_text), "comma-separated hosts", (), later=True),
    Variable("CHORUS_FETCH_CREDENTIALS_FILE", _text, "a file", "", later=True),
)

# Read by other programs of the package, or set for the agent's own processes.
ELSEWHERE = frozenset(
    {"CHORUS_API_URL", "CHORUS_ALIVE", "CHORUS_EVENTS", "CHORUS_CACHE", "CHORUS_CONTEXT", "CHORUS_BIN"}
)

BY_NAME: dict[str, Variable] = {variable.name: variable for variable in VARIABLES}
SECRETS = frozenset(variable.name for variable in VARIABLES if variable.secret)
