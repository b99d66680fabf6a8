"""Crosses: a value for every combination of some categories."""

from __future__ import annotations

import msgspec


class Cross(msgspec.Struct, frozen=True):
    """A value for every combination of some categories, hashed; times a number, if one is named."""

    name: str
    members: tuple[str, ...]
    """Names of categories."""
    number: str = ""
