"""A model that scores rows as dicts, in tens of microseconds each."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from streamsgd.errors import DataError, ModelError
from streamsgd.serving.columns import (
    Number,
    Reader,
    Space,
    binned,
    crossed,
    hashed,
    listed,
    mapped,
    one_hot,
    part_of,
    words,
)
from streamsgd.serving.exact import number_type
from streamsgd.serving.fast import Categories, fast_path, sort_categories, text_of
from streamsgd.serving.given import score_each
from streamsgd.serving.hashing import Lanes, murmur
from streamsgd.serving.links import MEANS, PROBABLE, score_map, softmax
from streamsgd.serving.machines import scorer
from streamsgd.settings.policies import policy_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Row = dict[str, Any]
    Listed = list[tuple[int, float]]
    """Coordinates and factors."""


FLOAT32 = 3.4028235677973366e38
"""From here on a float64 is infinite as float32."""


class Served:
    """Scores rows: dicts from the columns of training to values of Python.

    Numbers are int, float, bool or Decimal, moments datetime or date, categories and texts str or bytes, lists and vectors
    lists, maps dicts or lists of pairs; None, and of numbers NaN, is missing. What is returned is what `Model.predict` of the
    same row returns, to about 1e-6: scores are added up in float64 here.

    Parameters
    ----------
    header
        Loss, encoding, target and settings of a model file.
    weights
        float32 or float64, in one dimension, ordered [coordinate][output].
    n_outputs
        Scores per row; of a model that is not linear, parameters per coordinate.

    Raises
    ------
    ModelError
        The loss, the model or a kind of column is not streamsgd's.

    """

    def __init__(self, header: dict[str, Any], weights: Any, n_outputs: int) -> None:
        self.loss, encoding, settings = header["loss"]["name"], header["encoding"], header.get("settings", {})
        _check(self.loss, encoding)
        self.target = header["target"]
        self.classes: tuple[Any, ...] = tuple(self.target["classes"])
        self.columns: tuple[str, ...] = tuple(_sources(encoding))
        said = header.get("model")
        self.n_outputs = 1 if said else n_outputs
        self._infinite = settings.get("infinite") == "missing"
        self._most = FLOAT32 if memoryview(weights).format == "f" else math.inf
        self._nulls = settings.get("missing_columns") == "null"
        self._outputs = [weights[k::n_outputs] for k in range(n_outputs)]
        self._intercepts = [output[-1] for output in self._outputs]
        self._readers = {column["name"]: _reader(column, encoding) for column in encoding["types"]}
        given = encoding["hashed"]
        self._space = Space(given["first"], (1 << given["bits"]) - 1) if given else Space(0, 0)
        self._set_numbers(encoding["columns"], settings.get("missing") or ())
        categories = self._set_categories(encoding["categories"], encoding["crosses"])
        self._tails = [self._tail(config) for config in encoding["tails"]]
        self._map = score_map(header.get("score_map"))
        self._set_places(encoding)
        self._machine = scorer(said, weights, n_outputs, self._n_places) if said else None
        self._fast = fast_path(self._numbers, categories, weights, self._most) if self._is_plain(categories) else None

    # --- what is predicted

    def predict(self, rows: Any) -> Any:
        """Return the prediction of a row, or a list of those of rows: a value, an expected count, or the likeliest class.

        Raises
        ------
        DataError
            A row lacks a column, or holds a value that is none of training's; the message says which. Or it is no dict.

        """
        return self._each(self._predict_one, rows)

    def predict_proba(self, rows: Any) -> Any:
        """Return the probabilities of a row, a list in the order of `classes`, or a list of those of rows.

        Raises
        ------
        ModelError
            The model's loss has no probabilities.
        DataError
            As `predict`.

        """
        if self.loss not in PROBABLE:
            raise ModelError(f"a model of loss {self.loss} has no probabilities; use predict")
        return self._each(self._probabilities, rows)

    def decision_function(self, rows: Any) -> Any:
        """Return the score of a row, or a list of those of rows; of several classes a list each."""
        return self._each(self._decide, rows)

    def _each(self, function: Callable[[Row], Any], rows: Any) -> Any:
        return function(rows) if isinstance(rows, dict) else score_each(function, rows)

    def _predict_one(self, row: Row) -> Any:
        scores = self._scores(row)
        if len(scores) > 1:
            return self.classes[max(range(len(scores)), key=scores.__getitem__)]
        mean = MEANS[self.loss](scores[0])
        return self.classes[int(mean >= 0.5)] if self.classes else self._in_units(mean)

    def _probabilities(self, row: Row) -> list[float]:
        scores = self._scores(row)
        if len(scores) > 1:
            return softmax(scores)
        mean = MEANS[self.loss](scores[0])
        return [1.0 - mean, mean]

    def _decide(self, row: Row) -> Any:
        scores = self._scores(row)
        return scores if len(scores) > 1 else self._in_units(scores[0])

    def _in_units(self, value: float) -> float:
        if self.target["task"] != "regression":
            return value
        found: float = value / self.target["scale"] + self.target["shift"]
        return found

    # --- scores

    def _scores(self, row: Row) -> list[float]:
        scores = self._sums(row)
        return scores if self._map is None else [self._map(scores[0])]

    def _sums(self, row: Row) -> list[float]:
        if self._fast is not None:
            score = self._fast(row)
            if score is not None:
                return [score]
        make = self._add_up if self._machine is None else self._by_machine
        try:
            return make(row)
        except OverflowError as error:
            raise DataError(f"the row holds an integer that no float can hold: {error}") from error
        except UnicodeEncodeError as error:
            raise DataError(f"the row holds text that is no Unicode: {error.object[:40]!a}") from error
        except KeyError as error:
            name = error.args[0]
            if not self._nulls or name not in self.columns:
                raise DataError(
                    f"the row has no column {name!r}, which the model was trained with; a model that is trained with "
                    "--missing-columns null takes it as null"
                ) from None
        return make({**dict.fromkeys(self.columns), **row})

    def _add_up(self, row: Row) -> list[float]:
        """Return the sum of the weights of a row, for every output."""
        factors, places, crosses, tails = self._listed(row)
        factors += crosses
        for entries in tails:
            factors += entries
        scores = []
        for weights, intercept in zip(self._outputs, self._intercepts, strict=True):
            score = intercept + sum([weights[place] * factor for place, factor in factors])
            scores.append(score + sum([weights[place] for place in places]))
        return scores

    def _by_machine(self, row: Row) -> list[float]:
        """Return the score of a model that is not linear, of entries (coordinate, factor, place)."""
        assert self._machine is not None  # noqa: S101  for the type checker
        factors, places, crosses, tails = self._listed(row)
        entries = [(place, factor, place) for place, factor in factors]
        entries += [(place, 1.0, self._category_places[name]) for name, place in zip(self._names, places, strict=True)]
        entries += [(*entry, self._first_cross + k) for k, entry in enumerate(crosses)]
        for k, tail in enumerate(tails):
            entries += [(*entry, self._first_tail + k) for entry in tail]
        return [self._machine(entries)]

    def _listed(self, row: Row) -> tuple[Listed, list[int], Listed, list[Listed]]:
        """Return coordinates and factors of the numbers, coordinates of categories, and both of crosses and of lists."""
        factors: list[tuple[int, float]] = []
        most = self._most
        for name, plain, read, numbers in self._numbers:
            value = row[name]
            x = value if plain and (type(value) is float or type(value) is int) else read(value)
            for number in numbers:
                # As `Number.entry` does; a call of it would cost as much as all the rest of a number.
                z = x if number[5] is False else math.copysign(math.log1p(abs(x)), x)
                z = (z - number[2]) * number[3]
                if not -most < z < most:
                    z = number.entry(name, x, infinite=self._infinite, most=most)
                    if number[1] >= 0:
                        factors.append((number[1], 1.0))
                factors.append((number[0], z))
        for name, reader, numbers in self._vectors:
            factors += self._of_vector(name, reader(row[name]), numbers)
        places = [place(row[name]) for name, place in self._own]
        if self._lanes is not None:
            first = self._space.first
            found = self._lanes.hash([text_of(row[name], read) for name, read in self._hashed])
            places += [first + place for place in found]
        crosses = self._of_crosses(dict(zip(self._names, places, strict=True)), factors) if self._crosses else []
        return factors, places, crosses, [entries(row[name]) for name, entries in self._tails]

    def _of_vector(self, name: str, values: list[float], numbers: list[Number]) -> list[tuple[int, float]]:
        factors = []
        for number in numbers:
            x = values[number.item]
            factors.append((number.place, number.entry(name, x, infinite=self._infinite, most=self._most)))
            if number.flag >= 0 and not math.isfinite(x):
                factors.append((number.flag, 1.0))
        return factors

    def _of_crosses(self, places: dict[str, int], factors: list[tuple[int, float]]) -> list[tuple[int, float]]:
        by = dict(factors)
        return [(place(places), 1.0 if number < 0 else by[number]) for place, number in self._crosses]

    # --- what is made ready

    def _set_places(self, encoding: dict[str, Any]) -> None:
        """Keep the place of every category by its name, the first of crosses and of lists, and how many there are."""
        first = len(encoding["columns"]) + sum(bool(config["indicator"]) for config in encoding["columns"])
        self._category_places = {config["name"]: first + k for k, config in enumerate(encoding["categories"])}
        self._first_cross = first + len(encoding["categories"])
        self._first_tail = self._first_cross + len(encoding["crosses"])
        self._n_places = self._first_tail + len(encoding["tails"])

    def _is_plain(self, categories: Categories) -> bool:
        return (
            self._machine is None
            and self.n_outputs == 1
            and not (self._vectors or self._crosses or self._tails or categories.other)
        )

    def _read(self, name: str) -> Reader:
        if name not in self._readers:
            raise ModelError(f"the model file does not say of what type column {name!r} is: train it again, with this version")
        return self._readers[name]

    def _set_numbers(self, configs: Sequence[dict[str, Any]], missing: Sequence[str]) -> None:
        self._place_of = {config["name"]: k for k, config in enumerate(configs)}
        plain: dict[str, list[Number]] = {}
        vectors: dict[str, list[Number]] = {}
        flag = len(configs)
        for k, config in enumerate(configs):
            source = config["source"] or config["name"]
            flagged = flag if config["indicator"] else -1
            flag += config["indicator"]
            forbidden = policy_of("missing", missing, config["name"], source) == "error"
            logs, item = config["transform"] == "log1p", config["item"]
            number = Number(k, flagged, config["shift"], config["scale"], config["fill"], logs, item, forbidden)
            (plain if config["item"] < 0 else vectors).setdefault(source, []).append(number)
        # Integers and floats in columns of another meaning are for their readers to refuse.
        readers = {name: self._read(name) for name in plain}
        direct = {name for name, reader in readers.items() if reader.means == "number" and not reader.nulls}
        self._numbers = [(name, name in direct, readers[name].number, n) for name, n in plain.items()]
        self._vectors = [(name, self._read(name).numbers, numbers) for name, numbers in vectors.items()]
        for name, numbers in vectors.items():
            if max(number.item for number in numbers) >= (size := self._read(name).size):
                raise ModelError(f"column {name!r} has {size} numbers, and the model asks for others")

    def _set_categories(self, configs: Sequence[dict[str, Any]], crosses: Sequence[dict[str, Any]]) -> Categories:
        own = [config for config in configs if config["values"] or config["edges"] or config["part"]]
        others = [config for config in configs if config not in own]
        texts = [config for config in others if self._read(config["column"]).means == "text"]
        said = [config for config in others if config not in texts]
        self._own = [(config["column"], self._own_place(config)) for config in own]
        self._own += [(c["column"], hashed(c, self._read(c["column"]), self._space)) for c in said]
        self._hashed = [(c["column"], self._read(c["column"]).text) for c in texts]
        self._names = [config["name"] for config in (*own, *said, *texts)]
        seeds = [murmur(config["name"].encode(), 0) for config in texts]
        self._lanes = Lanes(seeds, self._space.mask) if seeds else None
        self._crosses = [(crossed(c, self._space), self._place_of[c["number"]] if c["number"] else -1) for c in crosses]
        return sort_categories(configs, self._readers, self._hashed, self._lanes, self._space)

    def _own_place(self, config: dict[str, Any]) -> Callable[[Any], int]:
        make = one_hot if config["values"] else binned if config["edges"] else part_of
        return make(config, self._read(config["column"]))

    def _tail(self, config: dict[str, Any]) -> tuple[str, Callable[[Any], Any]]:
        name, kind = config["name"], config["kind"]
        if kind == "map":
            return name, mapped(config, self._read(name), self._space, infinite=self._infinite)
        return name, (words if kind == "text" else listed)(config, self._read(name), self._space)


def _check(loss: str, encoding: dict[str, Any]) -> None:
    if loss not in MEANS and loss != "softmax":
        raise ModelError(f"the model's loss {loss} is not streamsgd's, and serving runs no code of others: use streamsgd.load")
    own = encoding.get("custom") or ()
    if own:
        raise ModelError(
            f"the model has columns of the kind {own[0]['name']!r}, which is not streamsgd's, and serving runs no code of "
            "others: use streamsgd.load"
        )


def _reader(column: dict[str, Any], encoding: dict[str, Any]) -> Reader:
    name = column["name"]
    nulls = frozenset(value for given in encoding.get("sentinels", ()) if given["column"] == name for value in given["values"])
    return Reader(
        name,
        column["means"],
        column.get("of", ""),
        bool(column.get("zone", "")),
        int(column.get("size", 0)),
        says_moments=name in encoding.get("moments", ()),
        nulls=nulls,
        told=[],
        stored=number_type(column.get("stored", "")),
    )


def _sources(encoding: dict[str, Any]) -> dict[str, None]:
    numbers = (config["source"] or config["name"] for config in encoding["columns"])
    others = (config["column"] for config in encoding["categories"])
    return dict.fromkeys([*numbers, *others, *(config["name"] for config in encoding["tails"])])
