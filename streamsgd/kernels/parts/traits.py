"""What an optimizer is, asked by name."""

from __future__ import annotations

from typing import Any


def is_sequential(optimizer: Any) -> bool:
    """Whether an optimizer moves after every row."""
    return bool(getattr(optimizer, "sequential", False))


def is_race(optimizer: Any) -> bool:
    """Whether an optimizer is a race."""
    return bool(getattr(optimizer, "learners", 0))


def reduces(optimizer: Any) -> bool:
    """Whether an optimizer corrects its gradients by those at a snapshot."""
    return bool(getattr(optimizer, "reduces", False))
