"""All agents of a mesh are lost: a copy of one's data folder brings back what the mesh had at its time."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.readme import commands

from .mesh_checks import FAST, all_acknowledged, check, mesh_of, until_genuine, until_whole, versions, written
from .sites import Site, sites
from .test_recover import kept, output, until_said_to_be_lost

pytestmark = [pytest.mark.e2e, pytest.mark.heavy]

ADDRESS = "ucxl://alice:agent@kept:one/*^/notes.md"


@pytest.fixture
def three(needs: None, short_dir: Path) -> Iterator[list[Site]]:
    with sites(3, short_dir) as made:
        yield made


def test_a_copy_of_one_folder_brings_a_mesh_back(three: list[Site], tmp_path: Path) -> None:
    # Chosen by the operator, and so not in any data folder.
    settings = {**FAST, "CHORUS_CLUSTER_SECRET": os.urandom(24).hex()}
    for site in three:
        site.start(three, **settings)
    until_whole(three)
    mesh, kept_one = mesh_of(three[0]), three[1]
    before = all_acknowledged(three, 4, "before")
    check(three, before)
    until_genuine(kept_one, len(before))
    written(three[0], ADDRESS, "a version")
    told = kept(kept_one, before), output(kept_one, before[0])
    place = {"DATA_DIR": str(kept_one.data_dir), "BACKUP": str(tmp_path / "backup.tar.gz")}

    kept_one.stop()
    kept_one.follow(commands("Back up"), **place)
    # The mesh goes on meanwhile, and what happens now is not in the copy.
    after = all_acknowledged([three[0]], 1, "after")
    kept_one.start(three, **settings)
    until_whole(three)
    check(three, after)
    for site in three:
        site.lose()

    kept_one.follow(commands("Restore"), **place)
    kept_one.start(three, **settings)
    until_said_to_be_lost(kept_one, (three[0], three[2]))
    kept_one.follow(commands("Recover").strip() + " --yes")
    assert mesh_of(kept_one) not in (None, mesh)
    for site in (three[0], three[2]):
        site.start(three, **settings)
    until_whole(three)
    for site in three:
        assert kept(site, before) == told[0]
        assert versions(site, ADDRESS) == ["a version"]
        assert site.get(f"/api/v1/tasks/{after[0]}") is None
    assert output(kept_one, before[0]) == told[1]
    check(three, all_acknowledged(three, 3, "then"))
