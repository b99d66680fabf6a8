"""Law: where all rows are the same there is no noise, and batches of any size make the steps of gradient descent."""

import numpy as np
import pyarrow as pa
import pytest

import streamsgd

N, STEPS, RATE = 1280, 5, 0.125
DYADIC, OTHERS = (0.5, 0.25, 0.75), (0.1, 1.0 / 3.0, 0.7)
"""Two features and a target, whose sums are exact, or rounded."""


def weights(row: tuple[float, ...], batch: int) -> np.ndarray:
    """Those after some steps; another row, for a target must vary, comes last and is never learned."""
    table = pa.table({name: np.append(np.full(N, value), 0.0) for name, value in zip("aby", row, strict=True)})
    model = streamsgd.train(
        table, "y", optimizer="sgd", learning_rate=RATE, batch_size=batch, steps=STEPS, precision="float64", scale=["none"],
        transform="none", shuffle="none", validation=0.0, memory="1GB", executor="inline",
    )  # fmt: skip
    found: np.ndarray = model.weights[:, 0]
    return found


@pytest.mark.parametrize("row", [DYADIC, OTHERS])
def test_any_batch_makes_the_steps_of_gradient_descent(row: tuple[float, ...]) -> None:
    """The same bits by powers of two, where sums of so many equal values are exact; else within the rounding of such sums."""
    x, w = np.array([*row[:2], 1.0]), np.zeros(3)
    for _ in range(STEPS):
        w = w - RATE * (x @ w - row[2]) * x
    for batch in (1, 2, 8, 64, 256):
        if row is DYADIC:
            assert weights(row, batch).tobytes() == w.tobytes()
        else:
            np.testing.assert_allclose(weights(row, batch), w, rtol=1e-13)
    for batch in (3, 7, 100):
        np.testing.assert_allclose(weights(row, batch), w, rtol=1e-12)
