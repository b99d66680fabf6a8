"""Compare filters with DuckDB: random tables in files, random conditions, the rows that each of the two keeps.

    python scripts/prove_filters.py [--conditions 10000] [--seed 0]

A table has columns of every type that a filter can compare, which two files hold in types of their own (other widths, other
units, other forms of text). Integers reach the ends of their types and literals beyond them; rows are null by chance. NaN is
left out: to DuckDB it is the largest number and equal to itself, here it is as in Python and in Arrow. Prints the number of
conditions and of rows compared; exits with 1 if any condition keeps other rows, and shows it.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from streamsgd.data.open import open_data
from streamsgd.data.timings import Timings
from streamsgd.planning.chunks import Piece

ROWS = 24
PER_TABLE = 40
"""Conditions for each pair of files."""
OPERATORS = ("==", "!=", "<", "<=", ">", ">=")
SQL = {"==": "=", "!=": "<>"}
WORDS = ["", "a", "b", "ab", "B", "é", "z", "a b", "ü~"]
DAY = date(2024, 2, 28)
MOMENT = datetime(2024, 2, 28, 23, 59, 59)  # noqa: DTZ001


@dataclass(frozen=True)
class Kind:
    """One family of types: the Arrow types that files may hold, its values, and literals for both languages."""

    types: tuple[Any, ...]
    values: Any
    """random.Random -> a value that all of the types hold."""
    literals: Any
    """random.Random -> (ours, DuckDB's)."""


def number(value: Any) -> tuple[str, str]:
    """Say a number in both languages."""
    return repr(value), repr(value)


def quoted(text: str) -> tuple[str, str]:
    """Say a text in both languages."""
    return repr(text), "'" + text.replace("'", "''") + "'"


def whole(rng: random.Random, low: int, high: int) -> int:
    """Return an integer, often at an end."""
    return rng.choice([low, high, low + 1, high - 1, 0, 1, rng.randint(-5, 5) if low < 0 else rng.randint(0, 9)])


def of_integers(rng: random.Random) -> tuple[str, str]:
    """Return an integer, often at or beyond the ends of a type, or a fraction."""
    ends = [2**7, 2**8, 2**15, 2**31, 2**32, 2**53 + 1, 2**63 - 1, -(2**7) - 1, -(2**31), -(2**63)]
    return number(rng.choice([rng.randint(-5, 9), rng.choice(ends), rng.randint(-9, 9) + 0.5, 0.25]))


def moment(rng: random.Random) -> datetime:
    """Return a moment near others, to the millisecond."""
    return MOMENT + timedelta(milliseconds=rng.choice([0, 1, 999, 1000, 86_400_000, -1, rng.randint(-(10**9), 10**9)]))


def of_moments(rng: random.Random) -> tuple[str, str]:
    """Return a moment, at times to the microsecond or a day."""
    at = moment(rng) + timedelta(microseconds=rng.choice([0, 0, 1]))
    text = rng.choice([str(at), str(at.date())])
    return repr(text), f"TIMESTAMP '{text}'"


def of_zoned(rng: random.Random) -> tuple[str, str]:
    """Return a moment of UTC."""
    ours, theirs = of_moments(rng)
    time = "" if ":" in ours else " 00:00:00"
    return repr(f"{ours[1:-1]}{time}+00:00"), theirs.replace("TIMESTAMP '", "TIMESTAMPTZ '")[:-1] + f"{time}+00'"


def of_days(rng: random.Random) -> tuple[str, str]:
    """Return a day."""
    text = str(DAY + timedelta(days=rng.randint(-3, 3)))
    return repr(text), f"DATE '{text}'"


def decimal(rng: random.Random) -> Decimal:
    """Return a decimal of two digits after the point."""
    return Decimal(rng.randint(-300, 300)).scaleb(-2)


FLOATS = [-1.5, 0.0, -0.0, 0.25, 2.0, 1e10, 3.5]
KINDS: dict[str, Kind] = {
    "tiny": Kind((pa.int8(), pa.int16(), pa.int64()), lambda r: whole(r, -128, 127), of_integers),
    "byte": Kind((pa.uint8(), pa.uint16(), pa.uint32()), lambda r: whole(r, 0, 255), of_integers),
    "long": Kind((pa.int64(),), lambda r: whole(r, -(2**63), 2**63 - 1), of_integers),
    "huge": Kind((pa.uint64(),), lambda r: whole(r, 0, 2**64 - 1), of_integers),
    "single": Kind((pa.float32(),), lambda r: r.choice(FLOATS), lambda r: number(r.choice([*FLOATS, 0.1, 2, -1]))),
    "double": Kind((pa.float64(),), lambda r: r.choice([*FLOATS, 0.1]), lambda r: number(r.choice([*FLOATS, 0.1, 2, -1]))),
    "money": Kind(
        (pa.decimal128(5, 2), pa.decimal128(9, 3), pa.decimal128(38, 2)),
        decimal,
        lambda r: r.choice([number(r.randint(-3, 3)), number(float(decimal(r))), number(0.125)]),
    ),
    "word": Kind(
        (pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())),
        lambda r: r.choice(WORDS),
        lambda r: quoted(r.choice(WORDS)),
    ),
    "day": Kind((pa.date32(),), lambda r: DAY + timedelta(days=r.randint(-3, 3)), of_days),
    "naive": Kind((pa.timestamp("ms"), pa.timestamp("us")), moment, of_moments),
    "fine": Kind((pa.timestamp("ns"),), moment, of_moments),
    "zoned": Kind((pa.timestamp("ms", "UTC"), pa.timestamp("us", "UTC")), lambda r: moment(r).replace(tzinfo=UTC), of_zoned),
}
ALIKE = [("tiny", "byte"), ("tiny", "long"), ("byte", "huge"), ("long", "huge"), ("single", "double"), ("day", "naive")]
"""Columns that are compared with each other."""


