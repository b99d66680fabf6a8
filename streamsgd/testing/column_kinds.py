"""Checks of a kind of column."""

from __future__ import annotations

import ctypes
import pickle
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from streamsgd.data.sources.tables import as_table, table_dataset
from streamsgd.errors import DataError
from streamsgd.features.arrow import nested
from streamsgd.features.choose import choose_encoding
from streamsgd.features.column import Destination, Limits
from streamsgd.features.custom import kinds_of, kinds_with
from streamsgd.features.encoder import Encoder
from streamsgd.features.encoding import Encoding, check_columns
from streamsgd.features.kinds import BY_NAME, KINDS
from streamsgd.features.roles import choose
from streamsgd.features.sample import Sample
from streamsgd.kernels.structs.rows import OWN, TAIL
from streamsgd.settings.make import make_settings
from streamsgd.testing.laws import true

if TYPE_CHECKING:
    from collections.abc import Mapping

    from streamsgd.features.encoding import Group

EVERYTHING = ("accepts", "profile", "choose", "combine", "place", "needs", "distinct", "encoder", "sources", "check", "explain")

ALL = Limits(None, 1 << 20)

PATTERN = -77
"""What rows hold before anybody writes."""


def check_column_kind(kind: Any, table: Any, **settings: Any) -> None:
    """Check a kind of column: that what it decides is kept, and encodes the same rows the same, in its own places only.

    Parameters
    ----------
    kind
        As `features.column.ColumnKind` describes, streamsgd's or your own.
    table
        Columns of which the kind takes at least one, and others if you like: anything with `__arrow_c_stream__`, of 8 rows
        or more. Rows with nulls and odd values say most.
    settings
        Fields of `settings.Settings` that make it take them, such as `text=["x"]`.

    Raises
    ------
    AssertionError
        It takes no column; a profile differs when the data comes in parts, or fails on none; its configs are no frozen
        structs, or others after JSON; an encoder writes where another one does, leaves a number that is not finite or a
        coordinate of nobody, or writes other bits when rows come in parts, in another order or as dictionaries; it takes data
        without its columns; or a weight has a label elsewhere.

    """
    missing = [name for name in (*EVERYTHING, "name", "config", "what") if not hasattr(kind, name)]
    true(not missing, f"{kind!r} has no {', '.join(missing)}: let its class inherit ColumnKind")
    true(kind in KINDS or pickle.loads(pickle.dumps(kind)) == kind, f"{kind!r} is another one after pickling")  # noqa: S301
    table = as_table(table, "the table")
    encoding = _chosen(kind, table, settings)
    configs = encoding.by_kind().get(kind, [])
    true(bool(configs), f"{kind!r}: takes no column of {table.schema.names}, with {settings}")
    group = next(group for group in encoding.groups if any(config is mine for config in group.configs for mine in configs))
    _check_profiles(kind, table, configs)
    _check_configs(kind, encoding, configs)
    _check_needs(kind, group)
    _check_rows(kind, encoding, group, table)
    _check_data(kind, encoding, configs, table)
    _check_labels(kind, encoding, group, table)


def _chosen(kind: Any, table: Any, settings: Mapping[str, Any]) -> Encoding:
    """Let the chooser decide as in training."""
    target = np.linspace(-1.0, 1.0, table.num_rows)
    made = make_settings({"target": "the target", **settings})
    dataset = table_dataset(table.append_column("the target", [target]))
    kinds = kinds_of(made) if BY_NAME.get(kind.name) is kind else kinds_with([("", kind)])
    encoding, reasons = choose_encoding(Sample(dataset, made), choose(made, dataset.schema, kinds))
    true(all(isinstance(why, str) for why in reasons.values()), f"{kind!r}: why is no text: {reasons}")
    return encoding


def _check_profiles(kind: Any, table: Any, configs: list[Any]) -> None:
    """Compare the profile of a column with that of its parts, of which one is empty."""
    for name in dict.fromkeys(name for config in configs for name in kind.sources(config)):
        column = table.column(name)
        whole = kind.profile(column, ALL)
        parts = [column.slice(0, 0), column.slice(0, 3), column.slice(3, 2), column.slice(5)]
        joined = kind.profile(parts[0], ALL)
        for part in parts[1:]:
            joined.join(kind.profile(part, ALL))
        a, b = kind.why(whole, whole=True), kind.why(joined, whole=True)
        true(a == b, f"{kind!r}: a column {name!r} in parts is {b!r}, as a whole {a!r}")


