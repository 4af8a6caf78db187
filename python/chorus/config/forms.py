"""The forms that values of settings have: what each is called, and the function that reads it. Pure."""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from chorus.config import units
from chorus.config.setting import Form
from chorus.license import keys
from chorus.wire.languages import canonical

NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
# A role, an expertise or a specialization becomes part of a topic's name.
WORD: Final = re.compile(r"[A-Za-z0-9_.+#-]{1,64}")
_IP = r"/ip4/\d{1,3}(?:\.\d{1,3}){3}|/ip6/[0-9A-Fa-f:.]+"
_DNS = r"/dns[46]?/[A-Za-z0-9._-]{1,253}"
_DOCKER_HOST = re.compile(r"unix:///\S+|(?:tcp|https?)://[^\s/?#]+/?")
_MULTIADDR = re.compile(rf"(?:{_IP}|{_DNS})/tcp/(\d{{1,5}})(?:/p2p/[1-9A-HJ-NP-Za-km-z]{{40,64}})?")
# A model as its provider calls it, such as llama3.1:8b or org/model.
_MODEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:/@+-]{0,127}")
# It travels in a header.
_API_KEY = re.compile(r"[!-~]{1,4096}")
_API_TOKEN = re.compile(r"[!-~]{16,}")

PORT_MAX: Final = 65_535
# Of a million tokens.
PRICE_MAX_USD: Final = 1_000_000

Parser = Callable[[str], Any]


def _as_it_is(text: str) -> str:
    return text


def _matching(pattern: re.Pattern[str]) -> Parser:
    def parse(text: str) -> str:
        if not pattern.fullmatch(text):
            raise ValueError(text)
        return text

    return parse


def _from_to(least: int, most: int) -> Parser:
    def parse(text: str) -> int:
        if not re.fullmatch(r"\d{1,9}", text) or not least <= int(text) <= most:
            raise ValueError(text)
        return int(text)

    return parse


def _at_least(least: float, parse: Parser) -> Parser:
    def parse_at_least(text: str) -> Any:
        value = parse(text)
        if value < least:
            raise ValueError(text)
        return value

    return parse_at_least


def _items(parse_item: Parser) -> Parser:
    def parse(text: str) -> tuple[Any, ...]:
        items = (item.strip() for item in text.split(","))
        return tuple(dict.fromkeys(parse_item(item) for item in items if item))

    return parse


def _folder(text: str) -> Path:
    try:
        return Path(text).expanduser().absolute()
    except RuntimeError as error:  # ~ of a user without a home
        raise ValueError(str(error)) from None


def _multiaddr(text: str) -> str:
    match = _MULTIADDR.fullmatch(text)
    if not match or not 0 < int(match[1]) <= PORT_MAX:
        raise ValueError(text)
    if text.startswith(("/ip4/", "/ip6/")):
        ipaddress.ip_address(text.split("/")[2])
    return text


def _host(text: str) -> str:
    return str(ipaddress.ip_address(text.strip("[]")))


def _host_or_localhost(text: str) -> str:
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


def _server(*schemes: str) -> Parser:
    def parse(text: str) -> str:
        parts = urlsplit(text)
        # A name and a password would be shown with the address; a query or fragment has no meaning there.
        if parts.scheme not in schemes or not parts.hostname or "@" in parts.netloc:
            raise ValueError(text)
        if parts.query or parts.fragment or not re.fullmatch(r"[!-~]+", text):
            raise ValueError(text)
        _ = parts.port  # raises ValueError for one that is none
        return text.rstrip("/")

    return parse


_endpoint = _server("http", "https")


def _assign_url(text: str) -> str:
    parts = urlsplit(text)
    if parts.fragment or "@" in parts.netloc or not re.fullmatch(r"[!-~]+", text):
        raise ValueError(text)
    if parts.scheme == "file":
        if parts.netloc not in ("", "localhost") or not parts.path.startswith("/") or parts.query:
            raise ValueError(text)
    elif parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(text)
    _ = parts.port  # raises ValueError for one that is none
    return text


def _service(text: str) -> str:
    address = str(_endpoint(text))
    if not address.startswith("https://") and not is_loopback(urlsplit(address).hostname or ""):
        raise ValueError(text)
    return address


