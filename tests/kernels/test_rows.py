"""Rows of bytes to their places and back, and a checksum that any changed word changes; NumPy says what is right."""

import numpy as np
import pytest

from streamsgd.kernels.encode.rows import LANES, checksum, place_rows, take_rows


@pytest.mark.parametrize("width", [1, 3, 30, 129])
@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_rows_go_to_their_places_and_come_back(width: int, kind: type) -> None:
    rng = np.random.default_rng(width)
    n, block = 1000, np.zeros((1500, width), kind)
    keep = rng.random(n) < 0.8
    dest = np.full(n, -1, np.int32)
    dest[keep] = 200 + rng.permutation(int(keep.sum()))
    rows = rng.normal(size=(int(keep.sum()), width)).astype(kind)
    size, half = rows.strides[0], len(rows) // 2
    at = place_rows(rows.ctypes.data, size, half, dest, 0, block.ctypes.data, 200)
    assert np.count_nonzero(dest[:at] >= 0) == half
    place_rows(rows[half:].ctypes.data, size, len(rows) - half, dest, at, block.ctypes.data, 200 + half)
    expected = np.zeros_like(block)
    expected[dest[keep]] = rows
    np.testing.assert_array_equal(block, expected)
    back = np.zeros_like(rows)
    at = take_rows(block.ctypes.data, size, half, dest, 0, back.ctypes.data)
    take_rows(block.ctypes.data, size, len(rows) - half, dest, at, back[half:].ctypes.data)
    np.testing.assert_array_equal(back, rows)


@pytest.mark.parametrize("n", [1, 4, 11, 64])
def test_any_bit_of_any_word_changes_the_checksum(n: int) -> None:
    words = np.random.default_rng(n).integers(0, 1 << 63, n, dtype=np.uint64)

    def found() -> bytes:
        sums = np.zeros(LANES, np.uint64)
        checksum(words.ctypes.data, n, sums)
        return sums.tobytes()

    seen = {found()}
    for k in range(n):
        for bit in (0, 31, 63):
            words[k] ^= np.uint64(1 << bit)
            seen.add(found())
            words[k] ^= np.uint64(1 << bit)
    assert len(seen) == 1 + 3 * n
    words[[0, n - 1]] = words[[n - 1, 0]]
    assert n == 1 or found() not in seen or words[0] == words[n - 1]