def atom(rng: random.Random) -> tuple[str, str]:
    """Return one comparison in both languages."""
    shape = rng.random()
    if shape < 0.08:
        return rng.choice([("b", "b"), ("not b", "NOT b"), ("b == True", "b = TRUE"), ("b != False", "b <> FALSE")])
    name = rng.choice([*KINDS])
    if shape < 0.16:
        word, sql = rng.choice([("is None", "IS NULL"), ("is not None", "IS NOT NULL")])
        return f"{name} {word}", f"{name} {sql}"
    operator = rng.choice(OPERATORS)
    if shape < 0.26:
        left, right = rng.choice(ALIKE)
        return f"{left} {operator} {right}", f"{left} {SQL.get(operator, operator)} {right}"
    if shape < 0.34:
        by, than = rng.randint(1, 4), rng.randint(-9, 9)
        arithmetic = rng.choice(["tiny + {0} {2} {1}", "byte * {0} {2} {1}", "tiny / {0} {2} {1}", "-tiny - {0} {2} {1}"])
        sql = arithmetic.replace("tiny", "tiny::BIGINT").replace("byte", "byte::BIGINT")  # ours calculates in 64 bits anyway
        return arithmetic.format(by, than, operator), sql.format(by, than, SQL.get(operator, operator))
    if shape < 0.5:
        pairs = [KINDS[name].literals(rng) for _ in range(rng.randint(1, 4))]
        word, sql = rng.choice([("in", "IN"), ("not in", "NOT IN")])
        return (
            f"{name} {word} [{', '.join(ours for ours, _ in pairs)}]",
            f"{name} {sql} ({', '.join(theirs for _, theirs in pairs)})",
        )
    ours, theirs = KINDS[name].literals(rng)
    if shape < 0.6:
        return f"{ours} {operator} {name}", f"{theirs} {SQL.get(operator, operator)} {name}"
    return f"{name} {operator} {ours}", f"{name} {SQL.get(operator, operator)} {theirs}"


