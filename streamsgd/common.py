"""The most frequent values of hashed columns, counted while training: a model knows slots, people want names.

Some rows of every piece are counted, and the most frequent values of each piece added up in the order of the plan, so that the
names are the same whoever read what when. Memory is bounded: beyond `MOST_KEPT` values of a column the rarest are forgotten.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from streamsgd.categories import as_bytes, as_dictionary
from streamsgd.tails import elements

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from streamsgd.encode import Encoding

MOST_NAMED = 100
"""Values of a column that a model names, and that a piece reports."""

MOST_KEPT = 1000
"""Values of a column that are kept while training."""

ROWS, TEXTS = 1 << 13, 1 << 10
"""Rows of a piece whose values are counted, and texts whose words are."""

WORD = re.compile(r"\w+")


def count_common(encoding: Encoding, named: Mapping[str, Any]) -> dict[str, list[tuple[str, int]]]:
    """Return the most frequent values of every hashed column among the first rows.

    Parameters
    ----------
    encoding
        Whose hashed columns are meant.
    named
        Arrow columns by name.

    """
    found = {}
    for category in encoding.categories:
        if not category.own:
            found[category.name] = _values(named[category.column].slice(0, ROWS))
    for tail in encoding.tails:
        column = named[tail.name]
        if tail.kind == "text":
            found[tail.name] = _words(column.slice(0, TEXTS), fold=tail.fold)
        else:
            found[tail.name] = _values(_elements(column.slice(0, ROWS), tail.kind))
    return found


def _elements(column: Any, kind: str) -> Any:
    keys, _, _, _ = elements(column, kind)
    return keys


def _values(column: Any) -> list[tuple[str, int]]:
    total: Counter[str] = Counter()
    for chunk in as_dictionary(column):
        codes = np.asarray(chunk.indices.drop_null(), dtype=np.int64)
        used = np.bincount(codes, minlength=len(chunk.dictionary))
        some = np.argsort(-used, kind="stable")[: 2 * MOST_NAMED]
        some = some[used[some] > 0]
        for value, count in zip(as_bytes(chunk.dictionary.take(pa.array(some))).to_pylist(), used[some].tolist(), strict=True):
            total.update(_decoded(value, count))
    return _best(total)


def _words(texts: Any, *, fold: bool) -> list[tuple[str, int]]:
    total: Counter[str] = Counter()
    for chunk in as_dictionary(texts):
        values = as_bytes(chunk.dictionary.take(chunk.indices)).to_pylist()
        for text in (next(iter(_decoded(value, 1)), "") for value in values):
            total.update(set(WORD.findall(text.lower() if fold else text)))
    return _best(total)


def _decoded(value: bytes | None, count: int) -> dict[str, int]:
    """Return a value and its count; nothing for null, or what is no UTF-8, which has no name."""
    try:
        return {} if value is None else {value.decode(): count}
    except UnicodeDecodeError:
        return {}


def _best(counts: Mapping[str, int], most: int = MOST_NAMED) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))[:most]


class Common:
    """Counts of values by column."""

    def __init__(self, counts: Mapping[str, Iterable[tuple[str, int]]] | None = None) -> None:
        self.counts = {name: Counter(dict(pairs)) for name, pairs in (counts or {}).items()}

    def add(self, found: Mapping[str, Iterable[tuple[str, int]]]) -> None:
        """Take in what a piece brought."""
        for name, pairs in found.items():
            counts = self.counts.setdefault(name, Counter())
            counts.update(dict(pairs))
            if len(counts) > 2 * MOST_KEPT:
                self.counts[name] = Counter(dict(_best(counts, MOST_KEPT)))

    def best(self) -> dict[str, list[tuple[str, int]]]:
        """Return the most frequent values of each column."""
        return {name: _best(counts) for name, counts in self.counts.items()}

    def kept(self) -> dict[str, list[tuple[str, int]]]:
        """Return all counts, for a checkpoint."""
        return {name: list(counts.items()) for name, counts in self.counts.items()}
