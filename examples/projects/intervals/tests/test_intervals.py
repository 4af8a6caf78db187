import random

import pytest
from intervals import Intervals


def test_neighbours_become_one() -> None:
    assert list(Intervals([(5, 7), (1, 3), (3, 5), (9, 9)])) == [(1, 7)]


@pytest.mark.parametrize("seed", range(20))
def test_like_sets_of_numbers(seed: int) -> None:
    rng = random.Random(seed)

    def some() -> tuple[Intervals, set[int]]:
        spans = [(start, start + rng.randrange(9)) for start in rng.choices(range(60), k=8)]
        return Intervals(spans), {number for start, end in spans for number in range(start, end)}

    (a, numbers_a), (b, numbers_b) = some(), some()
    for made, numbers in ((a | b, numbers_a | numbers_b), (a & b, numbers_a & numbers_b)):
        assert {number for number in range(-5, 80) if number in made} == numbers
        assert len(made) == len(numbers)
