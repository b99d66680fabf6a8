"""Roles of columns, after a look at lists of numbers: those of one length are vectors, as most writers hold embeddings."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from streamsgd.data.types import is_number_list
from streamsgd.errors import DataError
from streamsgd.features.roles import Roles, choose

if TYPE_CHECKING:
    from streamsgd.data.dataset import Dataset
    from streamsgd.features.sample import Sample

log = logging.getLogger("streamsgd")


def choose_roles(look: Sample) -> tuple[Dataset, Roles]:
    """Give every column its role; return the data too, with lists of numbers of one length as vectors.

    Raises
    ------
    SettingsError, DataError
        As `roles.choose`; or lists of numbers are of several lengths, and nobody said that each number is a category.

    """
    dataset, settings = look.dataset, look.settings
    roles = choose(settings, dataset.schema, aside=dataset.aside)
    left_out = {name: why for name, why in dataset.aside.items() if name not in roles.read and name not in roles.ids}
    if left_out and not settings.features:
        told = "; ".join(f"{name!r}: {why}" for name, why in left_out.items())
        log.warning("not taken as features unless --features names them: %s", told)
    kinds = {name: dataset.schema.field(name).type for name in roles.features}
    lists = [name for name, kind in kinds.items() if is_number_list(kind) and roles.asked.get(name) != "category"]
    if not lists:
        return dataset, roles
    dataset = dataset.retyped({name: _vector(kinds[name], _lengths(look, name), name) for name in lists})
    return dataset, choose(settings, dataset.schema, aside=dataset.aside)


def _lengths(look: Sample, name: str) -> tuple[int, int]:
    """Return the shortest and the longest list in the sample; (0, 0) if there is none."""
    found = []
    for piece in look.sample((name,)):
        bounds = pc.min_max(pc.list_value_length(look.columns(piece, (name,))[name])).as_py()
        found += [] if bounds["min"] is None else [bounds["min"], bounds["max"]]
    return (min(found), max(found)) if found else (0, 0)


def _vector(kind: Any, lengths: tuple[int, int], name: str) -> Any:
    shortest, longest = lengths
    if shortest < longest:
        raise DataError(
            f"feature {name!r} holds lists of {shortest:,} to {longest:,} numbers, and only lists of one length are vectors: "
            f"take each number as a category with --categorical '{name}', write an aggregate of them (their mean, their "
            f"largest) as a column, or leave it out with --exclude '{name}'"
        )
    return pa.list_(kind.value_type, longest) if longest else kind
