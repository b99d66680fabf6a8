"""What a sample says of every column: one profile per column and kind that may take it, joined over the pieces."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from streamsgd.features.column import Limits

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from streamsgd.features.roles import Roles
    from streamsgd.features.sample import Sample
    from streamsgd.planning.chunks import Piece

    Profiler = Callable[[Any, Limits], Any]


QUANTILE_BYTES = 32 << 20
"""Bytes of values of all columns that are kept for medians, quartiles and bins ..."""

QUANTILE_VALUES = 1 << 13
"""... at most so many of each column and piece of the sample, and at least ..."""

LEAST_VALUES = 16
"""... so many."""

CATEGORY_ROWS = 1 << 15
"""Rows per piece of the sample in which values of categories are counted; all of them where it is all of the data."""


def profile_columns(look: Sample, roles: Roles) -> dict[str, dict[Profiler, Any]]:
    """Return the profiles of every feature over the sample, by what made them: kinds that share one are served once."""
    profilers = {name: tuple(dict.fromkeys(kind.profile for kind in kinds)) for name, kinds in roles.kinds.items()}
    schema = look.dataset.schema
    pieces = look.sample(roles.features)
    n_series = sum(max(1, getattr(schema.field(name).type, "list_size", 1)) for name in _dense(roles))
    values = max(LEAST_VALUES, min(QUANTILE_VALUES, QUANTILE_BYTES // (8 * max(1, n_series) * max(1, len(pieces)))))
    limits = Limits(None if look.sees_all(roles.features) else CATEGORY_ROWS, values)
    texts = frozenset(name for name, kinds in roles.kinds.items() if kinds and all(kind.dictionaries for kind in kinds))

    def read(piece: Piece) -> dict[str, Any]:
        return look.columns(piece, roles.features, texts, look.most_bytes(piece, pieces))

    joined: dict[str, dict[Profiler, Any]] = {}
    with ThreadPoolExecutor(look.threads(roles.features)) as pool:
        for part in pool.map(lambda piece: _profile(read(piece), profilers, limits), pieces):
            for name, profiles in part.items():
                for profiler, profile in profiles.items():
                    if profiler in joined.setdefault(name, {}):
                        joined[name][profiler].join(profile)
                    else:
                        joined[name][profiler] = profile
    look.kept([sum(getattr(profile, "nbytes", 0) for profile in profiles.values()) for profiles in joined.values()])
    # What Arrow's allocator keeps of a sample of wide rows would count against the budget for the whole run.
    pa.default_memory_pool().release_unused()
    return joined or _profile(_empty(schema, roles), profilers, limits)


def _dense(roles: Roles) -> list[str]:
    return [name for name, kinds in roles.kinds.items() if any(kind.dense for kind in kinds)]


def _empty(schema: pa.Schema, roles: Roles) -> dict[str, Any]:
    return {name: pa.chunked_array([], schema.field(name).type) for name in roles.features}


def _profile(
    columns: Mapping[str, Any], profilers: Mapping[str, tuple[Profiler, ...]], limits: Limits
) -> dict[str, dict[Profiler, Any]]:
    return {
        name: {profiler: profiler(column, limits) for profiler in profilers[name]}
        for name, column in columns.items()
        if name in profilers
    }
