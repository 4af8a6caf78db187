"""Sets two files of bench/run side by side: `bench/compare BEFORE AFTER`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from bench.changes import ForeignFileError, Run, changes, read


def main() -> int:
    """Prints the table, or says on standard error which file cannot be taken."""
    parser = argparse.ArgumentParser(prog="bench/compare", description="What changed between two runs.")
    for name in ("before", "after"):
        parser.add_argument(name, type=Path, metavar=name.upper(), help="a file of bench/run --json")
    arguments = parser.parse_args()
    try:
        before, after = _run(arguments.before), _run(arguments.after)
    except _UnusableFileError as error:
        print(f"bench/compare: {error}", file=sys.stderr)
        return 1
    print(f"before: {arguments.before}, {before.at}, {before.machine}")
    print(f"after:  {arguments.after}, {after.at}, {after.machine}\n")
    print(changes(before, after))
    return 0


class _UnusableFileError(Exception):
    pass


def _run(path: Path) -> Run:
    try:
        return read(path.read_bytes())
    except OSError as error:
        raise _UnusableFileError(f"{path} cannot be read: {error.strerror}") from None
    except ForeignFileError as error:
        raise _UnusableFileError(f"{path} is no file of bench/run: {error}") from None


if __name__ == "__main__":
    sys.exit(main())
