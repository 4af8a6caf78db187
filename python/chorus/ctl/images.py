"""`chorusctl images`: the images that tasks run in, built here, pulled from a registry, or listed."""

from __future__ import annotations

import os
import re
import sys
from argparse import Namespace
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final

from chorus.config.groups.sandbox import DEFAULT_IMAGES
from chorus.config.read import read_values
from chorus.ctl import image_build, terminal
from chorus.ctl.daemon import connected, error_of, explained
from chorus.ctl.endings import signals_raised
from chorus.ctl.image_recipes import languages, recipe
from chorus.ctl.problems import USAGE, CtlError
from chorus.ctl.show import Columns, print_json, print_table
from chorus.ctl.terminal import note, say
from chorus.wire.images import repository_and_tag

if TYPE_CHECKING:
    from docker import DockerClient

# What a registry or the daemon says of an image that is not there, or not for everybody.
_NOT_THERE: Final = re.compile(r"not found|does not exist|denied|unauthorized|authentication", re.IGNORECASE)
_SUITE: Final = re.compile(r"[a-z][a-z0-9-]{0,30}")
_MIRROR: Final = re.compile(r"(deb |https?://|file:/|copy:/)\S[^\n]*")
_MB: Final = 1_000_000
_COLUMNS: Final[Columns] = (
    ("IMAGE", lambda row: row["image"]),
    ("LANGUAGES", lambda row: " ".join(row["languages"])),
    ("HERE", lambda row: row["here"]),
    ("SIZE", lambda row: None if row["size"] is None else f"{row['size'] // _MB} MB"),
    ("RECIPE", lambda row: row["recipe"]),
)


def build(arguments: Namespace) -> int:
    """Builds the images of the languages named, from Debian's packages."""
    if not _SUITE.fullmatch(arguments.suite):
        raise CtlError(f"--suite {arguments.suite!r}: expected a release of Debian such as bookworm", USAGE)
    if arguments.mirror and not _MIRROR.fullmatch(arguments.mirror):
        raise CtlError("--mirror: expected the URL of a Debian mirror, or a line of sources.list", USAGE)
    # Several languages may have one image.
    named = [recipe(each, arguments.suite, arguments.mirror) for each in languages(arguments.languages)]
    wanted = {each.image: each for each in named}
    rows = []
    # However it is ended, what is half made is removed.
    with signals_raised(), connected() as client:
        for image, made_of in wanted.items():
            built = image_build.build(client, made_of)
            note(f"chorusctl: {image} is {'built' if built else 'up to date'} ({made_of.key})")
            rows.append({"image": image, "recipe": made_of.key, "built": built})
    return print_json({"images": rows}) if arguments.json else 0


def pull(arguments: Namespace) -> int:
    """Pulls the images that agents of this environment take for the languages named."""
    configured = _configured()
    wanted = {}
    for language in languages(arguments.languages):
        if image := configured.get(language):
            wanted[image] = language
    if not wanted:
        raise CtlError("CHORUS_SANDBOX_IMAGES has no image for these languages; chorusctl images list")
    rows = []
    with connected() as client:
        for image, language in wanted.items():
            note(f"chorusctl: pulling {image}")
            _pull(client, image, language)
            rows.append({"image": image, "id": client.images.get(image).id})
            if not arguments.json:
                say(image)
    return print_json({"images": rows}) if arguments.json else 0


def listed(arguments: Namespace) -> int:
    """Lists the images that agents of this environment take, and whether they are here."""
    with connected() as client:
        rows = [_row(client, image, of) for image, of in _by_image(_configured()).items()]
    return print_json({"images": rows}) if arguments.json else print_table(rows, _COLUMNS)


def _row(client: DockerClient, image: str, of: list[str]) -> dict[str, Any]:
    from docker.errors import ImageNotFound

    row: dict[str, Any] = {"image": image, "languages": of, "here": False, "id": None, "size": None}
    row["recipe"] = None
    try:
        found: Any = client.images.get(image)
    except ImageNotFound:
        return row
    row |= {"here": True, "id": found.id, "size": found.attrs.get("Size")}
    if built_from := found.labels.get(image_build.LABEL):
        same = DEFAULT_IMAGES.get(of[0]) == image and recipe(of[0]).key == built_from
        row["recipe"] = "current" if same else "another"
    return row


def _configured() -> dict[str, str]:
    """From language to image, as agents started in this environment have it."""
    problems: list[str] = []
    images = read_values(os.environ, problems)["CHORUS_SANDBOX_IMAGES"].value
    for problem in problems:
        if problem.startswith("CHORUS_SANDBOX_IMAGES"):
            raise CtlError(problem)
    return dict(images)


def _by_image(images: dict[str, str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for language, image in images.items():
        found.setdefault(image, []).append(language)
    return found


def _pull(client: DockerClient, image: str, language: str) -> None:
    """Raises CtlError with what to do when there is no registry, or it has no such image."""
    from docker.errors import APIError

    repository, tag = repository_and_tag(image)
    api: Any = client.api
    try:
        why = _pulled(api.pull(repository, tag=tag, stream=True, decode=True), image)
    except APIError as error:
        why = explained(error)
    if not why:
        return
    can_be_built = DEFAULT_IMAGES.get(language) == image
    remedy = f"; chorusctl images build {language} makes it from Debian's packages" if can_be_built else ""
    if _NOT_THERE.search(why):
        remedy = f"; docker login, if it is not for everybody{remedy}"
        raise CtlError(f"{image}: its registry does not give it: {why}{remedy}")
    raise CtlError(f"{image}: its registry cannot be reached by the Docker daemon: {why}{remedy}")


def _pulled(lines: Iterable[dict[str, Any]], image: str) -> str:
    """Shows how far the layers are, on a terminal; the error there was, or nothing."""
    show: Callable[[str], None] = terminal.progress if sys.stderr.isatty() else _nowhere
    layers: dict[str, tuple[int, int]] = {}
    why = ""
    for line in lines:
        why = why or error_of(line)
        detail = line.get("progressDetail") or {}
        if line.get("status") == "Downloading" and detail.get("total"):
            layers[str(line.get("id"))] = (int(detail.get("current", 0)), int(detail["total"]))
            done, total = (sum(part) // _MB for part in zip(*layers.values(), strict=True))
            show(f"{image}: {done} of {total} MB")
    show("")
    return why


def _nowhere(text: str) -> None:
    """Progress is for a terminal."""
