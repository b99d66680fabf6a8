"""How well the weights of a model are known, by column and value, in the units of the columns."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from streamsgd.features.encoder import Encoder
from streamsgd.model.posterior.draws import Draws

if TYPE_CHECKING:
    from streamsgd.model.model import Model

NINETY = 1.6448536269514722
"""Standard deviations to either side of the mean that hold 90 % of a normal distribution."""


class Term(NamedTuple):
    """A linear function of the encoded weights: what a weight is in the units of its column."""

    column: str | None
    """None of the intercept."""
    value: str | None
    places: np.ndarray
    """int64: coordinates."""
    factors: np.ndarray
    """float64: of each."""
    shift: float = 0.0
    """What is added."""


def terms_of(model: Model) -> list[Term]:
    """Return the intercept, the numbers, and the values that are known by name."""
    encoding, target = model.encoding, model.target
    unit = 1.0 / target.scale if target.task == "regression" else 1.0
    scale, shift = model.units()
    width, last = encoding.width, encoding.n_coordinates - 1
    across = np.append(-scale * shift * unit, unit)
    begin = target.shift if target.task == "regression" else 0.0
    found = [Term(None, None, np.append(np.arange(width), last), across, begin)]
    found += [Term(each.name, None, np.array([j]), scale[j : j + 1] * unit) for j, each in enumerate(encoding.numbers)]
    for kind in Encoder(encoding).kinds:
        labels = kind.labels(model.common)
        found += [Term(name, value, np.array([place]), np.array([unit])) for name, value, place, _rows in labels]
    return found


def weights_of(model: Model) -> list[dict[str, Any]]:
    """Return what is known of each weight, as JSON values: of draws, else of standard errors, else nothing.

    Every entry has `column`, `value`, `mean`, `sd`, `low`, `high`, `r_hat` and `ess`, in the units of the column; the column of
    the intercept is None, as are what there is not and what the data does not determine. `low` and `high` are the 5 and 95 %
    points. Of several classes there is an entry for each, with its `class`; draws have a `median` too, and standard errors `z`
    and `p`, of the hypothesis that the weight is 0.
    """
    if model.draws is None and model.covariance is None:
        return []
    names = list(model.classes) if model.n_outputs > 1 else [None]
    found = []
    for term in terms_of(model):
        for k, name in enumerate(names):
            places = term.places * model.n_outputs + k
            told = _of_draws(model.draws, term, places) if model.draws is not None else _of_errors(model, term, places)
            said = {key: value if value is None or math.isfinite(value) else None for key, value in told.items()}
            found.append({"column": term.column, "value": term.value, **({} if name is None else {"class": name}), **said})
    return found


def _of_draws(draws: Draws, term: Term, places: np.ndarray) -> dict[str, float | None]:
    mean = float(draws.mean[places] @ term.factors) + term.shift
    if len(places) == 1:
        factor = float(term.factors[0])
        low, median, high = (draws.quantiles(0.05, 0.5, 0.95)[:, places[0]] * factor).tolist()
        numbers = math.sqrt(draws.variance[places[0]]) * abs(factor), float(draws.r_hat[places[0]]), float(draws.ess[places[0]])
    else:  # of the sum of draws, which is what an interval is about
        sums = (draws.store[:, :, places] @ term.factors)[:, :, None]
        one = Draws.of(np.zeros(1), np.zeros(1), np.ones((1, 1)), sums.astype(np.float32))
        shift = float(draws.mode[places] @ term.factors)
        low, median, high = (one.quantiles(0.05, 0.5, 0.95)[:, 0] + shift + term.shift).tolist()
        sd = float(sums.std(ddof=1)) if draws.covariance is None else _sd(draws.covariance, places, term.factors)
        numbers = sd, float(one.r_hat[0]), float(one.ess[0])
    ends = {"low": min(low, high), "median": median, "high": max(low, high)}
    return {"mean": mean, "sd": numbers[0], **ends, "r_hat": numbers[1], "ess": numbers[2]}


def _of_errors(model: Model, term: Term, places: np.ndarray) -> dict[str, float | None]:
    assert model.covariance is not None, "weights_of looks"  # noqa: S101  for the type checker
    mean = float(model.weights.astype(np.float64).ravel()[places] @ term.factors) + term.shift
    used = term.factors != 0.0
    sd = _sd(model.covariance, places[used], term.factors[used])
    z = mean / sd if sd > 0.0 else math.nan
    ends = {"low": mean - NINETY * sd, "high": mean + NINETY * sd, "r_hat": None, "ess": None}
    return {"mean": mean, "sd": sd, **ends, "z": z, "p": math.erfc(abs(z) / math.sqrt(2.0))}


def _sd(covariance: np.ndarray, places: np.ndarray, factors: np.ndarray) -> float:
    """Return the standard deviation of a linear function of weights."""
    return math.sqrt(max(float(factors @ covariance[np.ix_(places, places)] @ factors), 0.0))
