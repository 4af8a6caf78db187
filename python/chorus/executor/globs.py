"""Matches the paths of a workspace against a task's artifact globs, in bounded time. Pure.

All globs together are one nondeterministic automaton whose set of states is the bits of one integer, moved by
one character at a time: nothing is tried twice, whatever the globs and the paths are. Which files are taken
is left to the workspace.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Final, NamedTuple

# Folders of longer paths are not remembered: the prefixes of one path would take its length squared.
_REMEMBERED_CHARS_MAX = 4096
# A step moves so many states for about the price of one.
_STATES_A_STEP = 512
# Steps of one match of a workspace, each below a microsecond. 200,000 files with names of 40 characters and a
# few globs need 8,000,000.
STEPS_MAX = 20_000_000
# What the braces of all globs of a task may be written out to: as much as 64 globs of 1024 characters.
ALTERNATIVES_MAX: Final = 1024
ALTERNATIVES_CHARS_MAX: Final = 64 * 1024
# Characters whose way through the sets in brackets is remembered.
_CHARACTERS_MAX = 256
# A look at so many ranges of sets in brackets costs about a step.
_RANGES_A_STEP = 4


class TooMuchWork(Exception):
    """The globs and the paths together need more steps than are allowed."""


class _OneOf(NamedTuple):
    """A set in brackets: whether a character between two others, both counted, is in it."""

    ranges: tuple[tuple[str, str], ...]
    negated: bool

    def holds(self, character: str) -> bool:
        inside = any(first <= character <= last for first, last in self.ranges)
        return character != "/" and inside is not self.negated


class _Sign(NamedTuple):
    """A wildcard, told from the characters that it is written with."""

    text: str


_STAR, _ANY = _Sign("*"), _Sign("?")
_CROSS, _CROSS_FOLDERS = _Sign("**"), _Sign("**/")
_Token = _Sign | _OneOf | str


class Globs:
    """`*` and `?` stay inside a folder, `**` crosses them; `[a-z]` and `[!a-z]` are one character of a set,
    `{a,b}` is either; a backslash takes the meaning from the character after it. A folder's name means
    everything in it.

    Folders are remembered, so that a path costs no more than its last part. For one thread at a time.
    """

    def __init__(
        self,
        globs: Iterable[str],
        *,
        steps_max: int = STEPS_MAX,
        alternatives_max: int = ALTERNATIVES_MAX,
        alternatives_chars_max: int = ALTERNATIVES_CHARS_MAX,
    ) -> None:
        # Masks of states. By the character that leads to the next state:
        self._literal: dict[str, int] = {}
        self._any_but_slash = 0
        self._one_of: list[tuple[_OneOf, int]] = []
        self._of_character: dict[str, int] = {}
        # Those that any character leaves as they are, and any but a slash.
        self._loop = self._loop_but_slash = 0
        # Those from which the next state, and the one after it, is reached without a character.
        self._skip_one = self._skip_two = 0
        # The states at the end of each glob, of all its alternatives.
        self._ends: dict[str, int] = {}
        self._states = 0
        start = 0
        # Those whose braces stand for more than is left of the bounds; they fit nothing.
        self.refused: list[str] = []
        left, chars_left = alternatives_max, alternatives_chars_max
        for glob in dict.fromkeys(globs):
            alternatives = _alternatives(glob, left, chars_left)
            if alternatives is None:
                self.refused.append(glob)
                continue
            left, chars_left = left - len(alternatives), chars_left - sum(map(len, alternatives))
            for plain in alternatives:
                start |= 1 << self._states
                self._ends[glob] = self._ends.get(glob, 0) | self._add(plain)
        self._accept = 0
        for end in self._ends.values():
            self._accept |= end
        self._fitted = 0
        self._cost = 1 + self._states // _STATES_A_STEP
        self._cost_of_sets = sum(len(each.ranges) for each, _ in self._one_of) // _RANGES_A_STEP
        self._steps_left = steps_max
        self._folders: dict[str, int] = {"": self._closure(start)}

    def match(self, path: str) -> bool:
        """Whether a glob fits the path. Raises TooMuchWork."""
        fits = self._reached(path) & self._accept
        self._fitted |= fits
        return bool(fits)

    def naming(self, path: str) -> list[str]:
        """The globs that fit the path itself, not only a folder that it lies in. Raises TooMuchWork."""
        reached = self._reached(path)
        if not reached & self._accept:
            return []
        self._spend(len(self._ends) // _RANGES_A_STEP)
        # Below what a glob names lies one state further than its end.
        return [glob for glob, ends in self._ends.items() if reached & ends & ~(ends << 1)]

    def reaches_below(self, folder: str) -> bool:
        """Whether a path in the folder could fit. Raises TooMuchWork."""
        return bool(self._move(self._folders[""], f"{folder}/"))

    def unmatched(self) -> list[str]:
        """The globs that no path has fitted so far."""
        return [glob for glob, ends in self._ends.items() if not ends & self._fitted]

    def _reached(self, path: str) -> int:
        """The states after a path."""
        cut = path.rfind("/") + 1
        folder = self._folders[""]
        if cut > _REMEMBERED_CHARS_MAX:
            folder = self._move(folder, path[:cut])
        elif cut:
            folder = self._folder(path[:cut])
        return self._move(folder, path[cut:])

    def _add(self, glob: str) -> int:
        """Appends the states of one glob; returns those at its end."""
        for token in _tokens(glob):
            here = 1 << self._states
            self._states += 1
            if token is _CROSS_FOLDERS:
                # Nothing, or anything up to a slash: what has begun must come to its slash.
                self._skip_one |= here
                self._skip_two |= here
                self._loop |= here << 1
                self._on("/", here << 1)
                self._states += 1
            elif token is _CROSS:
                self._skip_one |= here
                self._loop |= here
            elif token is _STAR:
                self._skip_one |= here
                self._loop_but_slash |= here
            elif token is _ANY:
                self._any_but_slash |= here
            elif isinstance(token, _OneOf):
                self._one_of.append((token, here))
            else:
                assert isinstance(token, str)
                self._on(token, here)
        # The whole glob, and what lies below what it names.
        end = 1 << self._states
        self._on("/", end)
        self._loop |= end << 1
        self._states += 2
        return end | end << 1

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
            self._spend(self._cost)
            stays = self._loop
            if character != "/":
                stays |= self._loop_but_slash
            states = self._closure((states & self._taken(character)) << 1 | states & stays)
        return states

    def _taken(self, character: str) -> int:
        """The states that a character leads on from."""
        taken = self._literal.get(character, 0)
        if character == "/":
            return taken
        taken |= self._any_but_slash
        if not self._one_of:
            return taken
        known = self._of_character.get(character)
        if known is None:
            self._spend(self._cost_of_sets)
            known = 0
            for each, state in self._one_of:
                if each.holds(character):
                    known |= state
            if len(self._of_character) < _CHARACTERS_MAX:
                self._of_character[character] = known
        return taken | known

    def _spend(self, steps: int) -> None:
        self._steps_left -= steps
        if self._steps_left < 0:
            raise TooMuchWork

    def _closure(self, states: int) -> int:
        while True:
            more = states | (states & self._skip_one) << 1 | (states & self._skip_two) << 2
            if more == states:
                return states
            states = more


def _tokens(glob: str) -> Iterator[_Token]:
    """The glob's parts, without those that add nothing to the one before them."""
    before: _Token = ""
    position = 0
    while position < len(glob):
        token, position = _token(glob, position)
        # Else a long row of them would cost a pass for each.
        adds_nothing = (before is _CROSS and token in (_STAR, _CROSS, _CROSS_FOLDERS)) or (
            before is _CROSS_FOLDERS and token is _CROSS_FOLDERS
        )
        if not adds_nothing:
            before = token
            yield token