def is_loopback(host: str) -> bool:
    """Whether a URL's host is this machine alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _prices(text: str) -> dict[str, tuple[float, float]]:
    said = json.loads(text)
    if not isinstance(said, dict):
        raise ValueError(text)
    prices = {}
    for model, price in said.items():
        if not _MODEL.fullmatch(model) or not isinstance(price, dict) or price.keys() != {"in", "out"}:
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


def text(words: str) -> Form:
    """Any text."""
    return Form(words, _as_it_is)


def folder(words: str = "a folder") -> Form:
    """A path, made absolute; None where nothing is set."""
    return Form(words, _folder, None)


def one_of(*choices: str, words: str = "", **also: str) -> Form:
    """One of these words, in any case; `also` are other words for some of them."""

    def parse(text: str) -> str:
        word = also.get(text.lower(), text.lower())
        if word not in choices:
            raise ValueError(text)
        return word

    return Form(words or f"{', '.join(choices[:-1])} or {choices[-1]}", parse)


def whole(least: int, most: int, words: str = "") -> Form:
    """A whole number; None where nothing is set."""
    return Form(words or f"a whole number from {least} to {most}", _from_to(least, most), None)


def number(least: float, most: float, words: str) -> Form:
    """A number without a sign; None where nothing is set."""

    def parse(text: str) -> float:
        if not re.fullmatch(r"\d+(\.\d+)?", text) or not least <= float(text) <= most:
            raise ValueError(text)
        return float(text)

    return Form(words, parse, None)


def duration(least: str) -> Form:
    """Seconds, at least so many, written as durations are."""
    parse = _at_least(units.parse_duration(least), units.parse_duration)
    return Form(f"{units.DURATION_FORM}, at least {least}", parse)


def size(least: str) -> Form:
    """Bytes, at least so many, written as sizes are."""
    return Form(f"{units.SIZE_FORM}, at least {least}", _at_least(units.parse_size(least), units.parse_size))


def many(words: str, item: Parser = _as_it_is) -> Form:
    """A list with commas, as a tuple without doubles."""
    return Form(f"comma-separated {words}", _items(item), ())


NAME_WORDS: Final = "1 to 64 letters, digits, _ or -"
WORD_WORDS: Final = "1 to 64 letters, digits or _ . + # -"

LICENSE_ID: Final = Form("a licence id such as dev-123", str.strip)
SWITCH: Final = Form(units.SWITCH_FORM, units.parse_switch)
PORT: Final = whole(0, PORT_MAX, f"a port from 0 to {PORT_MAX} (0: any free port), such as 9000")
A_NAME: Final = Form(NAME_WORDS, _matching(NAME))
AGENT_ID: Final = Form(f"an agent id: {NAME_WORDS}", _matching(NAME))
A_WORD: Final = Form(WORD_WORDS, _matching(WORD))
WORDS: Final = Form(f"comma-separated, each {WORD_WORDS}", _items(_matching(WORD)), ())
HOST: Final = Form("an IP address such as 127.0.0.1", _host_or_localhost)
HOSTS: Final = many("IP addresses such as 0.0.0.0,::", _host)
HOST_PORTS: Final = many("host:port", _host_port)
MULTIADDRS: Final = many(
    "multiaddrs such as /ip4/192.168.1.100/tcp/9000/p2p/12D3KooW… or /dns4/HOST/tcp/9000", _multiaddr
)
GRANTS: Final = many("READER:ROLE such as qa:developer", _grant)
DOCKER_HOST: Final = Form("unix:///path or tcp://host:port", _matching(_DOCKER_HOST), None)
ENDPOINT: Final = Form("a URL such as https://host:port, without a user or a query", _endpoint)
BACKBEAT: Final = Form(
    "an http, https or nats URL such as nats://host:4222, without a user or a query",
    _server("http", "https", "nats"),
)
# Secrets go over TLS, or do not leave the machine.
SERVICE: Final = Form("an https URL, or an http URL on this machine such as http://127.0.0.1:8090", _service)
KEYS: Final = Form(
    "an Ed25519 public key (PEM, base64, hexadecimal or JWK), or several, comma-separated, each as KID=KEY",
    keys.normal,
)
MODEL: Final = Form("a model's name such as llama3.1:8b", _matching(_MODEL))
API_KEY: Final = Form("a key: visible characters", _matching(_API_KEY))
TOKEN: Final = Form("a token: visible characters", _matching(_API_KEY))
ASSIGN_URL: Final = Form(
    "an https, http or file URL such as https://host/assignments/agent-1.json, without a user", _assign_url
)
API_TOKEN: Final = Form("at least 16 visible characters", _matching(_API_TOKEN))
IMAGES: Final = Form(
    'a JSON object from language to image, such as {"python": "IMAGE"}, each language once', _images
)
PRICES: Final = Form(
    'a JSON object from model to USD per million tokens, such as {"MODEL": {"in": 3, "out": 15}}', _prices, {}
)
