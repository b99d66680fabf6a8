"""A machine beside the linear model: both learn every row of one pass, and the better one is kept.

The linear model is that of a run with `--model linear`, bit for bit. What both predict is mixed with weights by the losses so
far, as in `kernels.learn.race`; the loss of the mixture follows from the sums of both alone. For the negative logarithm of a
likelihood it is

    L = -log(exp(-L_1) / 2 + exp(-L_2) / 2) <= min(L_1, L_2) + log 2

because what the mixture pays for the rows one after another telescopes (Vovk 1990, COLT). For squared losses of targets and
scores within a range of R it is at most min(L_1, L_2) + R^2 log 2 (Kivinen and Warmuth 1999), and what is told is that bound by
both sums. So a machine that learns nothing costs log 2 / n in the mean loss of n rows.
"""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from streamsgd.kernels.structs.state import LEAST, LOSS, MOST, WEIGHT
from streamsgd.training.rivals.factor_rates import described, losses_of

if TYPE_CHECKING:
    from collections.abc import Mapping

log = logging.getLogger("streamsgd")


def machine(learner: Any) -> Any:
    """Return the machine whose rows cost least so far, while several learn: the first one of those that cost the same."""
    if not learner.others:
        return learner
    return min([learner, *learner.others], key=lambda one: float(one.own_tally[LOSS]) if one.is_finite else math.inf)


def kept(learner: Any) -> Any:
    """Return the learner of both whose rows cost less when they were new; that of the machine if they cost the same."""
    own, rival = machine(learner), learner.rival
    return own if rival is None or not rival.own_tally[LOSS] < own.own_tally[LOSS] else rival


def compared(learner: Any) -> dict[str, Any]:
    """Return what both came to, as plain values for the model's metrics: mean losses, that of the mixture, and its bound.

    The last two are None for losses that are no likelihood, and for squared losses of weighted rows. Where machines of several
    rates learned the first rows, `rates` has what they came to there; mixed they are the machine of the mixture.
    """
    weight = float(learner.own_tally[WEIGHT]) or 1.0
    sums = [float(one.own_tally[LOSS]) for one in (machine(learner), learner.rival)]
    eta = _temper(learner)
    found = learner.factor_rates or (described(learner, learner.others) if learner.others else None)
    name = learner.job.settings.model.partition(":")[0]
    mixed = sums
    if found and eta is not None:
        losses = losses_of(found["losses"])
        mixed = [sums[0] + mixture(losses, eta) - min(losses), sums[1]]
    return {
        "kept": "linear" if kept(learner) is learner.rival else name,
        name: sums[0] / weight,
        "linear": sums[1] / weight,
        "mixture": None if eta is None else mixture(mixed, eta) / weight,
        "at_most_above_linear": None if eta is None else math.log(2.0) / eta / weight,
        **({"rates": found} if found else {}),
    }


def mixture(sums: list[float], eta: float) -> float:
    """Return -log(mean exp(-eta L)) / eta."""
    least = min(sums)
    return least - math.log(np.mean(np.exp([-eta * (one - least) for one in sums]))) / eta


def _temper(learner: Any) -> float | None:
    mixing = getattr(type(learner.job.parts.loss), "mixing", "")
    if mixing == "likelihood":
        return 1.0
    weighted = learner.job.recipe.weight is not None or bool(learner.job.class_weights)
    if mixing != "squares" or weighted:
        return None
    least, most = learner.state.sums[[LEAST, MOST]]
    width = max(float(most), 0.0) - min(float(least), 0.0)
    return 1.0 / (width * width) if width else None


def say_kept(metrics: Mapping[str, Any]) -> None:
    """Say that the linear model is kept instead of the machine that was asked for, if it is."""
    found = next((said["beside"] for said in metrics.values() if isinstance(said, dict) and "beside" in said), None)
    if found is not None and found["kept"] == "linear":
        log.warning("%s. The model is linear; against=none in --model keeps the machine", in_words(found))


def in_words(found: dict[str, Any]) -> str:
    """Return a line of what both came to."""
    name = next(key for key in found if key not in ("kept", "linear", "mixture", "at_most_above_linear", "rates"))
    rate = f" with rate={found['rates']['rate']:g}" if "rates" in found else ""
    both = f"{name}{rate} {found[name]:.6g} beside linear {found['linear']:.6g}"
    line = f"{both}, loss of rows when they were new: kept {found['kept']}"
    return line if found["mixture"] is None else f"{line}; mixed they come to {found['mixture']:.6g}"
