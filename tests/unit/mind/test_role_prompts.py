"""The prompts of the roles: the package's own, the operator's over them, and files that cannot be used."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chorus.mind.role_prompts import PACKAGE_FOLDER, PromptFileInvalid, RolePrompts, read_roles

ROLES = ("developer", "reviewer", "architect", "tester", "documenter", "analyst", "admin")
BODY = "roles:\n  {role}:\n    system_prompt: {text}\n"


def write(folder: Path, name: str, role: str, text: str) -> None:
    (folder / name).write_text(BODY.format(role=role, text=text))


def test_the_package_has_a_prompt_for_each_role() -> None:
    prompts = RolePrompts(Path("/nowhere"))
    texts = {prompts.prompt(role).text for role in ROLES}
    assert len(texts) == len(ROLES)
    defaults = (PACKAGE_FOLDER / "defaults.md").read_text().strip()
    assert all(text.endswith(f"\n\n{defaults}\n") for text in texts)
    assert prompts.problems == ()
    made = prompts.prompt("developer")
    assert made.sha256 == hashlib.sha256(made.text.encode()).hexdigest()
    assert prompts.prompt("gardener") == prompts.prompt("") == made


def test_an_operators_files_go_first_and_the_last_of_them_wins(tmp_path: Path) -> None:
    write(tmp_path, "a.yaml", "developer", "one")
    write(tmp_path, "b.yaml", "developer", "two")
    write(tmp_path, "b.yaml.bak", "developer", "three")
    write(tmp_path, ".c.yaml", "developer", "four")
    write(tmp_path, "c.yaml", "gardener", "Plants.")
    prompts = RolePrompts(tmp_path)
    assert prompts.prompt("developer").text.startswith("two\n\n# How you work")
    assert prompts.prompt("gardener").text.startswith("Plants.\n\n")
    assert prompts.prompt("tester") == RolePrompts(Path("/nowhere")).prompt("tester")
    (tmp_path / "defaults.md").write_text("Be brief.\n")
    assert prompts.prompt("developer").text == "two\n\nBe brief.\n"


def test_changed_files_count_at_once_and_bad_ones_leave_the_last_good_ones(tmp_path: Path) -> None:
    write(tmp_path, "a.yaml", "developer", "one")
    prompts = RolePrompts(tmp_path)
    assert prompts.prompt("developer").text.startswith("one\n")
    write(tmp_path, "a.yaml", "developer", "two")
    assert prompts.prompt("developer").text.startswith("two\n")
    (tmp_path / "a.yaml").write_text("roles: [")
    assert prompts.prompt("developer").text.startswith("two\n")
    [problem] = prompts.problems
    assert problem.startswith(f"{tmp_path / 'a.yaml'}: line ")
    assert problem.endswith("what it said before counts on")
    write(tmp_path, "a.yaml", "developer", "three")
    assert prompts.prompt("developer").text.startswith("three\n")
    assert prompts.problems == ()
    (tmp_path / "a.yaml").unlink()
    assert prompts.prompt("developer") == RolePrompts(Path("/nowhere")).prompt("developer")


BAD = [
    ("[]", "roles: expected a mapping"),
    ("roles:\n  developer: text", r"roles\.developer\.system_prompt: expected a text"),
    ("roles:\n  developer:\n    system_prompt: ''", "expected a text"),
    ("roles:\n  1:\n    system_prompt: x", "expected a text"),
    ("roles: &a {developer: {system_prompt: x}}\nmore: *a", "aliases"),
    ("roles: {developer: {system_prompt: x}}\nroles: {}", "roles is given twice"),
    ("roles: !!python/object/apply:os.system [ls]", "could not determine a constructor"),
    ("roles: " + "[" * 5000, "YAML"),
]


@pytest.mark.parametrize(("text", "why"), BAD)
def test_what_cannot_be_used_says_why(text: str, why: str) -> None:
    with pytest.raises(PromptFileInvalid, match=why):
        read_roles(text)


def test_files_of_other_kinds_are_named(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").mkdir()
    (tmp_path / "b.yaml").write_bytes(b"\xff\xfe")
    (tmp_path / "c.yaml").write_bytes(b"#" * 300_000)
    (tmp_path / "d.yaml").symlink_to("/dev/zero")
    prompts = RolePrompts(tmp_path)
    assert prompts.prompt("developer") == RolePrompts(Path("/nowhere")).prompt("developer")
    assert [problem.rpartition(": ")[2] for problem in prompts.problems] == [
        "not a file", "not UTF-8 text", "larger than 65536 bytes", "not a file",
    ]  # fmt: skip


@given(
    st.text(max_size=80) | st.from_regex(r"roles:\n  .{0,20}:\n    system_prompt: .{0,20}", fullmatch=True)
)
def test_any_text_is_roles_or_named(text: str) -> None:
    try:
        roles = read_roles(text)
    except PromptFileInvalid:
        return
    assert all(prompt.strip() for prompt in roles.values())
