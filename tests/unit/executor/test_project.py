"""`.chorus.yaml` is read with bounds, told about field by field, and never wins over the task."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from patch_trees import text

from chorus.executor.patch import File
from chorus.executor.patch.tree import LINK
from chorus.executor.project import (
    PROJECT_BYTES_MAX,
    Project,
    ProjectInvalid,
    merge,
    project_of,
    read_project,
)
from chorus.wire.task import TaskSubmission

GOOD = b"""
# Checks of the project.
language: python
setup:
  - pip install --no-index wheels/*
checks: ["pytest -q"]
protected: ["tests/**", conftest.py]
artifacts: [report.xml]
env:
  PYTHONHASHSEED: "0"
"""


class Goal(TaskSubmission):
    """Stands in for the fields of a goal, where a submission does not have them."""

    setup: tuple[str, ...] = ()
    checks: tuple[str, ...] = ()
    protected: tuple[str, ...] = ()


def test_a_file_is_read_field_by_field() -> None:
    assert read_project(GOOD) == Project(
        language="python",
        setup=("pip install --no-index wheels/*",),
        checks=("pytest -q",),
        protected=("tests/**", "conftest.py"),
        artifacts=("report.xml",),
        env={"PYTHONHASHSEED": "0"},
    )
    assert read_project(b"") == read_project(b"# nothing\n") == Project()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (
            b"check: [make]",
            "check: unknown field; there are language, setup, checks, protected, artifacts, env",
        ),
        (b"checks: make test", "checks: a list is expected: write each entry on a line of its own"),
        (b"checks: [true]", "checks.0: a text is expected: put True into quotation marks"),
        (b"env: {PORT: 8080}", "env.PORT: a text is expected: put 8080 into quotation marks"),
        (b"env: [A]", "env: names with values are expected"),
        (b"env: {A-B: x}", "env: 'A-B' is not a name of an environment variable"),
        (b"protected: [/etc/*]", "protected.0: path '/etc/*' is not a plain relative path"),
        (b"setup: ['']", "setup.0: String should have at least 1 character"),
        (b"setup: [" + b"a," * 65 + b"]", "setup: at most 64 entries are allowed"),
        (b"language: 3", "language: a text is expected"),
        (b"- x", "expected fields, as in `checks: [make test]`"),
        (b"a: &x [1]\nb: *x", "line 2: not YAML: aliases are not read"),
        (b"env: {A: x, A: y}", "'A' is given twice"),
        (b"? [a]\n: b", "line 1: not YAML: a name is one word"),
        (b"language: !!python/name:os.system", "not YAML"),
        (b"language: !!bool x", "not YAML"),
        (b"\xff", "not text"),
        (b" " * (PROJECT_BYTES_MAX + 1), "larger than 65536 bytes"),
    ],
)
def test_mistakes_are_told_with_their_field_and_the_remedy(content: bytes, said: str) -> None:
    with pytest.raises(ProjectInvalid) as caught:
        read_project(content)
    assert said in str(caught.value)
    assert str(caught.value).startswith(".chorus.yaml: ")


def test_it_lies_at_the_top_of_the_source() -> None:
    tree = {".chorus.yaml": text(GOOD), "sub/.chorus.yaml": text("language: c")}
    assert project_of(tree) == read_project(GOOD)
    assert project_of({}) == Project()
    with pytest.raises(ProjectInvalid, match="a link"):
        project_of({".chorus.yaml": File.of(LINK, b"other.yaml")})
    with pytest.raises(ProjectInvalid, match="larger than"):
        project_of({".chorus.yaml": File("100644", "0" * 64, 1 << 40, b"never looked at")})


def test_all_mistakes_are_told_at_once() -> None:
    with pytest.raises(ProjectInvalid) as caught:
        read_project(b"checks: x\nenv: y\nfoo: z")
    assert [problem.partition(":")[0] for problem in caught.value.problems] == ["checks", "env", "foo"]


def test_the_tasks_own_fields_win() -> None:
    project = read_project(GOOD)
    task, taken = merge(Goal(title="mend it"), project)
    assert taken == ["language", "setup", "checks", "protected", "artifacts", "env.PYTHONHASHSEED"]
    assert (task.language, task.checks, task.env) == ("python", ("pytest -q",), {"PYTHONHASHSEED": "0"})
    own = Goal(title="mend it", language="c", checks=("make",), env={"PYTHONHASHSEED": "1"})
    task, taken = merge(own, project)
    assert taken == ["setup", "protected", "artifacts"]
    assert (task.language, task.checks, task.env) == ("c", ("make",), {"PYTHONHASHSEED": "1"})
    secret = Goal(title="mend it", secrets={"PYTHONHASHSEED": "sealed"})
    assert "env.PYTHONHASHSEED" not in merge(secret, project)[1]
    assert merge(own, Project()) == (own, [])


def test_both_together_are_bounded_too() -> None:
    task = Goal(title="x", env={f"A{number}": "" for number in range(100)})
    with pytest.raises(ProjectInvalid, match=r"env: .*with the task's own"):
        merge(task, Project(env={f"B{number}": "" for number in range(100)}))


@given(st.one_of(st.binary(max_size=200), st.text(alphabet="{}[]:,-!?&*|>%@`'\"# \nab1", max_size=100)))
@settings(deadline=None, max_examples=300)
def test_any_bytes_are_read_or_refused(content: bytes | str) -> None:
    try:
        read_project(content if isinstance(content, bytes) else content.encode())
    except ProjectInvalid as invalid:
        said = str(invalid)
    else:
        said = ".chorus.yaml: "
    assert said.startswith(".chorus.yaml: ")
