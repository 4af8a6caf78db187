"""An image built from Debian's packages by the real tools, as `chorusctl images build` does."""

from __future__ import annotations

import dataclasses
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest

from chorus.ctl import image_build
from chorus.ctl.image_recipes import Recipe
from chorus.ctl.problems import CtlError

pytestmark = pytest.mark.docker


@pytest.fixture
def recipe(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Recipe]:
    """A small one under a name of this test's own."""
    if shutil.which("mmdebstrap") is None:
        pytest.skip("no mmdebstrap: make setup")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    made = Recipe(
        f"test-{uuid.uuid4().hex[:8]}", ("bash", "coreutils", "findutils", "tar"), "echo hooked >/hook"
    )
    yield made
    client = docker.from_env()
    if image_build.recipe_of(client, made.image) is not None:
        client.images.remove(made.image, force=True)
    client.close()


@pytest.mark.heavy
def test_an_image_is_built_once_and_has_what_a_sandbox_needs(image: str, recipe: Recipe) -> None:
    client = docker.from_env(timeout=600)
    assert image_build.build(client, recipe)
    assert not image_build.build(client, recipe)
    assert not [tag for each in client.images.list() for tag in each.tags if recipe.key in tag]
    script = (
        "id -u; pwd; cat /hook; stat -c %a /usr/lib/chorus/session-bash; test -w /workspace && echo writable"
    )
    said = client.containers.run(recipe.image, ["bash", "-c", script], network_mode="none", remove=True)
    assert said.decode().split() == ["1000", "/workspace", "hooked", "111", "writable"]
    client.close()


def test_a_suite_that_is_none_leaves_nothing(image: str, recipe: Recipe) -> None:
    client = docker.from_env()
    with pytest.raises(CtlError, match="mmdebstrap failed"):
        image_build.build(client, dataclasses.replace(recipe, mirror="file:/nowhere"))
    assert image_build.recipe_of(client, recipe.image) is None
    client.close()
