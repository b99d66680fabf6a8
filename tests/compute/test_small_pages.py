"""Memory that is filled once is memory like any other."""

import mmap

import numpy as np
import pytest

from streamsgd.compute.pages import LEAST_BYTES, filled_once


@pytest.mark.parametrize("n_rows", [0, 1, LEAST_BYTES // 12 - 1, LEAST_BYTES // 12 + 1, LEAST_BYTES])
def test_what_was_written_is_there(n_rows: int) -> None:
    """Rows of any number, of pages that they end in the middle of, hold what was written to them."""
    array = filled_once((n_rows, 3), np.float32)
    assert array.shape == (n_rows, 3)
    assert array.dtype == np.float32
    array[:] = wanted = np.arange(3.0 * n_rows, dtype=np.float32).reshape(n_rows, 3)
    np.testing.assert_array_equal(array, wanted)


@pytest.mark.skipif(not hasattr(mmap, "MADV_NOHUGEPAGE"), reason="pages of a size are asked for on Linux")
def test_a_system_that_knows_no_advice_gives_memory_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the system refuses what is asked for ahead (before Linux 5.14) pages come when they are written to."""
    monkeypatch.setattr("streamsgd.compute.pages._POPULATE", 1 << 20)
    array = filled_once((LEAST_BYTES,), np.uint8)
    array[:] = 7
    assert array.sum() == 7 * LEAST_BYTES
