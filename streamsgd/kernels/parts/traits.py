"""What an optimizer is: the rule by which it learns rows, asked by name."""

from __future__ import annotations

from typing import Any

ROW_BY_ROW = frozenset(["nag", "coin", "race", "factors"])
"""Rules that move after every row."""


def rule_of(optimizer: Any) -> str:
    """Return the rule of an optimizer, or of its class: `batch` if it names none; see `kernels.learn.fit.RULES`."""
    return str(getattr(optimizer, "rule", "batch"))


def is_sequential(optimizer: Any) -> bool:
    """Whether an optimizer moves after every row."""
    return rule_of(optimizer) in ROW_BY_ROW


def is_race(optimizer: Any) -> bool:
    """Whether an optimizer is a race."""
    return rule_of(optimizer) == "race"


def bets(optimizer: Any) -> bool:
    """Whether weights are worked out of what an optimizer has won."""
    return rule_of(optimizer) == "coin"


def judges(optimizer: Any) -> bool:
    """Whether an optimizer judges its steps on rows of their own before it takes them."""
    return rule_of(optimizer) == "judged"


def reduces(optimizer: Any) -> bool:
    """Whether an optimizer corrects its gradients by those at a snapshot."""
    return rule_of(optimizer) == "svrg"


def by_rows(optimizer: Any) -> bool:
    """Whether the memory of an optimizer, or of its class, fades by rows, so that it asks how many they are."""
    return bool(getattr(optimizer, "by_rows", False))


def holds_factors(optimizer: Any) -> bool:
    """Whether the factors of a machine are memories of an optimizer, so that all of a value is in one line of memory."""
    return rule_of(optimizer) == "factors"
