"""Which mesh a command is for: the environment, a context made by `up`, or the agent on the default port.

A context's folder is its user's alone; what is secret lies in files of its own, never in `context.json`.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import httpx

from chorus.config.files import write_private
from chorus.ctl.problems import USAGE, CtlError
from chorus.license import shown

DEFAULT_NAME: Final = "local"
DEFAULT_URL: Final = "http://127.0.0.1:8080"
DEFAULT_API_PORT: Final = 8080
SECRET_BYTES: Final = 32
PRIVATE_FOLDER_MODE: Final = 0o700
_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,32}")


@dataclass(frozen=True, slots=True)
class AgentEntry:
    """One agent of a context, as `up --json` prints it."""

    agent_id: str
    api: str
    health: str
    multiaddr: str
    token_file: str
    data_dir: str
    pid: int


@dataclass(frozen=True, slots=True)
class MeshContext:
    """A mesh that `up` made, with a licence and a secret of its own: meshes on one machine do not meet."""

    name: str
    license_id: str
    agents: tuple[AgentEntry, ...] = ()

    @property
    def folder(self) -> Path:
        """Where everything of this mesh lies."""
        return contexts_folder() / self.name

    @property
    def secret_file(self) -> Path | None:
        """The cluster secret that `up` made for it; contexts of earlier versions have none."""
        path = self.folder / "cluster-secret"
        return path if path.exists() else None


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An agent's API and how to be let in."""

    url: str
    token: str
    agent_id: str = ""


@dataclass(frozen=True, slots=True)
class Target:
    """The agents a command may ask, in the order of preference, and the data folders of local ones."""

    endpoints: tuple[Endpoint, ...]
    data_dirs: tuple[Path, ...] = field(default=())


def state_folder() -> Path:
    """`$XDG_STATE_HOME/chorus`."""
    base = os.environ.get("XDG_STATE_HOME", "")
    try:
        root = Path(base) if base.startswith("/") else Path.home() / ".local" / "state"
    except RuntimeError:
        raise CtlError("this user has no home directory: set HOME or XDG_STATE_HOME", USAGE) from None
    return root / "chorus"


def contexts_folder() -> Path:
    """Where contexts lie."""
    return state_folder() / "contexts"


def _entry(said: object) -> AgentEntry:
    if not isinstance(said, dict):
        raise ValueError("an agent is an object")
    entry = AgentEntry(**said)
    texts = [getattr(entry, item.name) for item in fields(entry) if item.name != "pid"]
    if type(entry.pid) is not int or not all(isinstance(text, str) for text in texts):
        raise ValueError("an agent's fields are texts and a number")
    return entry


def check_name(name: str) -> str:
    """A context's name is a folder's name."""
    if not _NAME.fullmatch(name):
        raise CtlError(f"context {name!r}: use 1 to 32 letters, digits, _ or -", USAGE)
    return name


def load(name: str) -> MeshContext | None:
    """The context, if `up` made it. Raises CtlError when its file cannot be read, or holds something else."""
    path = contexts_folder() / check_name(name) / "context.json"
    try:
        content = json.loads(path.read_bytes())
        agents = tuple(_entry(agent) for agent in content["agents"])
        license_id = content.get("license_id")
        if content["name"] != name or not isinstance(license_id, str | None):
            raise ValueError("it is of another context")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise CtlError(f"context {name} cannot be read: {path}: {error.strerror}", USAGE) from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise CtlError(
            f"context {name} is damaged: {path} is not what chorusctl wrote; restore it, or remove "
            f"{path.parent} and bring the mesh up anew",
            USAGE,
        ) from None
    # Contexts of earlier versions hold the licence id themselves.
    if license_id is None:
        try:
            license_id = _license_file(name).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            what = f"context {name}: its licence id cannot be read: {error}"
            raise CtlError(f"{what}; restore the file, or remove {contexts_folder() / name}") from None
    return MeshContext(name, license_id, agents)


def save(context: MeshContext) -> None:
    """Writes the context, private also where it was not before, and makes it the last one brought up."""
    for folder in (contexts_folder(), context.folder):
        folder.mkdir(parents=True, exist_ok=True, mode=PRIVATE_FOLDER_MODE)
        folder.chmod(PRIVATE_FOLDER_MODE)
    content = asdict(context)
    content["license"] = shown(content.pop("license_id"))
    write_private(_license_file(context.name), f"{context.license_id}\n")
    write_private(context.folder / "context.json", json.dumps(content, indent=2) + "\n")
    write_private(contexts_folder() / "last", f"{context.name}\n")


def make_secret(context: MeshContext) -> None:
    """Gives a new context, already saved, a random cluster secret."""
    write_private(context.folder / "cluster-secret", secrets.token_hex(SECRET_BYTES) + "\n")


def stopped(context: MeshContext) -> None:
    """Notes that none of its agents runs any more; the mesh itself stays on disk."""
    save(replace(context, agents=tuple(replace(agent, pid=0) for agent in context.agents)))