def _check_configs(kind: Any, encoding: Encoding, configs: list[Any]) -> None:
    """Send configs through JSON, as a model file does."""
    for config in configs:
        frozen = isinstance(config, msgspec.Struct) and config.__struct_config__.frozen
        true(frozen, f"{kind!r}: the config {config!r} is no frozen msgspec.Struct")
        true(isinstance(kind.explain(config), str), f"{kind!r}: what {config!r} becomes is no text")
        back = msgspec.json.decode(msgspec.json.encode(config), type=type(config))
        true(back == config, f"{kind!r}: {config!r} comes back from JSON as {back!r}")
    names = [config.name for config in configs]
    true(len(set(names)) == len(names), f"{kind!r}: two configs have one name: {names}")
    read = msgspec.json.decode(msgspec.json.encode(encoding), type=Encoding).with_kinds([kind])
    true(read == encoding, f"{kind!r}: the encoding comes back from JSON as {read!r}, it was {encoding!r}")
    sent = pickle.loads(pickle.dumps(encoding))  # noqa: S301  our own bytes
    true(sent == encoding, f"{kind!r}: the encoding does not survive pickling")


def _check_needs(kind: Any, group: Group) -> None:
    needs, again = group.needs, group.kind.needs(group.configs)
    true(needs == again, f"{kind!r}: needs differ from call to call: {needs} and {again}")
    true(needs.n_hashed <= len(needs.slots), f"{kind!r}: {needs.n_hashed} of {len(needs.slots)} slots are hashed")
    distinct = group.kind.distinct(group.configs, 1000)
    hashes = bool(needs.n_hashed or needs.ragged)
    true(distinct > 0 or not hashes, f"{kind!r}: hashes values, of which distinct says there are {distinct}")


