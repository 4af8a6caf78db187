"""Builds a sandbox image from Debian's packages alone: no image registry is asked.

mmdebstrap makes a root file system, Docker imports it, and the last layer adds the user and the folders.
"""

from __future__ import annotations

import contextlib
import fcntl
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from chorus.ctl import terminal
from chorus.ctl.contexts import state_folder
from chorus.ctl.daemon import error_in
from chorus.ctl.image_recipes import Recipe, dockerfile
from chorus.ctl.problems import CtlError

if TYPE_CHECKING:
    from docker import DockerClient

LABEL: Final = "chorus.recipe"
# What mmdebstrap said last, when it fails.
LAST_LINES: Final = 15
# Documentation and translations are of no use to a task. Java's packages link into the manual pages' folder.
_SMALL: Final = (
    "--variant=minbase",
    "--dpkgopt=force-unsafe-io",
    "--dpkgopt=path-exclude=/usr/share/man/*",
    "--dpkgopt=path-exclude=/usr/share/locale/*",
    "--dpkgopt=path-exclude=/usr/share/doc/*",
    "--dpkgopt=path-include=/usr/share/doc/*/copyright",
    '--aptopt=Apt::Install-Recommends "false"',
    '--essential-hook=mkdir -p "$1/usr/share/man/man1"',
)
_RUN_HOOK: Final = '--customize-hook=chroot "$1" sh -euc "$SANDBOX_HOOK"'


def build(client: DockerClient, recipe: Recipe) -> bool:
    """Builds the image unless it is there, made of the same things; whether it had to. Raises CtlError."""
    if recipe_of(client, recipe.image) == recipe.key:
        return False
    with _alone():
        if recipe_of(client, recipe.image) == recipe.key:
            return False
        with tempfile.TemporaryDirectory(prefix="chorus-image-") as folder:
            root = Path(folder) / "root.tar"
            _say(f"{recipe.image}: making a root file system of Debian {recipe.suite}")
            _root_file_system(recipe, root)
            _say(f"{recipe.image}: adding the user and the folders")
            _image(client, recipe, root)
    return True


def recipe_of(client: DockerClient, image: str) -> str | None:
    """The key of the recipe that an image was built from; empty when it has none, None without the image."""
    from docker.errors import ImageNotFound

    try:
        return str(client.images.get(image).labels.get(LABEL, ""))
    except ImageNotFound:
        return None


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """Waits until no other chorusctl of this user builds an image."""
    folder = state_folder()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (folder / "images.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _root_file_system(recipe: Recipe, target: Path) -> None:
    if shutil.which("mmdebstrap") is None:
        raise CtlError(
            "mmdebstrap is not installed: apt-get install mmdebstrap; where there is an image registry, "
            "chorusctl images pull needs none"
        )
    words = ["mmdebstrap", *_SMALL, f"--include={','.join(recipe.packages)}"]
    words += [_RUN_HOOK] if recipe.hook else []
    words += [recipe.suite, str(target), *([recipe.mirror] if recipe.mirror else [])]
    with subprocess.Popen(
        words,
        env=os.environ | {"SANDBOX_HOOK": recipe.hook},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
    ) as process:
        last = _followed(process)
    if process.returncode == 0:
        return
    terminal.note_lines("\n".join(last))
    hint = "" if os.getuid() == 0 else "; run it as root, or with user namespaces (apt-get install uidmap)"
    raise CtlError(f"mmdebstrap failed with {process.returncode}; its last words are above{hint}")


def _followed(process: subprocess.Popen[str]) -> list[str]:
    """Shows on a terminal what it does, and returns its last lines."""
    last: deque[str] = deque(maxlen=LAST_LINES)
    shown = sys.stderr.isatty()
    assert process.stderr is not None
    try:
        for line in process.stderr:
            last.append(line.rstrip().replace("\r", " "))
            if shown:
                terminal.progress(last[-1][: shutil.get_terminal_size().columns - 1])
    except BaseException:
        # A name server or a mirror that hangs holds it; whoever ends the command does not wait for that.
        process.terminate()
        raise
    finally:
        if shown:
            terminal.progress("")
    return list(last)


def _image(client: DockerClient, recipe: Recipe, root: Path) -> None:
    imported = f"chorus-sandbox-root:{recipe.name}-{recipe.key}"
    repository, _, tag = imported.partition(":")
    api: Any = client.api
    answer = api.import_image_from_file(str(root), repository=repository, tag=tag)
    if why := error_in(map(json.loads, answer.splitlines())):
        raise CtlError(f"{recipe.image}: the root file system could not be imported: {why}")
    root.unlink()
    try:
        lines = api.build(
            fileobj=io.BytesIO(dockerfile().encode()),
            tag=recipe.image,
            buildargs={"ROOT": imported},
            labels={LABEL: recipe.key},
            network_mode="none",
            rm=True,
            forcerm=True,
            decode=True,
        )
        if why := error_in(lines):
            raise CtlError(f"{recipe.image}: the last layer could not be built: {why}")
    finally:
        from docker.errors import APIError

        # The image keeps its layers.
        with contextlib.suppress(APIError):
            api.remove_image(imported)


def _say(text: str) -> None:
    terminal.note(f"chorusctl: {text}")
