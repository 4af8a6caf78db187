"""Which files of a folder are credentials by their name, and what looks secret inside the others.

Nothing of the kind is sent without being asked for; what is sent is packed by `chorus.ctl.pack`.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Final

from chorus.ctl.left_out import LeftOut
from chorus.ctl.scan import BINARY_LOOK_BYTES, is_data

# Only the beginning of a file is looked at to see whether it is a key or holds a token.
LOOK_BYTES: Final = 64 * 1024
# Larger files, and those that are no text, are data; looking for secrets in them takes long.
SCAN_BYTES_MAX: Final = 4 * 1024 * 1024
# Findings that are told one by one; the rest is counted.
FINDINGS_MAX: Final = 50

# Files that are credentials whatever is in them. A pattern with a slash fits the end of a path, without one
# the file's name; case does not matter.
_BY_NAME: Final = (
    (".env", "variables of an environment"),
    (".env.*", "variables of an environment"),
    ("*.env", "variables of an environment"),
    (".netrc", "passwords for hosts"),
    ("_netrc", "passwords for hosts"),
    (".pgpass", "passwords of databases"),
    ("pgpass.conf", "passwords of databases"),
    (".my.cnf", "passwords of databases"),
    (".mylogin.cnf", "passwords of databases"),
    (".htpasswd", "passwords"),
    (".git-credentials", "passwords for git"),
    (".config/git/credentials", "passwords for git"),
    (".config/gh/hosts.yml", "a token for GitHub"),
    (".config/hub", "a token for GitHub"),
    (".config/glab-cli/config.yml", "a token for GitLab"),
    ("id_rsa", "a private key"),
    ("id_dsa", "a private key"),
    ("id_ecdsa", "a private key"),
    ("id_ecdsa_sk", "a private key"),
    ("id_ed25519", "a private key"),
    ("id_ed25519_sk", "a private key"),
    ("*.ppk", "a private key"),
    ("*.p12", "a store of keys"),
    ("*.pfx", "a store of keys"),
    ("*.jks", "a store of keys"),
    ("*.keystore", "a store of keys"),
    ("*.kdbx", "a store of passwords"),
    ("*.kdb", "a store of passwords"),
    ("*.agilekeychain", "a store of passwords"),
    (".aws/credentials", "credentials for a cloud"),
    (".aws/config", "credentials for a cloud"),
    (".aws/*/cache/*", "credentials for a cloud"),
    (".boto", "credentials for a cloud"),
    (".s3cfg", "credentials for a cloud"),
    ("rclone.conf", "credentials for a cloud"),
    ("application_default_credentials.json", "credentials for a cloud"),
    (".config/gcloud/**", "credentials for a cloud"),
    (".azure/**", "credentials for a cloud"),
    (".oci/**", "credentials for a cloud"),
    (".config/doctl/config.yaml", "credentials for a cloud"),
    (".kube/config", "credentials for a cluster"),
    (".kube/cache/**", "credentials for a cluster"),
    ("kubeconfig", "credentials for a cluster"),
    ("*.kubeconfig", "credentials for a cluster"),
    (".cargo/credentials", "a token for a registry"),
    (".cargo/credentials.toml", "a token for a registry"),
    (".gem/credentials", "a token for a registry"),
    (".terraform.d/credentials.tfrc.json", "a token for Terraform"),
    (".terraformrc", "a token for Terraform"),
    ("terraform.rc", "a token for Terraform"),
    ("*.tfstate", "Terraform's state, which holds secrets in clear"),
    ("*.tfstate.*", "Terraform's state, which holds secrets in clear"),
    (".vault-token", "a token for Vault"),
    (".vault_pass", "a password for Ansible"),
    (".gnupg/**", "private keys"),
    (".password-store/**", "a store of passwords"),
)
# By name they may be credentials: what is in them decides.
_BY_CONTENT: Final = (
    ("*.pem", (b"PRIVATE KEY",), "a private key"),
    ("*.key", (b"PRIVATE KEY", b"AGE-SECRET-KEY-"), "a private key"),
    ("*.asc", (b"PRIVATE KEY",), "a private key"),
    ("id_*", (b"PRIVATE KEY",), "a private key"),
    (".npmrc", (b"_auth", b"_password"), "a token for a registry"),
    (".yarnrc", (b"_auth", b"_password"), "a token for a registry"),
    (".yarnrc.yml", (b"npmAuth",), "a token for a registry"),
    (".pypirc", (b"password", b"token"), "a token for a registry"),
    ("pip.conf", (b"@",), "a password for a registry"),
    (".docker/config.json", (b'"auth"', b'"identitytoken"', b'"registrytoken"'), "a token for a registry"),
    (".dockerconfigjson", (b'"auth"',), "a token for a registry"),
    (".dockercfg", (b'"auth"',), "a token for a registry"),
    (".m2/settings.xml", (b"<password>", b"<privateKey>"), "a password for a registry"),
    ("nuget.config", (b"password",), "a password for a registry"),
    ("*.json", (b'"service_account"', b'"authorized_user"'), "credentials for a cloud"),
)
# Made to be shown, whatever their names begin with.
_SAMPLES: Final = (".example", ".sample", ".template", ".tmpl", ".dist", ".schema", ".defaults")
# The longest folder of a pattern.
_FOLDERS_ABOVE: Final = 2
# Of `.ssh` all but these is left out.
_PUBLIC_OF_SSH: Final = ("*.pub", "known_hosts*", "authorized_keys*")


@dataclass(frozen=True, slots=True)
class Found:
    """What looks like a secret in a file that is sent; lines count from 1."""

    file: str
    line: int
    rule: str


def credentials(root: Path, names: Iterable[str]) -> list[LeftOut]:
    """Those of the files that are credentials, and the links to them."""
    names = list(names)
    left_out = {name: why for name in names if (why := _what(root, name)) is not None}
    goals = {os.path.realpath(root / name): name for name in left_out}
    for name in names:
        goal = goals.get(os.path.realpath(root / name)) if _is_link(root / name) else None
        if goal is not None and name not in left_out:
            left_out[name] = f"a link to {goal}"
    return [LeftOut(name, why) for name, why in left_out.items()]


def findings(root: Path, names: Iterable[str]) -> list[Found]:
    """What looks secret in the files, by the built-in rules; at most one for a rule and file."""
    from chorus.core import Scanner

    scanner = Scanner()
    found = []
    for name in names:
        content = _read(root / name, SCAN_BYTES_MAX + 1)
        if len(content) > SCAN_BYTES_MAX or is_data(content[:BINARY_LOOK_BYTES]):
            continue
        seen = set()
        # Rules may look at a name; one that is not UTF-8 has marks in place of the other bytes.
        for finding in scanner.scan(content, name.encode("utf-8", "replace").decode()):
            if finding.rule not in seen:
                seen.add(finding.rule)
                found.append(Found(name, content.count(b"\n", 0, finding.start) + 1, finding.rule))
    return found


def _what(root: Path, name: str) -> str | None:
    # The folder may itself be one whose name says what is in it, such as .ssh or .config/gcloud.
    path = PurePosixPath(*root.parts[-_FOLDERS_ABOVE:], name.lower())
    if path.name.endswith(_SAMPLES):
        return None
    if ".ssh" in path.parts[:-1]:
        return None if any(fnmatchcase(path.name, pattern) for pattern in _PUBLIC_OF_SSH) else "of .ssh"
    for pattern, why in _BY_NAME:
        if _fits(path, pattern):
            return why
    for pattern, marks, why in _BY_CONTENT:
        if _fits(path, pattern) and path.suffix != ".pub":
            content = _read(root / name, LOOK_BYTES)
            if any(mark in content for mark in marks):
                return why
    return None


def _fits(path: PurePosixPath, pattern: str) -> bool:
    folder, slash, rest = pattern.partition("/**")
    if slash:
        return not rest and f"/{folder}/" in f"/{path}"
    if "/" in pattern:
        return fnmatchcase(f"/{path}", f"*/{pattern}")
    return fnmatchcase(path.name, pattern)


def _is_link(path: Path) -> bool:
    try:
        return path.is_symlink()
    except OSError:
        return False  # in a folder that cannot be searched: packing says so


def _read(path: Path, bytes_max: int) -> bytes:
    """The beginning of a plain file; of anything else, or what cannot be read, nothing: packing says so."""
    try:
        # What a link leads to is in the folder too, under its own name.
        if not stat.S_ISREG(path.lstat().st_mode):
            return b""
        with path.open("rb") as file:
            return file.read(bytes_max)
    except OSError:
        return b""
