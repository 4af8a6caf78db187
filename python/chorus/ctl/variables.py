"""Variables that a sandbox gets: plain ones as they are given, secrets without showing them."""

from __future__ import annotations

import os
from pathlib import Path

from chorus.ctl.problems import USAGE, CtlError
from chorus.ctl.texts import check_text, is_text
from chorus.wire.task import ENV_MAX_BYTES


def environment(pairs: list[str]) -> dict[str, str]:
    """What `--env NAME=VALUE` says."""
    values = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise CtlError(f"--env {pair}: expected NAME=VALUE", USAGE)
        values[name] = value
    return values


def secrets(given: list[str]) -> dict[str, str]:
    """Values from the environment or from files: arguments can be read by every user of a machine."""
    values = {}
    for each in given:
        name, at, file = each.partition("@")
        check_text(name)
        if "=" in name:
            name = name.partition("=")[0]
            raise CtlError(
                f"--secret {name}=…: lists of processes show what is in an argument, and shells keep it; "
                f"export {name} and give --secret {name}, or give --secret {name}@FILE",
                USAGE,
            )
        if not name or (at and not file):
            raise CtlError("--secret: expected NAME, of a variable here, or NAME@FILE", USAGE)
        if at:
            values[name] = _secret_in(name, Path(file))
        elif (value := os.environ.get(name)) is not None:
            if not is_text(value):
                raise CtlError(f"--secret {name}: its value is not UTF-8 text; encode it first", USAGE)
            values[name] = value
        else:
            raise CtlError(f"--secret {name}: there is no variable {name} here; export it first", USAGE)
    return values


def _secret_in(name: str, path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(ENV_MAX_BYTES + 1)
        if len(content) > ENV_MAX_BYTES:
            raise CtlError(
                f"--secret {name}@{path}: secrets have at most {ENV_MAX_BYTES} bytes in all", USAGE
            )
        # One line end, as editors and `echo` leave it, is no part of the value.
        return content.decode().removesuffix("\n").removesuffix("\r")
    except OSError as error:
        raise CtlError(f"--secret {name}@{path}: {error.strerror}", USAGE) from None
    except UnicodeDecodeError:
        raise CtlError(f"--secret {name}@{path}: not UTF-8 text; encode it first", USAGE) from None
