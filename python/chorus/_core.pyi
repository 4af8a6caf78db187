"""The Rust core: handles, bytes and frozen values. Names and types are checked against the built module."""

from os import PathLike
from typing import final

__all__ = [
    "BUILD_COMMIT",
    "BUILD_DATE",
    "Core",
    "CoreError",
    "CoreLines",
    "Finding",
    "Identity",
    "LogVerifier",
    "Redactor",
    "RoleKeys",
    "Scanner",
    "Ucxl",
    "UcxlError",
    "__version__",
    "canonical_json",
    "derive_dev_secret",
    "derive_network_key",
    "open_many",
    "open_sealed",
    "read_log",
    "read_vote_file",
    "seal",
    "seal_many",
    "sign_json",
    "verify_json",
]

__version__: str
BUILD_COMMIT: str
BUILD_DATE: str

class CoreError(Exception):
    """The core said no; `code` is one of the hub's error codes."""

    code: str

@final
class Core:
    """A running core. It belongs to the process that started it; a forked child is refused."""

    @staticmethod
    def start(config_json: str) -> Core:
        """Starts a core; returns when its hub's socket is there and it listens."""

    def stop(self) -> None:
        """Stops it, flushing what is to be kept. Safe to call twice."""

    def stats(self) -> str:
        """Counters of every part, as JSON."""

    def set_role(self, role: str | None = None) -> None:
        """Another role counts from now on, for sealing, opening and messages. Raises CoreError, and the
        former one counts on.
        """

    def info(self) -> str:
        """`peer_id`, `agent_id` and `listen`, as JSON."""

@final
class CoreLines:
    """The log lines of this process's cores, kept for whoever opened them: one at a time."""

    @staticmethod
    def open(level: str) -> CoreLines:
        """Keeps lines of a level (debug, info, warning, error) and graver ones from now on."""

    def fileno(self) -> int:
        """A descriptor that is readable while lines wait; only for waiting."""

    def take(self, max: int) -> tuple[list[bytes], int]:
        """Lines, as JSON objects, oldest first, and how many were dropped since the last call."""

    def close(self) -> None:
        """Keeps no more lines. Safe to call twice."""

@final
class Identity:
    """An agent's Ed25519 key."""

    @staticmethod
    def load_or_create(path: str | PathLike[str]) -> Identity:
        """Reads the identity at a path, or makes one there when nothing exists."""

    @staticmethod
    def generate() -> Identity:
        """An identity that lives in memory only."""

    @property
    def peer_id(self) -> str:
        """The libp2p peer id."""

    def sign(self, message: bytes) -> bytes:
        """The Ed25519 signature over the bytes."""

@final
class LogVerifier:
    """A verification, in steps, of a log that nobody is writing to."""

    @staticmethod
    def open(folder: str | PathLike[str]) -> LogVerifier:
        """Begins with the log in a folder. Raises `CoreError`, as `step` does."""

    def step(self, count: int) -> bool:
        """Checks up to `count` more entries; true when all is checked."""

    def so_far(self) -> str:
        """`checked`, `length`, `byte_length`, `fork`, `key`, `peer_id` and `unfinished`, as JSON."""

@final
class RoleKeys:
    """The role keys of a cluster, as an agent with a role holds them."""

    def __new__(
        cls,
        cluster_secret: bytes,
        role: str | None = None,
        *,
        file: str | PathLike[str] | None = None,
        old_secrets: list[bytes] = ...,
        grants: list[tuple[str, str]] = ...,
    ) -> RoleKeys: ...
    def readers(self, role: str | None = None) -> list[str]:
        """The roles whose holders can read a value for a role."""

    @property
    def kind(self) -> str:
        """Which kind of keys these are: derived from the cluster secret, or of a role keys file."""

    @property
    def roles(self) -> list[str]:
        """The roles held."""

@final
class Finding:
    """A secret that was found: the rule, the place and a keyed hash, never the secret."""

    @property
    def rule(self) -> str: ...
    @property
    def severity(self) -> str: ...
    @property
    def action(self) -> str: ...
    @property
    def start(self) -> int: ...
    @property
    def end(self) -> int: ...
    @property
    def audit(self) -> str: ...

@final
class Scanner:
    """Finds secrets by the built-in rules, and by those of a rule file in its JSON form."""

    def __new__(cls, audit_key: bytes | None = None, *, rules: str | None = None) -> Scanner: ...
    @staticmethod
    def check_rules(rules: str) -> list[str]:
        """What is wrong with a rule file in its JSON form, a sentence for each mistake."""

    def scan(self, text: bytes, path: str | None = None) -> list[Finding]:
        """The secrets in a text, in order; a file's path counts for exceptions."""

    def redact(self, text: bytes) -> bytes:
        """The text with every secret replaced by `[REDACTED:<rule>]`."""

    def redact_json(self, json: bytes) -> tuple[bytes, list[Finding]]:
        """A JSON document with the secrets in its strings and names replaced, and what was found."""

    def rules(self) -> list[tuple[str, str, str]]:
        """Each rule's id, severity and action."""

