"""Roles of columns, after a look at lists of numbers: those of one length are vectors, as most writers hold embeddings."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from streamsgd.data.dataset import require
from streamsgd.data.empty import is_empty
from streamsgd.data.normalise import undictionaried
from streamsgd.data.time_texts import says_moments
from streamsgd.data.types import is_bytes, is_number_list, is_text
from streamsgd.errors import DataError
from streamsgd.features.roles import Roles, choose, of_no_kind
from streamsgd.features.sample import SAMPLE_BYTES, Sample

if TYPE_CHECKING:
    from streamsgd.data.dataset import Dataset

log = logging.getLogger("streamsgd")

HEAD = 64
"""Rows by which texts are told from moments, mostly; then by ..."""

MOST_PIECES = 8
"""... so many pieces of the look."""

COMES_BACK = 0.01
"""Share of the rows whose value came once, up to which texts that say moments are categories: days of a month come back."""


def choose_roles(look: Sample, *, moments: bool = True) -> tuple[Dataset, Roles]:
    """Give every column its role; return the data too, with lists of numbers of one length as vectors.

    With `moments`, texts that say moments are those: not where a model has decided.

    Raises
    ------
    SettingsError, DataError
        As `roles.choose`; or lists of numbers are of several lengths, and nobody said that each number is a category.

    """
    settings = look.settings
    dataset = _without_empty(look)
    roles = choose(settings, dataset.schema, aside=dataset.aside)
    # Whose types disagree cannot be looked at; what some files lack is for who checks all that is read.
    require(dataset, roles.features, nulls=roles.features)
    left_out = {name: why for name, why in dataset.aside.items() if name not in roles.read and name not in roles.ids}
    if left_out and not settings.features:
        told = "; ".join(f"{name!r}: {why}" for name, why in left_out.items())
        log.warning("not taken as features unless --features names them: %s", told)
    dataset = with_moments(look, dataset, roles) if moments else dataset
    roles = choose(settings, dataset.schema, aside=dataset.aside)
    kinds = {name: dataset.schema.field(name).type for name in roles.features}
    lists = [name for name, kind in kinds.items() if is_number_list(kind) and roles.asked.get(name) != "category"]
    if not lists:
        return dataset, roles
    dataset = dataset.retyped({name: _vector(kinds[name], _lengths(look, name), name) for name in lists})
    return dataset, choose(settings, dataset.schema, aside=dataset.aside)


def _without_empty(look: Sample) -> Dataset:
    """Return the data with columns that are of no use by their type, and hold no value, as columns of nulls."""
    dataset = look.dataset
    names = of_no_kind(look.settings, dataset.schema, dataset.aside)
    return dataset.retyped({name: pa.null() for name in names if not dataset.problem(name) and is_empty(dataset, name)})


def with_moments(look: Sample, dataset: Dataset, roles: Roles) -> Dataset:
    """Return the data with texts that say moments, and hardly ever come back, as moments; say so of each."""
    first, *_ = [*look.sample(roles.features), None]
    free = [name for name in roles.features if name not in {*roles.asked, *look.filter_columns}]
    texts = tuple(name for name in free if _is_string(dataset.schema.field(name).type) and not roles.own)
    if first is None or not texts:
        return dataset
    head = look.columns(replace(first, stop=min(first.stop, HEAD)), texts, most=SAMPLE_BYTES)
    likely = [name for name in texts if says_moments(_texts(head[name])) is not None]
    found = {name: kind for name in likely if (kind := _moments_of(look, name)) is not None}
    if not found:
        return dataset
    log.info(
        "%s: strings that say moments and hardly ever come back, read as times, and as missing where they say none; "
        "--categorical takes them as strings, --time-parts adds hour, weekday and month",
        ", ".join(map(repr, found)),
    )
    return dataset.retyped(found)


def _moments_of(look: Sample, name: str) -> Any | None:
    """Return the type of the moments that a column of texts says, if it does and they do not come back."""
    pieces = look.sample((name,))[:MOST_PIECES]
    texts = pa.concat_arrays([_texts(look.columns(piece, (name,))[name]) for piece in pieces]).drop_null()
    once = int((pc.value_counts(texts).field("counts").to_numpy() == 1).sum())
    return says_moments(texts) if once > COMES_BACK * len(texts) else None


def _is_string(kind: Any) -> bool:
    return is_text(kind) and not is_bytes(kind.value_type if pa.types.is_dictionary(kind) else kind)


def _texts(column: Any) -> Any:
    chunks = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
    return pa.chunked_array(
        [undictionaried(chunk).cast(pa.large_string()) for chunk in chunks], pa.large_string()
    ).combine_chunks()


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