def _check_rows(kind: Any, encoding: Encoding, group: Group, table: Any) -> None:
    """Encode rows as they are, in parts, in another order, with some dropped, and as chunks."""
    n = table.num_rows
    straight = np.arange(n, dtype=np.int32)
    expected = _written(kind, encoding, group, table, [(0, n)], straight)
    _check_written(kind, encoding, group, expected)
    ways = {
        "in parts": ([(0, 1), (1, 1), (1, n // 2), (n // 2, n)], straight),
        "backwards": ([(0, n)], straight[::-1].copy()),
        "with some dropped": ([(0, n)], np.where(straight % 3 == 1, -1, straight).astype(np.int32)),
        "row by row": ([(k, k + 1) for k in range(n)], straight),
    }
    for way, (parts, dest) in ways.items():
        found = _written(kind, encoding, group, table, parts, dest)
        for k in range(n):
            same = dest[k] < 0 or all(np.array_equal(a, b) for a, b in zip(found[dest[k]], expected[k], strict=True))
            true(same, f"{kind!r}: row {k} written {way} is {found[dest[k]]}, it was {expected[k]}")
        untouched = [found[k] for k in range(n) if k not in set(dest.tolist())]
        clean = all((numbers == PATTERN).all() and (ids == PATTERN).all() for numbers, ids, _ in untouched)
        true(clean, f"{kind!r}: rows are written that nobody sent, {way}")


Written = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Of one row its numbers, its slots, and its entries elsewhere, (coordinate, factor as bits)."""


def _written(  # noqa: PLR0917  what is written by whom from what to where
    kind: Any, encoding: Encoding, group: Group, table: Any, parts: list[tuple[int, int]], dest: np.ndarray
) -> list[Written]:
    """Return what the encoder of a group writes into rows, which it must leave alone elsewhere."""
    layout, places, needs = encoding.layout(mixed=True), group.places, group.needs
    block = layout.allocate(table.num_rows, "float64")
    block.rows.values[:] = PATTERN
    slots = slice(layout.width + OWN, None)
    block.rows.ids[:, slots] = PATTERN
    encoder = group.kind.encoder(group.configs, places)
    pools: list[np.ndarray] = []
    for start, stop in parts:
        columns = {name: table.column(name).slice(start, stop - start) for name in encoder.sources}
        done = encoder.scatter(columns, Destination(dest[start:stop], block))
        pools += done.pools
        counts = len(needs.numbers) - sum(number.shift is None for number in needs.numbers)
        true(len(done.missing) in (counts, len(needs.numbers)), f"{kind!r}: {len(done.missing)} counts of missing values")
        true(len(done.infinite) == len(encoder.finite), f"{kind!r}: {len(done.infinite)} counts of infinite values")
    mine = np.zeros(layout.numbers_per_row, np.bool_)
    mine[places.number : places.number + len(needs.numbers)] = True
    mine[places.slot : places.slot + len(needs.slots)] = True
    values, ids = block.rows.values, block.rows.ids
    touched = np.concatenate([(values != PATTERN)[:, : layout.width + OWN], (ids != PATTERN)[:, slots]], axis=1).any(axis=0)
    strange = np.flatnonzero(touched & ~mine).tolist()
    true(not strange, f"{kind!r}: writes to columns {strange} of the block, which are not its own")
    numbers = values[:, places.number : places.number + len(needs.numbers)]
    own = ids[:, places.slot : places.slot + len(needs.slots)]
    tails = block.rows.tails[:, places.ragged : places.ragged + needs.ragged]
    return [(numbers[k].copy(), own[k].copy(), _entries(tails[k])) for k in range(table.num_rows)]


def _entries(tails: np.ndarray) -> np.ndarray:
    """Return the entries that a row points to, int32 (n, 2)."""
    found = [np.zeros((0, 2), np.int32)]
    for address, count in tails.tolist():
        if count:
            found.append(np.frombuffer(ctypes.string_at(address, count * TAIL), np.int32).reshape(count, 2))
    return np.concatenate(found)


def _check_written(kind: Any, encoding: Encoding, group: Group, rows: list[Written]) -> None:
    for k, (numbers, ids, entries) in enumerate(rows):
        true(bool(np.isfinite(numbers).all()), f"{kind!r}: row {k} has numbers {numbers}, which are not all finite")
        for place in [*ids.tolist(), *entries[:, 0].tolist()]:
            true(_is_mine(encoding, group, place), f"{kind!r}: row {k} has the coordinate {place}, which is of another kind")


def _is_mine(encoding: Encoding, group: Group, place: int) -> bool:
    """Whether a coordinate is of a group's own weights or of the hashed space."""
    space = encoding.hashed
    hashed = space is not None and space.first <= place < space.first + (1 << space.bits)
    return hashed or group.places.weight <= place < group.places.weight + group.needs.weights


def _check_data(kind: Any, encoding: Encoding, configs: list[Any], table: Any) -> None:
    """Take away each column, and give it a type that nobody has."""
    check_columns(encoding, table.schema, "the table")
    for name in dict.fromkeys(name for config in configs for name in kind.sources(config)):
        at, schema = table.schema.get_field_index(name), table.schema
        strange = schema.set(at, schema.field(at).with_type(nested(schema.field(at).type)))
        for without, what in ((schema.remove(at), "without"), (strange, "with lists of lists as")):
            try:
                kind.check(configs, without, "the table")
            except DataError as error:
                true(repr(name) in str(error), f"{kind!r}: refuses data {what} {name!r} without its name: {error}")
            else:
                raise AssertionError(f"{kind!r}: takes data {what} {name!r}")


def _check_labels(kind: Any, encoding: Encoding, group: Group, table: Any) -> None:
    encoder = Encoder(encoding)
    mine = encoder.kinds[[each for each in encoding.groups if each.configs or each.places.number == 0].index(group)]
    parts = {name: [table.column(name)] for name in mine.counted}
    frequent = mine.count(parts)
    for name, counts in frequent.items():
        order = [rows for _, rows in counts]
        true(order == sorted(order, reverse=True), f"{kind!r}: the values of {name!r} are not counted in order: {counts}")
    for label in mine.labels(frequent):
        true(_is_mine(encoding, group, label.coordinate), f"{kind!r}: {label} names a weight of another kind")
