"""Golden runs: whatever moves within the package, no bit of a trained model does."""

import math
from pathlib import Path

import pytest
from golden_runs import ALIKE, RUNS, machine, outcome, read_golden, write_all

GOLDEN = read_golden()
KNOWN = GOLDEN["digests"].get(machine(), {})
RELATIVE = 1e-4

_SEEN: dict[str, tuple[str, list[float]]] = {}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_all(tmp_path_factory.mktemp("golden") / "data")


def once(name: str, data: Path) -> tuple[str, list[float]]:
    """What a run comes to, done once for all tests of this process."""
    if name not in _SEEN:
        _SEEN[name] = outcome(name, data)
    return _SEEN[name]


@pytest.mark.parametrize("name", RUNS)
def test_a_run_gives_the_bits_that_it_always_gave(data: Path, name: str) -> None:
    """On a machine that is known to the last bit, on any other one to four digits."""
    digest, floats = once(name, data)
    # Another processor or another version of a library rounds otherwise (vector lengths, fused products, logarithms), so that
    # elsewhere only the numbers can agree and not their bits.
    assert all(math.isclose(*pair, rel_tol=RELATIVE) for pair in zip(floats, GOLDEN["floats"][name], strict=True)), floats
    if KNOWN:
        assert digest == KNOWN[name]


@pytest.mark.parametrize("name", ALIKE)
def test_stops_workers_and_threads_leave_no_trace_in_these_bits(data: Path, name: str) -> None:
    """A run that is stopped and resumed, or that others do the work of, ends with the bits of the run left alone."""
    assert outcome(name, data) == once(ALIKE[name][1], data)


def test_no_run_is_left_out_and_none_is_noted_that_is_gone() -> None:
    """The file of golden digests holds exactly the runs that there are, for every machine."""
    assert {*GOLDEN["floats"]} == {*RUNS}
    assert all({*digests} == {*RUNS} for digests in GOLDEN["digests"].values())
