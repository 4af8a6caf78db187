"""The direction of imports: processes never import each other, floors never import processes, pure modules
stay pure.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import chorus

ROOT = Path(chorus.__file__).parent

# What all processes stand on, then what is shared above it, then the processes and programs themselves.
LOW = {"core", "_core", "config", "hub", "license", "wire"}
MIDDLE = {
    "process",
    "table",
    "archives",
    "blobs",
    "decisions",
    "curator",
    "hmmm",
    "reasoning",
    "telemetry",
    "whoosh",
}
TOP = {"agent", "node", "election", "coordinator", "executor", "mind", "api", "ctl"}
KITS = {"testing", "dev"}

# Modules of these names take time and chance as arguments and do no I/O.
PURE = {
    "units",
    "secret",
    "gate",
    "states",
    "moments",
    "refusals",
    "shown",
    "exposure",
    "challenges",
    "programs",
    "transitions",
    "policy",
    "score",
    "matching",
    "fit",
}
# And all modules of these packages.
PURE_PACKAGES = ("chorus.mind.run.",)
IMPURE_IMPORTS = {
    "asyncio",
    "socket",
    "subprocess",
    "random",
    "time",
    "chorus.core",
    "chorus._core",
    "chorus.hub",
}


def modules() -> Iterator[tuple[str, Path]]:
    for path in sorted(ROOT.rglob("*.py")):
        yield ".".join(("chorus", *path.relative_to(ROOT).with_suffix("").parts)), path


def imports_of(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return found


def package_of(name: str) -> str | None:
    parts = name.split(".")
    return parts[1] if parts[0] == "chorus" and len(parts) > 1 else None


def may_import(importer: str, imported: str) -> bool:
    if importer == imported or importer in KITS:
        # Kits stand outside the building: they may look into every room, and nobody may need them.
        return True
    if imported in LOW:
        # Low floors know each other, but never what is above.
        return True
    if imported in MIDDLE:
        return importer not in LOW
    return (importer, imported) == ("ctl", "dev")


def test_every_package_has_a_floor() -> None:
    packages = {path.name for path in ROOT.iterdir() if path.is_dir() and any(path.glob("*.py"))}
    assert packages <= LOW | MIDDLE | TOP | KITS


def test_imports_go_downwards() -> None:
    wrong = []
    for module, path in modules():
        importer = package_of(module)
        if importer is None or importer == "__init__":
            continue
        for imported in sorted({package_of(name) or "" for name in imports_of(path)}):
            known = imported in LOW | MIDDLE | TOP | KITS
            if known and not may_import(importer, imported):
                wrong.append(f"{module} imports chorus.{imported}")
    assert wrong == []


def test_pure_modules_do_no_io() -> None:
    wrong = []
    for module, path in modules():
        if path.stem in PURE or module.startswith(PURE_PACKAGES):
            wrong += [f"{module} imports {name}" for name in sorted(imports_of(path) & IMPURE_IMPORTS)]
    assert wrong == []


def test_mains_are_small() -> None:
    for _, path in modules():
        if limit := {"__main__.py": 15, "__init__.py": 80}.get(path.name):
            lines = len(path.read_text(encoding="utf-8").splitlines())
            assert lines <= limit, f"{path} has {lines} lines"


def test_no_two_test_files_share_a_name() -> None:
    # Outside packages pytest knows a test file by its name alone, and collects one of two that share it.
    tests = Path(__file__).parent.parent
    # Those below tests/goals are what goals are about, and not collected.
    found = [path for path in tests.rglob("test_*.py") if path.relative_to(tests).parts[0] != "goals"]
    alone = [path for path in found if not (path.parent / "__init__.py").exists()]
    shared = [name for name, count in Counter(path.name for path in alone).items() if count > 1]
    assert not shared, shared
