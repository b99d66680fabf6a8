"""Data sets of pyarrow: of Parquet files as those files, of anything else by fragments, each in the types that it has itself.

What pyarrow calls the schema of a data set is that of its first file, and it casts all others to it: here types are compared.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass, replace
from posixpath import basename, commonpath, dirname
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

import numpy as np
import pyarrow as pa
from pyarrow import fs as pafs

from streamsgd.data.dataset import Dataset, Inventory, read_dataset
from streamsgd.data.schemas import THE_SCHEMA, Unified, bare, unify
from streamsgd.data.sources.arrow_fragments import ArrowFragments
from streamsgd.data.sources.parquet_files import ParquetFiles, unified_as
from streamsgd.data.stores.files import Files, Found, open_source, refs_of
from streamsgd.data.stores.filesystems import locate, retry
from streamsgd.data.stores.folders import HIVE_NULL
from streamsgd.errors import DataError, SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence


def is_arrow_dataset(data: Any) -> bool:
    """Whether data is a `pyarrow.dataset.Dataset`."""
    pads = sys.modules.get("pyarrow.dataset")
    return pads is not None and isinstance(data, pads.Dataset)


def dataset_of_arrow(data: Any, progress: Callable[[int, int], None] | None = None) -> Dataset:
    """Return a data set of pyarrow, in whatever format, with its partition columns; `progress` counts Parquet files.

    Raises
    ------
    SettingsError
        It is filtered or projected.
    DataError
        It has no file, or one that cannot be read.

    """
    try:
        fragments = list(data.get_fragments())
    except ValueError as error:
        raise SettingsError(
            "a pyarrow.dataset that is filtered or projected cannot be cut into pieces: give the whole of it, with filter= and "
            "features="
        ) from error
    if not fragments:
        raise DataError("the pyarrow.dataset has no file, so there is no row")
    declared, told = data.schema, [_told(fragment, data.schema) for fragment in fragments]
    if all(map(_is_plain_parquet, fragments)) and all(f.filesystem.equals(fragments[0].filesystem) for f in fragments):
        return Dataset(ParquetFiles(_as_files(fragments, declared, told, progress)))
    names = [f"{_prefix(one)}{name}" for one, name in zip(told, _plain_names(fragments), strict=True)]
    source = ArrowFragments(fragments, names, declared)
    chosen = chosen_of(declared, fragments[0].physical_schema, source.physical, source.firsts, source.partition_names)
    return Dataset(source.fitted(chosen or unify(source.physical, source.firsts)))


def chosen_of(
    declared: Any, first: Any, schemas: Sequence[Any], names: Sequence[str], folders: Sequence[str]
) -> Unified | None:
    """Return what schemas have in common with that which a data set declares, and nothing of columns that it leaves out.

    None if it declares no more than the schema of its first file.
    """
    own = bare(pa.schema([each for each in declared if each.name not in folders]))
    if own.equals(bare(pa.schema([each for each in first if each.name not in folders]))):
        return None
    found = unify([own, *schemas], [THE_SCHEMA, *names])
    return Unified(
        pa.schema([found.schema.field(name) for name in own.names]),
        {name: value for name, value in found.missing.items() if name in own.names},
        {name: value for name, value in found.conflicts.items() if name in own.names},
        {name: value for name, value in found.duplicates.items() if name in own.names},
    )


# --- what folders say


def _told(fragment: Any, declared: Any) -> dict[str, str | None]:
    """Return what the place of a fragment says of columns, as it is written there: pyarrow reads 007 as a number."""
    import pyarrow.dataset as pads  # noqa: PLC0415  slow to import; it is there

    found = pads.get_partition_keys(fragment.partition_expression)
    values = {name: value for name, value in found.items() if name in declared.names}
    path = getattr(fragment, "path", "") or ""
    folders = dirname(path).split("/")
    pairs = dict(folder.split("=", 1) for folder in folders if "=" in folder)
    named = {unquote(key): unquote(text) for key, text in pairs.items()}
    if values.keys() <= named.keys():
        return {name: None if named[name] == HIVE_NULL else named[name] for name in values}
    for parts in (folders, basename(path).split("_")):
        for k in range(len(parts) - len(found), -1, -1):
            texts = dict(zip(found, map(unquote, parts[k : k + len(found)]), strict=False))
            if all(_says(texts[name], value) for name, value in found.items()):
                return {name: None if values[name] is None else texts[name] for name in values}
    return {name: None if value is None else str(value) for name, value in values.items()}


def _says(text: str, value: Any) -> bool:
    if isinstance(value, int) and re.fullmatch(r"-?[0-9]+", text):
        return int(text) == value
    return text == (HIVE_NULL if value is None else str(value))


def _prefix(told: Mapping[str, str | None]) -> str:
    """Return folders that say the same."""
    return "".join(f"{quote(k, safe='')}={HIVE_NULL if v is None else quote(v, safe='')}/" for k, v in told.items())


def _plain_names(fragments: Sequence[Any]) -> list[str]:
    """Return what messages call fragments: their paths below the folder of all, or their numbers."""
    paths = [getattr(fragment, "path", "") or "" for fragment in fragments]
    root = commonpath([dirname(path) for path in paths]) if all(path.startswith("/") for path in paths) else ""
    return [path[len(root) :].strip("/").replace("=", "-") or f"fragment {k}" for k, path in enumerate(paths)]


# --- Parquet files


def _is_plain_parquet(fragment: Any) -> bool:
    """Whether a fragment is a Parquet file that can be opened by its name, without a key."""
    import pyarrow.dataset as pads  # noqa: PLC0415  slow to import; it is there

    if not isinstance(fragment, pads.ParquetFileFragment) or fragment.buffer is not None:
        return False
    options = fragment.format.default_fragment_scan_options
    return options is None or not (options.parquet_decryption_config or options.decryption_properties)


def _as_files(
    fragments: Sequence[Any],
    declared: Any,
    told: Sequence[Mapping[str, str | None]],
    progress: Callable[[int, int], None] | None,
) -> Inventory:
    """Return Parquet files as if their paths had been given, with the columns and row groups that the data set has of them."""
    files, paths = _files_of(fragments)
    by_path = dict(zip(paths, told, strict=True))
    found = read_dataset(replace(files, files=_named(files, by_path)), progress=progress)
    types = {name: declared.field(name).type for name in found.partition_names}
    found = found.retyped({name: kind for name, kind in types.items() if _is_chosen(kind, found, name)})
    starts = np.unique(found.file_schema, return_index=True)[1]
    names = [found.source.files[k].name for k in starts.tolist()]
    chosen = chosen_of(declared, fragments[0].physical_schema, found.file_schemas, names, found.partition_names)
    if chosen is not None:
        fields = [each for each in chosen.schema if each.name not in found.partition_names]
        fields += [found.schema.field(name) for name in found.partition_names]
        found = unified_as(found, chosen, pa.schema(fields))
    return _some_groups(found, fragments, paths)


def _is_chosen(kind: Any, found: Inventory, name: str) -> bool:
    """Whether the type of a partition column is one that pyarrow would not have guessed: int32 for digits, else text."""
    guess = found.schema.field(name).type
    if kind == guess or kind == pa.int32() or pa.types.is_dictionary(kind):
        return False
    if kind != pa.string():
        return True
    values = [row[found.partition_names.index(name)] for row in found.partition_values]
    limits = np.iinfo(np.int32)
    return guess == pa.int64() and all(value is None or limits.min <= int(str(value)) <= limits.max for value in values)


def _files_of(fragments: Sequence[Any]) -> tuple[Files, list[str]]:
    """Return the files of fragments, and the path of each fragment there."""
    filesystem, paths = fragments[0].filesystem, [fragment.path for fragment in fragments]
    while isinstance(filesystem, pafs.SubTreeFileSystem):
        paths = [f"{filesystem.base_path.rstrip('/')}/{path.lstrip('/')}" for path in paths]
        filesystem = filesystem.base_fs
    if isinstance(filesystem, pafs.LocalFileSystem):
        paths = [locate(path).path for path in paths]
        return open_source(paths), paths
    infos = retry(lambda: filesystem.get_file_info(list(dict.fromkeys(paths))), paths[0])
    uri = f"{filesystem.type_name.replace('::', '-')}:"
    return HeldFiles(refs_of([Found(dirname(info.path), [info]) for info in infos], uri), uri, filesystem), paths


@dataclass(frozen=True)
class HeldFiles(Files):
    """Files of a filesystem that came as one: no URI says how to make it again."""

    held: Any = None

    @property
    def filesystem(self) -> Any:
        """The filesystem as it came."""
        return self.held

    def stamped(self, stamps: Sequence[str]) -> HeldFiles:
        """Return the same files with stamps that only opening them could tell."""
        files = [replace(ref, stamp=stamp) if stamp else ref for ref, stamp in zip(self.files, stamps, strict=True)]
        return replace(self, files=tuple(files))

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "held": self.held}


def _named(files: Files, told: Mapping[str, Mapping[str, str | None]]) -> tuple[Any, ...]:
    """Return files whose folders say what the data set has as columns, and nothing else."""
    named = []
    for ref in files.files:
        folders = (folder.split("=", 1) for folder in dirname(ref.name).split("/") if "=" in folder)
        there = {unquote(key): None if text == HIVE_NULL else unquote(text) for key, text in folders}
        plain = f"{_prefix(told[ref.path])}{ref.name.replace('=', '-')}"
        named.append(ref if there == told[ref.path] else replace(ref, name=plain))
    return tuple(sorted(named, key=lambda ref: ref.name))


def _some_groups(found: Inventory, fragments: Sequence[Any], paths: Sequence[str]) -> Inventory:
    """Return what is known of files with the row groups that fragments are of."""
    wanted: dict[str, set[int]] = {}
    for fragment, path in zip(fragments, paths, strict=True):
        wanted.setdefault(path, set()).update(group.id for group in fragment.row_groups)
    pairs = zip(found.file.tolist(), found.index.tolist(), strict=True)
    keep = np.array([index in wanted[found.source.files[file].path] for file, index in pairs], np.bool_)
    return found if keep.all() else found.select(keep)
