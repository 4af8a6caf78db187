"""Tasks that try to forge their exit code, in a mesh of three: the submitter is told what really happened."""

from __future__ import annotations

from pathlib import Path

import pytest

from .conftest import Mesh

pytestmark = pytest.mark.e2e

ATTACKS = Path(__file__).parents[1] / "sandbox" / "attacks"
STEAL = "setsid python3 steal.py ready & until [ -e ready ]; do sleep 0.01; done; exit 3"


@pytest.mark.parametrize(
    ("command", "codes"),
    [
        ("python3 forge.py 1; exit 3", {3}),
        # Who takes the report away gets no other for it: a timeout, or an end by the forgery.
        (STEAL, {3, 124, 137}),
        ("python3 reach.py >reached; [ -s reached ] && exit 0; exit 3", {3}),
        ("kill -9 $(ps -eo pid,comm | awk '$2 == \"session-bash\" {print $1}'); exit 0", {137}),
    ],
)
def test_no_success_but_a_real_one(mesh: Mesh, command: str, codes: set[int]) -> None:
    words = ("--dir", str(ATTACKS), "--language", "python", "--timeout", "20")
    done = mesh.ctl("run", *words, "--", "sh", "-c", command, check=False)
    assert done.returncode in codes, (done.stdout, done.stderr)
