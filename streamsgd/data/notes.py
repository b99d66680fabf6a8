"""What writers note beside a schema: which columns are an index, which are categories, which are no features.

What is not as its writer has it is passed over piece by piece: notes help, and no file is refused for them.
"""

from __future__ import annotations

import base64
import json
import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from streamsgd.data.types import is_category

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

ASIDE = b"aside"
"""Key of a schema's metadata under which `noted` keeps the columns that are no features unless asked for ..."""

FILE_ASIDE = b"streamsgd.aside"
"""... and of a file of ours, in which `streamsgd shuffle` passes them on."""

UNNAMED = re.compile(r"__index_level_\d+__")
"""What pandas calls an index without a name, which other writers keep as a column like any other."""

INDEX = "the index of a DataFrame"


def noted(schema: Any, footer: Mapping[bytes, bytes] | None = None) -> Any:
    """Return a schema without its writer's metadata, but with what that says of meaning.

    Categories that pandas or Arrow wrote as plain values, such as dictionaries of integers, are dictionaries again; columns
    that are no features are listed under `ASIDE`. `footer` is what a file holds beside its schema.
    """
    notes, known = _json(schema, b"pandas"), frozenset(schema.names)
    aside = {name: INDEX for name in schema.names if UNNAMED.fullmatch(name)}
    aside |= {name: INDEX for name in _list(notes, "index_columns") if isinstance(name, str) and name in known}
    passed_on = _json(schema, FILE_ASIDE)
    aside |= {name: why for name, why in passed_on.items() if name in known and isinstance(why, str)}
    written = (footer or {}).get(b"ARROW:schema")
    categories = frozenset(_categories(notes)) | (_dictionaries(written) if written else frozenset())
    fields = [_as_category(field) if field.name in categories else field for field in schema]
    return pa.schema(fields, {ASIDE: json.dumps(aside).encode()} if aside else None)


def aside_of(schema: Any) -> dict[str, str]:
    """Return the columns that `noted` found to be no features, each with the reason."""
    found: dict[str, str] = json.loads((schema.metadata or {}).get(ASIDE, b"{}"))
    return found


def passing_on(schema: Any, aside: Mapping[str, str]) -> Any:
    """Return a schema that says in a file which of its columns are no features unless asked for, each with the reason."""
    mine = {name: why for name, why in aside.items() if name in schema.names}
    return schema.with_metadata({FILE_ASIDE: json.dumps(mine).encode()} if mine else None)


@lru_cache(maxsize=64)
def _dictionaries(written: bytes) -> frozenset[str]:
    """Return the columns that Arrow wrote as dictionaries: of a file it brings back those of texts alone."""
    try:
        schema = pa.ipc.read_schema(pa.py_buffer(base64.b64decode(written)))
    except (pa.ArrowException, OSError, ValueError):
        return frozenset()
    return frozenset(field.name for field in schema if pa.types.is_dictionary(field.type))


def _categories(notes: Mapping[str, Any]) -> Iterator[str]:
    """Yield the columns that pandas had as categories."""
    for column in _list(notes, "columns"):
        if isinstance(column, dict) and column.get("pandas_type") == "categorical":
            name = column.get("field_name", column.get("name"))
            if isinstance(name, str):
                yield name


def _list(notes: Mapping[str, Any], key: str) -> list[Any]:
    found = notes.get(key)
    return found if isinstance(found, list) else []


def _json(schema: Any, key: bytes) -> dict[str, Any]:
    """Return what a schema's metadata says under a key, as far as that is a JSON object."""
    try:
        found = json.loads((schema.metadata or {}).get(key, b"{}"))
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _as_category(field: Any) -> Any:
    kind = field.type
    return field if pa.types.is_dictionary(kind) or not is_category(kind) else field.with_type(pa.dictionary(pa.int32(), kind))
