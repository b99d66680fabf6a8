"""Numbers of a restored state that kernels take for places: what training comes to is let through, all else refused."""

from typing import Any

import numpy as np
import pytest

from streamsgd.kernels.learn.growing import GOAL, LINES, STRIDE
from streamsgd.kernels.learn.langevin import Law
from streamsgd.kernels.structs.state import FILLED, TOUCHED, State, new_clock
from streamsgd.training.phases.chains import law_of
from streamsgd.training.resuming.bounds import check_bounds


class Grown:
    """What is asked of a batch that grows."""

    def __init__(self) -> None:
        self.counts, self.ledger = np.ones(7, np.int64), np.zeros((4, 5))
        self.counts[GOAL] = 128


def state(**clock: int) -> State:
    """Return a state of five weights with room for three that a batch touches."""
    made = State(np.zeros(5), np.zeros((1, 5)), np.zeros(5), new_clock(), np.zeros(3), touched=np.array([4, 0, 2], np.int32))
    for name, value in clock.items():
        made.clock[{"filled": FILLED, "touched": TOUCHED}[name]] = value
    return made


@pytest.mark.parametrize("clock", [{}, {"filled": 63}, {"touched": 3}, {"touched": -1}])
def test_what_training_comes_to_is_let_through(clock: dict[str, int]) -> None:
    check_bounds(state(**clock), 64, None)
    check_bounds(state(**clock), 1, Grown())  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("clock", "said"),
    [
        ({"filled": -1}, "has -1 of 64 rows"),
        ({"filled": 64}, "has 64 of 64 rows"),
        ({"filled": 10**18}, "of 64 rows"),
        ({"touched": 4}, "touches 4 weights, and there is room for 3"),
        ({"touched": -2}, "touches -2 weights"),
    ],
)
def test_places_beyond_an_array_are_refused(clock: dict[str, int], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        check_bounds(state(**clock), 64, None)


@pytest.mark.parametrize("wrong", [5, -1])
def test_weights_that_are_not_there_are_refused(wrong: int) -> None:
    made = state(touched=2)
    made.touched[1] = wrong
    with pytest.raises(ValueError, match="touches weights that are not there"):
        check_bounds(made, 64, None)


@pytest.mark.parametrize(("place", "value"), [(GOAL, 0), (LINES, 5), (LINES, -1), (STRIDE, 0)])
def test_a_batch_that_grows_has_its_own_places(place: int, value: int) -> None:
    grown: Any = Grown()
    grown.counts[place] = value
    with pytest.raises(ValueError, match=r"rows|lines that are not there"):
        check_bounds(state(), 64, grown)


@pytest.mark.parametrize(
    ("field", "value"), [("sides", 0), ("sides", 3), ("batch", 0), ("thin", 0), ("every", -1), ("burn_in", -1)]
)
def test_a_walk_has_the_numbers_of_one(field: str, value: int) -> None:
    law = Law(0.1, 5.0, 0.3, 0.0, 32, 2, 0, 1, 4)._asdict()
    assert law_of(law)._asdict() == law
    with pytest.raises(ValueError, match="numbers that no walk has"):
        law_of({**law, field: value})
