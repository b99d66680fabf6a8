"""Sums along a tree whose shape depends on the number of parts alone, so that who added what when changes no bit."""

from __future__ import annotations

from functools import reduce
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


T = TypeVar("T")

FAN = 8
"""Gains that are added up at a time: the width of the tree."""


def joined(parts: Sequence[T], join_two: Callable[[T, T], T]) -> T:
    """Return the sum of what all lanes brought, in their order, along the tree."""
    while len(parts) > 1:
        parts = [reduce(join_two, parts[k : k + FAN]) for k in range(0, len(parts), FAN)]
    return parts[0]


def levels(n: int) -> int:
    """Return how many sums an `Adder` of n parts holds at a time, at most: one per level of the tree."""
    found = 1
    while n > FAN:
        n, found = -(-n // FAN), found + 1
    return found


class Adder(Generic[T]):
    """Adds up along the tree what comes one after another: the bits of `joined`, with a part per level held at a time."""

    def __init__(self, join_two: Callable[[T, T], T]) -> None:
        self._join = join_two
        self._sums: list[T | None] = []
        """Of each level of the tree, the sum of the parts that its unfinished group has so far ..."""
        self._counts: list[int] = []
        """... and how many they are."""

    def add(self, part: T) -> None:
        """Add the next part."""
        level = 0
        while True:
            if level == len(self._counts):
                self._sums.append(None)
                self._counts.append(0)
            before = self._sums[level]
            part = part if before is None else self._join(before, part)
            self._counts[level] += 1
            if self._counts[level] < FAN:
                self._sums[level] = part
                return
            self._sums[level], self._counts[level] = None, 0
            level += 1

    def total(self) -> T:
        """Return the sum of all, at least one, and forget them."""
        last: T | None = None
        for found in self._sums:
            if found is not None:
                last = found if last is None else self._join(found, last)
        self._sums, self._counts = [], []
        assert last is not None, "add comes first"  # noqa: S101  for the type checker
        return last
