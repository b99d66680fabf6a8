"""FTRL in batches of one row is Vowpal Wabbit's --ftrl, where that does not confine its scores.

McMahan et al. 2013 are what is right (`test_optimizers`). Vowpal Wabbit confines scores to the range of the labels so far
before it takes their slope, which the paper does not: a wide range given to it is none.
"""

import numpy as np
import pyarrow as pa
import pytest
from vowpal import DATA, PLAIN, progressive_loss_of_vowpal_wabbit, targets

import streamsgd

WIDE = "--min_prediction -1e9 --max_prediction 1e9"
"""To no effect on logistic losses, whose scores are confined to -50 and 50."""


@pytest.mark.parametrize("hyper", [(0.005, 0.1, 0.0, 0.0), (0.1, 1.0, 0.0, 0.0), (0.1, 1.0, 0.5, 2.0)], ids=str)
@pytest.mark.parametrize("name", DATA)
@pytest.mark.parametrize("loss", ["squared", "logistic", "hinge"])
def test_the_progressive_loss_is_that_of_vowpal_wabbit(loss: str, name: str, hyper: tuple[float, ...]) -> None:
    """5e-7 in all of them; they reckon in float32."""
    data, (alpha, beta, l1, l2) = DATA[name](), hyper
    y = targets(loss, data.signal)
    # Their squared loss is twice ours, and so are its slopes: what is weighed against sums of slopes is half.
    twice = 2.0 if loss == "squared" else 1.0
    optimizer = f"ftrl:learning_rate={alpha},beta={beta / twice},l1={l1 / twice},l2={l2 / twice}"
    settings = {**PLAIN, **data.settings, "optimizer": optimizer, "batch_size": 1}
    model = streamsgd.train(pa.table({**data.columns, "y": y}), "y", loss=loss, **settings)
    arguments = f"--ftrl --ftrl_alpha {alpha} --ftrl_beta {beta} --l1 {l1} --l2 {l2} {'' if loss == 'logistic' else WIDE}"
    expected = progressive_loss_of_vowpal_wabbit(arguments, loss, data, y)
    assert twice * float(model.metrics["progressive_loss"]) == pytest.approx(expected, rel=1e-5)
    assert np.isfinite(model.weights).all()