def remove(context: MeshContext) -> None:
    """Removes the mesh with all its data."""
    shutil.rmtree(context.folder, ignore_errors=True)
    last = contexts_folder() / "last"
    if last_name() == context.name:
        last.unlink(missing_ok=True)
    for folder in (contexts_folder(), state_folder()):
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()


def last_name() -> str | None:
    """The context brought up last. Raises CtlError when the file that names it cannot be read."""
    path = contexts_folder() / "last"
    try:
        name = path.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not text"
        raise CtlError(f"{path}: {why}; name a mesh with --context", USAGE) from None
    if name and not _NAME.fullmatch(name):
        raise CtlError(f"{path} names no context; remove it, or name a mesh with --context", USAGE)
    return name or None


def target(name: str | None, environ: Mapping[str, str]) -> Target:
    """Which agents to ask: `--context`, the environment, the last context, the default port."""
    if name is None and environ.get("CHORUS_API_URL"):
        return Target((Endpoint(_url(environ["CHORUS_API_URL"]), _environment_token(environ)),))
    chosen = name or environ.get("CHORUS_CONTEXT") or last_name()
    if chosen is not None:
        context = load(chosen)
        if context is not None and context.agents:
            return _of_context(context)
        if name is not None or environ.get("CHORUS_CONTEXT"):
            raise CtlError(f"there is no context {chosen}; chorusctl up --context {chosen} makes one", USAGE)
    token, folder = _default_token(environ)
    return Target((Endpoint(DEFAULT_URL, token),), () if folder is None else (folder,))


def _of_context(context: MeshContext) -> Target:
    """The context's agents, but for those whose data folder is gone; raises CtlError when all are."""
    endpoints = []
    gone = []
    for agent in context.agents:
        try:
            token = _token(Path(agent.token_file).read_bytes().strip(), agent.token_file)
        except FileNotFoundError:
            gone.append(agent.token_file)
            continue
        except OSError as error:
            raise CtlError(f"the token of {agent.agent_id} cannot be read: {error}") from None
        endpoints.append(Endpoint(agent.api, token, agent.agent_id))
    if not endpoints:
        raise CtlError(
            f"no agent of context {context.name} has a token any more: there is no {', '.join(gone)}"
        )
    return Target(tuple(endpoints), tuple(Path(agent.data_dir) for agent in context.agents))


def _environment_token(environ: Mapping[str, str]) -> str:
    if environ.get("CHORUS_API_TOKEN"):
        return _token(os.fsencode(environ["CHORUS_API_TOKEN"]), "CHORUS_API_TOKEN")
    path = environ.get("CHORUS_API_TOKEN_FILE")
    if not path:
        raise CtlError("CHORUS_API_URL is set: set CHORUS_API_TOKEN or CHORUS_API_TOKEN_FILE too", USAGE)
    try:
        return _token(Path(path).read_bytes().removesuffix(b"\n"), f"CHORUS_API_TOKEN_FILE ({path})")
    except OSError as error:
        raise CtlError(f"CHORUS_API_TOKEN_FILE: {error}", USAGE) from None


def _default_token(environ: Mapping[str, str]) -> tuple[str, Path | None]:
    """The token of the agent on the default port, out of its data folder."""
    if environ.get("CHORUS_API_TOKEN") or environ.get("CHORUS_API_TOKEN_FILE"):
        return _environment_token(environ), None
    folders = [Path(environ["CHORUS_DATA_DIR"])] if environ.get("CHORUS_DATA_DIR") else []
    if state_folder().is_dir():
        folders += sorted(path for path in state_folder().iterdir() if path.is_dir())
    for folder in folders:
        try:
            agent = json.loads((folder / "agent.json").read_bytes())
            if agent["ports"]["api"] == DEFAULT_API_PORT:
                path = folder / "api-token"
                return _token(path.read_bytes().strip(), str(path)), folder
        except (OSError, ValueError, KeyError, TypeError):
            continue  # no agent's folder, or one that never started
    raise CtlError(
        "no mesh is known here: start one with `chorusctl up`, or point at an agent with CHORUS_API_URL and "
        "CHORUS_API_TOKEN_FILE",
        USAGE,
    )


def _url(text: str) -> str:
    """The address of an API; raises CtlError for what is none."""
    try:
        parts = urlsplit(text)
        fits = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        fits = fits and not parts.query and not parts.fragment
        httpx.URL(text)
    except (ValueError, httpx.InvalidURL):
        fits = False
    if not fits or not text.isascii() or not text.isprintable() or " " in text:
        raise CtlError(f"CHORUS_API_URL: {text!r} is no address such as http://127.0.0.1:8080", USAGE)
    return text.rstrip("/")


def _token(content: bytes, where: str) -> str:
    """A bearer token; raises CtlError for what cannot be in a header."""
    if not content or not all(0x21 <= byte <= 0x7E for byte in content):
        raise CtlError(f"{where}: expected a token, one word of visible ASCII characters", USAGE)
    return content.decode("ascii")


def _license_file(name: str) -> Path:
    return contexts_folder() / check_name(name) / "license-id"
