"""Two works take turns: in strict order, alone when the other is done, and neither waits for one that failed."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from raymap.drawing.attention.turns import Turns


def work(turns: Turns, name: str, count: int, said: list[str], fails: bool = False) -> Callable[[], str]:
    """Return a work that says its name at each of its turns, and then returns it or fails."""

    def done() -> str:
        for _ in range(count):
            said.append(name)
            turns.hand_over()
        if fails:
            raise ValueError(name)
        return name

    return done


@pytest.mark.parametrize(
    ("counts", "order"), [((3, 3), "ababab"), ((1, 3), "abbb"), ((3, 1), "abaa"), ((0, 2), "bb"), ((2, 0), "aa")]
)
def test_turns_alternate_and_who_is_left_goes_on_alone(counts: tuple[int, int], order: str) -> None:
    said: list[str] = []
    resumed: list[int] = []
    turns = Turns(resumed.append)
    assert turns.run(*(work(turns, n, k, said) for n, k in zip("ab", counts, strict=True))) == ("a", "b")
    assert "".join(said) == order
    assert resumed[0] == 0
    assert set(resumed) == {0, 1}


@pytest.mark.parametrize("failing", ["a", "b"])
@pytest.mark.parametrize("after", [0, 1, 4])
def test_an_error_of_one_ends_both_and_is_raised(failing: str, after: int) -> None:
    said: list[str] = []
    turns = Turns(lambda number: None)
    works = [work(turns, n, after if n == failing else 9, said, n == failing) for n in "ab"]
    before = threading.active_count()
    with pytest.raises(ValueError, match=failing):
        turns.run(*works)
    assert threading.active_count() == before
    assert len(said) <= 2 * after + 1


def test_an_error_at_the_beginning_of_a_turn_is_raised() -> None:
    def resumed(number: int) -> None:
        if number == 1:
            raise KeyError("adapter")

    turns = Turns(resumed)
    said: list[str] = []
    with pytest.raises(KeyError, match="adapter"):
        turns.run(work(turns, "a", 3, said), work(turns, "b", 3, said))
    assert said == ["a"]
