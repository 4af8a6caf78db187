"""`chorusctl config`: what an agent would make of an environment, before one is started in it."""

from __future__ import annotations

import os
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from chorus.config import Settings, exposure
from chorus.config.groups.assignment import Assignment
from chorus.config.load import Boot, boot_settings, complete, with_licence
from chorus.config.read import Value, warnings
from chorus.config.secret import SECRET_MIN_BYTES
from chorus.config.setting import declared
from chorus.config.variables import VARIABLES
from chorus.ctl.problems import FAILED, USAGE, CtlError
from chorus.ctl.terminal import note, say, say_json
from chorus.license import GATE_SETTINGS, LicenceRefused
from chorus.license import check as check_licence
from chorus.whoosh import load_for

# What stands for a secret.
MASK: Final = "********"
# Files of variables are smaller.
ENV_FILE_MAX_BYTES: Final = 1024 * 1024
# Where the folders of this user are, which a file of variables seldom says.
_OF_THE_USER: Final = ("HOME", "XDG_STATE_HOME", "XDG_RUNTIME_DIR")
_LIVE: Final = frozenset(setting.name for _, setting in declared(Assignment))


def check(arguments: Namespace) -> int:
    """Says all that is wrong; exit code 1 when something is, 2 when the file cannot be read."""
    environ = _environ(arguments.env_file)
    boot = boot_settings(environ)
    problems = _problems(boot)
    found = warnings(environ)
    if not problems:
        found += filter(None, [exposure(complete(boot, *_from_licence(boot)))])
    if arguments.json:
        say_json({"ok": not problems, "problems": problems, "warnings": found})
        return FAILED if problems else 0
    for problem in problems:
        say(f"wrong    {problem}")
    for warning in found:
        say(f"warning  {warning}")
    if not problems:
        count = sum(boot.is_set(variable.name) for variable in VARIABLES)
        say(f"ok       an agent would start with these settings; {count} are set")
    return FAILED if problems else 0


def show(arguments: Namespace) -> int:
    """Prints each setting with its value and where that comes from; exit codes as of `check`."""
    environ = _environ(arguments.env_file)
    boot = boot_settings(environ)
    if problems := _problems(boot):
        raise CtlError("; ".join(problems) + ". See chorusctl config check")
    given = _from_licence(boot)
    boot, told = _with_assignment(with_licence(boot, *given), complete(boot, *given))
    rows = _rows(boot)
    if arguments.json:
        say_json({"settings": rows, "warnings": [*told, *warnings(environ)]})
        return 0
    names = max(len(row["name"]) for row in rows)
    for row in rows:
        say(f"{row['name']:<{names}}  {row['source']:<11}  {row['value']}")
    for warning in [*told, *warnings(environ)]:
        note(f"warning: {warning}")
    return 0


def _with_assignment(boot: Boot, settings: Settings) -> tuple[Boot, list[str]]:
    """The settings as the assignment makes them, and what is wrong with that: asked for as at a start."""
    if not settings.assign_url:
        return boot, []
    loaded = load_for(settings)
    told = [f"ASSIGN_URL: {why}" for why in (*filter(None, [loaded.error]), *loaded.refused)]
    if (document := loaded.document) is None:
        return boot, [*told, "ASSIGN_URL: there is no assignment, the environment speaks alone"]
    values = dict(boot.values)
    for field, setting in declared(Assignment):
        if field in document.fields:
            value = document.fields[field]
            text = ",".join(value) if isinstance(value, tuple) else str(value)
            values[setting.name] = Value(value, text, "assignment")
    if document.agent_id and not boot.is_set("CHORUS_AGENT_ID"):
        values["CHORUS_AGENT_ID"] = Value(document.agent_id, document.agent_id, "assignment")
    if loaded.source == "copy":
        told.append("ASSIGN_URL: the last good copy counts")
    return Boot(values, ()), told


def _from_licence(boot: Boot) -> tuple[bytes, str]:
    """What stands for the secret and the cluster that a licence server gives; it is not asked here."""
    return (bytes(SECRET_MIN_BYTES), "(from the licence)") if boot["CHORUS_KACHING_URL"] else (b"", "")


def _problems(boot: Boot) -> list[str]:
    """All that would keep an agent from starting with these settings."""
    problems = list(boot.problems)
    if any(problem.startswith(GATE_SETTINGS) for problem in problems):
        return problems
    try:
        check_licence(
            boot["CHORUS_LICENSE_ID"], boot["CHORUS_KACHING_URL"], boot["CHORUS_KACHING_PUBLIC_KEY"]
        )
    except LicenceRefused as refused:
        problems.insert(0, f"CHORUS_LICENSE_ID: {refused}")
    return problems


def _rows(boot: Boot) -> list[dict[str, Any]]:
    rows = []
    for variable in VARIABLES:
        said = boot.values[variable.name]
        text = said.text or variable.otherwise.replace("`", "")
        if variable.secret and variable.name != "CHORUS_LICENSE_ID":
            text = MASK if said.source != "default" else text
        rows.append(
            {
                "name": variable.name,
                "value": text,
                "source": said.source,
                "secret": variable.secret,
                "live": variable.name in _LIVE,
            }
        )
    return rows


def _environ(path: str | None) -> Mapping[str, str]:
    """The environment, or what a file of variables says instead. Raises CtlError for one that is none."""
    if path is None:
        return os.environ
    try:
        with Path(path).open("rb") as file:
            content = file.read(ENV_FILE_MAX_BYTES + 1)
        if len(content) > ENV_FILE_MAX_BYTES:
            raise CtlError(f"{path}: it is larger than {ENV_FILE_MAX_BYTES} bytes", USAGE)
        lines = content.decode("utf-8").splitlines()
    except OSError as error:
        raise CtlError(f"{path}: {error.strerror}", USAGE) from None
    except UnicodeDecodeError:
        raise CtlError(f"{path}: it is not text", USAGE) from None
    environ = {name: os.environ[name] for name in _OF_THE_USER if name in os.environ}
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        name, equals, value = line.partition("=")
        if not equals or not name.strip() or " " in name.strip():
            raise CtlError(
                f"{path}: line {number}: expected NAME=VALUE, as docker run --env-file has it", USAGE
            )
        environ[name.strip()] = value
    return environ