def condition(rng: random.Random, depth: int = 0) -> tuple[str, str]:
    """Return a condition in both languages."""
    if depth > 2 or rng.random() < 0.4:
        return atom(rng)
    ours, theirs = condition(rng, depth + 1)
    if rng.random() < 0.3:
        return f"not ({ours})", f"NOT ({theirs})"
    word = rng.choice(["and", "or"])
    others = condition(rng, depth + 1)
    return f"({ours} {word} {others[0]})", f"({theirs} {word.upper()} {others[1]})"


def column(kind: Kind, n_rows: int, rng: random.Random, type_: Any) -> Any:
    """Return a column with some nulls."""
    values = [None if rng.random() < 0.15 else kind.values(rng) for _ in range(n_rows)]
    if pa.types.is_dictionary(type_):
        return pa.array(values, type_.value_type).dictionary_encode()
    return pa.array(values, type_)


def write(folder: Path, rng: random.Random) -> list[Path]:
    """Write two files whose columns are of the same families."""
    paths = []
    for k in range(2):
        n_rows = rng.randint(1, ROWS)
        columns = {name: column(kind, n_rows, rng, rng.choice(kind.types)) for name, kind in KINDS.items()}
        columns["b"] = pa.array([rng.choice([True, False, None]) for _ in range(n_rows)], pa.bool_())
        columns["row"] = pa.array(np.arange(n_rows) + 1000 * k)
        paths.append(folder / f"{k}.parquet")
        pq.write_table(pa.table(columns), paths[-1], row_group_size=rng.choice([4, 100]))
    return paths


def kept(data: Path, text: str) -> set[int]:
    """Return the rows that a filter keeps, as training reads them: row groups pruned, then rows."""
    try:
        dataset, chosen, _ = open_data(data, text)
    except Exception as error:
        if "leaves no row" in str(error):
            return set()
        raise
    reader, names, rows = dataset.reader(), (*chosen.columns, "row"), set()
    for group in range(dataset.n_row_groups):
        piece = Piece(0, group, group + 1, 0, int(dataset.rows[group]), 0)
        for columns in reader.read(piece, tuple(dict.fromkeys(names)), Timings()):
            named = dict(zip(dict.fromkeys(names), columns, strict=True))
            keep = chosen.keep(named, dataset.source.where(piece))
            rows |= set(np.asarray(named["row"])[keep].tolist())
    return rows


def compare(n_conditions: int, seed: int) -> tuple[int, list[str]]:
    """Return how many rows were compared, and the conditions that kept others."""
    rng, wrong, n_rows = random.Random(seed), [], 0
    engine = duckdb.connect()
    engine.execute("SET TimeZone = 'UTC'")
    for first in range(0, n_conditions, PER_TABLE):
        with tempfile.TemporaryDirectory() as place:
            paths = write(Path(place), rng)
            for _ in range(min(PER_TABLE, n_conditions - first)):
                ours, theirs = condition(rng)
                queries = " UNION ALL ".join(f"SELECT row FROM read_parquet('{path}') WHERE {theirs}" for path in paths)
                expected = {row for (row,) in engine.execute(queries).fetchall()}
                found = kept(Path(place), ours)
                n_rows += sum(pq.read_metadata(path).num_rows for path in paths)
                if found != expected:
                    wrong.append(f"{ours}   {theirs}   kept {sorted(found)}, DuckDB {sorted(expected)}")
    return n_rows, wrong


def main() -> int:
    """Compare, and say what came of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--conditions", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    n_rows, wrong = compare(given.conditions, given.seed)
    sys.stdout.write(f"{given.conditions:,} conditions over {n_rows:,} rows: {len(wrong)} kept other rows than DuckDB\n")
    sys.stdout.write("".join(f"  {line}\n" for line in wrong[:20]))
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
