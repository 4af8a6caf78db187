"""Whatever members go, what one present member still holds is with two in the end."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from chorus.blobs.copies import Give, Part, Say, due, targets

PART = Part("0" * 26, 1)
PEERS = tuple(f"peer-{n}" for n in range(6))


def test_nobody_copies_what_two_hold_or_another_holds_alone() -> None:
    members = dict.fromkeys(PEERS[:3], True)
    assert due("peer-0", PART, ["peer-0", "peer-1"], members) is None
    assert due("peer-0", PART, ["peer-1"], members) is None
    assert due("peer-0", PART, [], members) == Say()
    assert due("peer-0", PART, ["peer-0"], {"peer-0": True, "peer-1": False}) == Give(())


def test_copies_are_spread() -> None:
    members = dict.fromkeys(PEERS, True)
    first = [targets("peer-0", Part(f"{n:026d}"), members)[0] for n in range(200)]
    assert set(first) == set(PEERS) - {"peer-0"}
    # Far from one for all, and from five times the fair share of 40.
    assert max(map(first.count, set(first))) < 80


@st.composite
def _histories(draw: st.DrawFn) -> list[tuple[str, str]]:
    return draw(
        st.lists(
            st.tuples(
                st.sampled_from(["remove", "away", "back", "join", "unnamed", "look", "look"]),
                st.sampled_from(PEERS),
            ),
            max_size=40,
        )
    )


class Mesh:
    """The members, who really has the part, and who is named as its holder."""

    def __init__(self) -> None:
        self.members = dict.fromkeys(PEERS[:3], True)
        self.has = {"peer-0", "peer-1"}
        self.named = ["peer-0", "peer-1"]

    def step(self, what: str, peer: str) -> None:
        if what == "remove":
            self.members.pop(peer, None)
            # Its disk is gone with it: who comes back has nothing.
            self.has.discard(peer)
            self.named = [holder for holder in self.named if holder != peer]
        elif what in ("away", "back") and peer in self.members:
            self.members[peer] = what == "back"
        elif what == "join":
            self.members.setdefault(peer, True)
        elif what == "unnamed" and self.members.get(peer) and self.has & self.present:
            # It has a copy, and whoever gave it died before it could say so.
            self.has.add(peer)
        elif what == "look":
            self.look(peer)

    @property
    def present(self) -> set[str]:
        return {peer for peer, present in self.members.items() if present}

    def look(self, me: str) -> bool:
        """What the member does in one look; whether it did something."""
        if me not in self.has or not self.members.get(me):
            return False
        what = due(me, PART, self.named, self.members)
        if isinstance(what, Say):
            self.named.append(me)
        elif isinstance(what, Give) and what.targets:
            self.has.add(what.targets[0])
            self.named.append(what.targets[0])
        else:
            return False
        return True


@given(_histories())
def test_two_have_it_in_the_end(history: list[tuple[str, str]]) -> None:
    mesh = Mesh()
    for what, peer in history:
        mesh.step(what, peer)
        assert set(mesh.named) <= mesh.has
    # Those that are away come back or are removed at last.
    for peer in [peer for peer, present in mesh.members.items() if not present]:
        mesh.step("remove", peer)
    for _ in PEERS:
        for peer in PEERS:
            mesh.look(peer)
    assert not any(mesh.look(peer) for peer in PEERS)
    wanted = min(2, len(mesh.present)) if mesh.has & mesh.present else 0
    assert len(mesh.named) >= wanted
    assert set(mesh.named) <= mesh.has & mesh.present
