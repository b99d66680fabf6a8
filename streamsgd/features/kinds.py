"""The kinds of columns there are, in the order in which they are asked about a column."""

from __future__ import annotations

from typing import TYPE_CHECKING

from streamsgd.features.categories import Categories
from streamsgd.features.crosses import Crosses
from streamsgd.features.numbers import Numbers
from streamsgd.features.ragged import Lists, Maps, Texts
from streamsgd.features.times import Moments
from streamsgd.features.vectors import Vectors

if TYPE_CHECKING:
    from streamsgd.features.column import ColumnKind


NUMBERS, CATEGORIES, LISTS = Numbers(), Categories(), Lists()
"""Kinds whose encoders also write what others decide: vectors; bins, parts of moments and crosses; texts and maps."""

KINDS: tuple[ColumnKind, ...] = (NUMBERS, Texts(), CATEGORIES, Vectors(), Maps(), LISTS, Moments(), Crosses())
"""Every kind of column. The first that accepts a column and does not say "not for me" has it; those of your own come before."""

BY_NAME = {kind.name: kind for kind in KINDS}
