"""Matches the paths of a workspace against a task's artifact globs, in bounded time. Pure.

All globs together are one nondeterministic automaton whose set of states is the bits of one integer, moved by
one character at a time: nothing is tried twice, whatever the globs and the paths are. Which files are taken
is left to the workspace.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

# Linux opens no longer path; none of them could be packed.
PATH_CHARS_MAX = 4096
# A step moves so many states for about the price of one.
_STATES_A_STEP = 512
# Steps of one match of a workspace, each below a microsecond. 200,000 files with names of 40 characters and a
# few globs need 8,000,000.
STEPS_MAX = 20_000_000


class TooMuchWork(Exception):
    """The globs and the paths together need more steps than are allowed."""


class Globs:
    """`*` and `?` stay inside a folder, `**` crosses them; a folder's name means everything in it.

    Folders are remembered, so that a path costs no more than its last part. For one thread at a time.
    """

    def __init__(self, globs: Iterable[str], *, steps_max: int = STEPS_MAX) -> None:
        # Masks of states. By the character that leads to the next state:
        self._literal: dict[str, int] = {}
        self._any_but_slash = 0
        # Those that any character leaves as they are, and any but a slash.
        self._loop = self._loop_but_slash = 0
        # Those from which the next state, and the one after it, is reached without a character.
        self._skip_one = self._skip_two = 0
        self._accept = 0
        self._states = 0
        start = 0
        for glob in globs:
            start |= 1 << self._states
            self._add(glob)
        self._cost = 1 + self._states // _STATES_A_STEP
        self._steps_left = steps_max
        self._folders: dict[str, int] = {"": self._closure(start)}

    def match(self, path: str) -> bool:
        """Whether a glob fits the path; a path that is too long to be opened fits none.

        Raises TooMuchWork.
        """
        if len(path) > PATH_CHARS_MAX:
            return False
        cut = path.rfind("/") + 1
        return bool(self._move(self._folder(path[:cut]), path[cut:]) & self._accept)

    def _add(self, glob: str) -> None:
        """Appends the states of one glob."""
        for token in _tokens(glob):
            here = 1 << self._states
            self._states += 1
            match token:
                case "**/":
                    # Nothing, or anything up to a slash: what has begun must come to its slash.
                    self._skip_one |= here
                    self._skip_two |= here
                    self._loop |= here << 1
                    self._on("/", here << 1)
                    self._states += 1
                case "**":
                    self._skip_one |= here
                    self._loop |= here
                case "*":
                    self._skip_one |= here
                    self._loop_but_slash |= here
                case "?":
                    self._any_but_slash |= here
                case _:
                    self._on(token, here)
        # The whole glob, and what lies below what it names.
        end = 1 << self._states
        self._on("/", end)
        self._loop |= end << 1
        self._accept |= end | end << 1
        self._states += 2

    def _on(self, character: str, state: int) -> None:
        self._literal[character] = self._literal.get(character, 0) | state

    def _folder(self, path: str) -> int:
        """The states after a folder's path, which ends with a slash."""
        unknown = []
        while (states := self._folders.get(path)) is None:
            cut = path.rfind("/", 0, -1) + 1
            unknown.append((path, path[cut:]))
            path = path[:cut]
        for folder, part in reversed(unknown):
            states = self._folders[folder] = self._move(states, part)
        return states

    def _move(self, states: int, text: str) -> int:
        for character in text:
            if not states:
                break
            self._steps_left -= self._cost
            if self._steps_left < 0:
                raise TooMuchWork
            taken = self._literal.get(character, 0)
            stays = self._loop
            if character != "/":
                taken |= self._any_but_slash
                stays |= self._loop_but_slash
            states = self._closure((states & taken) << 1 | states & stays)
        return states

    def _closure(self, states: int) -> int:
        while True:
            more = states | (states & self._skip_one) << 1 | (states & self._skip_two) << 2
            if more == states:
                return states
            states = more


def _tokens(glob: str) -> Iterator[str]:
    """The glob's parts, without those that add nothing to the one before them."""
    before = ""
    position = 0
    while position < len(glob):
        token = next((sign for sign in ("**/", "**") if glob.startswith(sign, position)), glob[position])
        position += len(token)
        # Else a long row of them would cost a pass for each.
        if not (before == "**" and token in ("*", "**", "**/")) and (before, token) != ("**/", "**/"):
            before = token
            yield token