@final
class Redactor:
    """Takes secrets out of a stream of bytes."""

    def __new__(cls, scanner: Scanner | None = None) -> Redactor: ...
    def again(self) -> Redactor:
        """A redactor at the beginning of another stream, with the same rules and known secrets."""

    def add_secrets(self, values: list[bytes]) -> int:
        """Also takes out these very values; gives how many are long enough to be looked for (4 bytes).

        Raises CoreError for values above 64 KiB.
        """

    def push(self, piece: bytes) -> bytes:
        """Takes the next piece and gives what can go out now."""

    def settle(self) -> bytes:
        """Says that the stream rests; gives what is held back only because a token might have begun."""

    def finish(self) -> bytes:
        """Says that nothing more comes, and gives the rest."""

    @property
    def held(self) -> int:
        """How many bytes are held back."""

    def take_findings(self) -> list[Finding]:
        """What was found since the last call."""

class UcxlError(ValueError):
    """What is wrong with an address; its text is the line `UCXL address validation error in …`."""

    field: str
    message: str
    raw: str

@final
class Ucxl:
    """A UCXL address (docs/ucxl.md). It is its text: equal, ordered and hashed by it."""

    def __new__(
        cls, agent: str, role: str, project: str, task: str, path: str = "", temporal: str = "*^"
    ) -> Ucxl: ...
    @staticmethod
    def parse(text: str) -> Ucxl:
        """Reads an address. Raises `UcxlError`, as all here do that take a part of one."""

    @property
    def agent(self) -> str: ...
    @property
    def role(self) -> str: ...
    @property
    def project(self) -> str: ...
    @property
    def task(self) -> str: ...
    @property
    def path(self) -> str: ...
    @property
    def temporal(self) -> str: ...
    @property
    def is_pattern(self) -> bool:
        """Whether a component is `any` or the temporal is `*~`."""

    def at(self, temporal: str) -> Ucxl:
        """The same place at another time."""

    def matches(self, other: Ucxl) -> bool:
        """Whether `other` is one of the places that this one, as a pattern, stands for."""

    def resolve(self, latest: int) -> int:
        """The version that the temporal means among versions 1 to `latest`, which is below 2**32."""

    def __hash__(self) -> int: ...
    def __eq__(self, other: object, /) -> bool: ...
    def __lt__(self, other: Ucxl, /) -> bool: ...
    def __le__(self, other: Ucxl, /) -> bool: ...
    def __gt__(self, other: Ucxl, /) -> bool: ...
    def __ge__(self, other: Ucxl, /) -> bool: ...
    def __getnewargs__(self) -> tuple[str, str, str, str, str, str]: ...

def seal(keys: RoleKeys, role: str | None, plain: bytes) -> bytes:
    """Seals a value to a role and to every role that may read it; no role means every member."""

def open_sealed(keys: RoleKeys, sealed: bytes) -> bytes:
    """Opens a sealed value with the roles held."""

def read_vote_file(path: str | PathLike[str]) -> str | None:
    """What an agent's vote file says, as JSON; nothing when it has been in no mesh.

    Raises `CoreError`: `tampered` for a damaged file, `internal` for one that cannot be read or is in use.
    """

def read_log(path: str | PathLike[str], first: int, limit: int) -> list[bytes]:
    """Up to `limit` entries of the log in a vote file, committed or not, from index `first` on.

    Each is a JSON object: index, term, stamp (milliseconds since the epoch), type ("" for an empty entry,
    "invalid" with a reason for one that fails a check), id, author, seen, body and reason. At least one
    when there is one, then no more than 8 MiB; none at the log's end, of a missing file, and of an agent
    that was never in a mesh.
    Raises `CoreError`: `tampered` for a damaged file, `internal` for one that cannot be read or is in use.
    """

def seal_many(keys: RoleKeys, role: str | None, plains: list[bytes]) -> list[bytes]:
    """Seals many values for one role, on all cores."""

def open_many(keys: RoleKeys, sealed: list[bytes]) -> list[bytes]:
    """Opens many sealed values, on all cores; the first that cannot be opened raises."""

def canonical_json(json: bytes) -> bytes:
    """The RFC 8785 form of a JSON document."""

def sign_json(identity: Identity, json: bytes) -> bytes:
    """A JSON object with `sig` added, in RFC 8785 form."""

def verify_json(json: bytes, peer_id: str) -> None:
    """Checks the `sig` of a JSON object against a peer id; raises when it does not fit."""

def derive_dev_secret(license_id: str) -> bytes:
    """The cluster secret of a development cluster that was given none."""

def derive_network_key(cluster_secret: bytes) -> bytes:
    """The pre-shared key of the network that belongs to a cluster secret."""