def _token(glob: str, position: int) -> tuple[_Token, int]:
    """The part at a position, and where the next one begins."""
    for sign in (_CROSS_FOLDERS, _CROSS, _STAR, _ANY):
        if glob.startswith(sign.text, position):
            return sign, position + len(sign.text)
    if glob[position] == "\\" and position + 1 < len(glob):
        return glob[position + 1], position + 2
    if glob[position] == "[" and (found := _one_of(glob, position)) is not None:
        return found
    return glob[position], position + 1


def _one_of(glob: str, start: int) -> tuple[_OneOf, int] | None:
    """The set that begins at a bracket, and where it ends; None when nothing closes it."""
    position = start + 1
    negated = glob[position : position + 1] in ("!", "^")
    position += negated
    first = position
    ranges = []
    while position < len(glob) and (glob[position] != "]" or position == first):
        low, position = _in_set(glob, position)
        high = low
        if glob[position : position + 1] == "-" and glob[position + 1 : position + 2] not in ("]", ""):
            high, position = _in_set(glob, position + 1)
        ranges.append((low, high))
    return (_OneOf(tuple(ranges), negated), position + 1) if position < len(glob) else None


def _in_set(glob: str, position: int) -> tuple[str, int]:
    if glob[position] == "\\" and position + 1 < len(glob):
        return glob[position + 1], position + 2
    return glob[position], position + 1


def _alternatives(glob: str, most: int, chars_max: int) -> list[str] | None:
    """The globs without braces that one with braces stands for, as shells write them out; None when they are
    more than so many, or more than so many characters.
    """
    done: list[str] = []
    todo = [(glob, 0)]
    while todo:
        each, start = todo.pop()
        if (pair := _braces(each, start)) is None:
            done.append(each)
        else:
            opened, commas, closed = pair
            parts = [each[before + 1 : after] for before, after in pairwise([opened, *commas, closed])]
            head, tail = each[:opened], each[closed + 1 :]
            todo += [(head + part + tail, opened) for part in reversed(parts)]
        chars = sum(map(len, done)) + sum(len(left) for left, _ in todo)
        if len(done) + len(todo) > most or chars > chars_max:
            return None
    return done


def _braces(glob: str, start: int) -> tuple[int, list[int], int] | None:
    """The first pair of braces from a position on with a comma of its own: where it opens, its commas, and
    where it closes.
    """
    pairs: list[tuple[int, list[int], int]] = []
    opened: list[tuple[int, list[int]]] = []
    position = start
    while position < len(glob):
        match glob[position]:
            case "\\":
                position += 1
            case "{":
                opened.append((position, []))
            case "," if opened:
                opened[-1][1].append(position)
            case "}" if opened:
                place, commas = opened.pop()
                if commas:
                    pairs.append((place, commas, position))
        position += 1
    return min(pairs, default=None)
