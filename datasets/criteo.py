"""Convert the Criteo display-advertising text to Parquet, or make a synthetic click log of its shape.

    python datasets/criteo.py train.parquet --tsv train.txt
    gzip -dc day_0.gz | python datasets/criteo.py day_0.parquet --tsv -
    python datasets/criteo.py clicks.parquet --rows 8000000 --seed 0

Either has the target `label` (int8, 0 or 1), the numbers `I1` .. `I13` (int32) and the texts `C1` .. `C26`, in the order
of the source, with a dictionary as writers do unless told otherwise. Memory is that of a few row groups.

The source has no header; between the 40 fields of a line stand tabs, and an empty field is a null. It is read as a stream,
compressed or not. Sources: https://ailab.criteo.com/ressources/ (Kaggle Display Advertising, 1TB Click Logs)

The synthetic log has the null rates and numbers of distinct values published for the 45,840,617 rows of the Kaggle data:
log-normal numbers, texts by a bounded Zipf law. Columns are drawn independently, but those of one null rate are null in
the same rows. The label is drawn from a logistic model, whose weight for a text is a hash of it and of its column: a new
seed makes new rows of the same model. It also knows the logarithms of the numbers, and the nulls. Its log loss on the
labels is printed; only luck does better. A row group's random numbers are addressed by SeedSequence([seed, row_group]).
"""

import argparse
import math
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
from numpy.typing import NDArray

ROW_GROUP_ROWS = 250_000
BLOCK_BYTES = 1 << 22


class Number(NamedTuple):
    """A column of counts: how often it is null, and its mean and deviation where it is not."""

    null_rate: float
    mean: float
    deviation: float
    least: int = 0


class Text(NamedTuple):
    """A column of hashed texts: the number of distinct ones, and how often it is null."""

    cardinality: int
    null_rate: float = 0.0


# Deviations and means are rounded, null rates are not: columns of one rate are null together.
NUMBERS = {
    "I1": Number(0.4536, 3.5, 9.4),
    "I2": Number(0.0, 106.0, 391.0, least=-2),
    "I3": Number(0.2146, 27.0, 397.0),
    "I4": Number(0.2168, 7.3, 8.8),
    "I5": Number(0.0258, 18_500.0, 69_400.0),
    "I6": Number(0.2237, 116.0, 382.0),
    "I7": Number(0.0433, 16.3, 66.0),
    "I8": Number(0.0005, 12.5, 16.7),
    "I9": Number(0.0433, 106.0, 220.0),
    "I10": Number(0.4536, 0.62, 0.68),
    "I11": Number(0.0433, 2.7, 5.2),
    "I12": Number(0.7650, 1.0, 5.6),
    "I13": Number(0.2168, 8.2, 16.2),
}
TEXTS = {
    "C1": Text(1_460),
    "C2": Text(583),
    "C3": Text(10_131_227, 0.0340),
    "C4": Text(2_202_608, 0.0340),
    "C5": Text(305),
    "C6": Text(24, 0.1209),
    "C7": Text(12_517),
    "C8": Text(633),
    "C9": Text(3),
    "C10": Text(93_145),
    "C11": Text(5_683),
    "C12": Text(8_351_593, 0.0340),
    "C13": Text(3_194),
    "C14": Text(27),
    "C15": Text(14_992),
    "C16": Text(5_461_306, 0.0340),
    "C17": Text(10),
    "C18": Text(5_652),
    "C19": Text(2_173, 0.4401),
    "C20": Text(4, 0.4401),
    "C21": Text(7_046_547, 0.0340),
    "C22": Text(18, 0.7625),
    "C23": Text(15),
    "C24": Text(286_181, 0.0340),
    "C25": Text(105, 0.4401),
    "C26": Text(142_572, 0.4401),
}
COLUMNS = NUMBERS | TEXTS
SCHEMA = pa.schema([("label", pa.int8())] + [(name, pa.int32()) for name in NUMBERS] + [(name, pa.string()) for name in TEXTS])

# --- the synthetic log

NUMBER_EFFECT, TEXT_EFFECT = 0.15, 0.25  # deviation of a column's part in the log-odds
INTERCEPT = -1.315  # a quarter of the labels is 1
NULL = 1 << 32  # as a value: no text of 32 bits has it
HALVES = np.array([f"{half:04x}".encode() for half in range(1 << 16)], "S4").view(np.uint32)


class Log(NamedTuple):
    """What the rows are a pure function of: the options of the command line."""

    rows: int
    seed: int = 0
    row_group_rows: int = ROW_GROUP_ROWS


class Rows(NamedTuple):
    """Rows before they have labels; what stands below a null means nothing."""

    numbers: NDArray[np.int32]
    """(13, n_rows)"""
    texts: NDArray[np.uint32]
    """(26, n_rows), as numbers of eight hexadecimal digits."""
    null: NDArray[np.bool_]
    """(39, n_rows)"""


class RowGroup(NamedTuple):
    """A row group, and the mean log loss of the model that drew its labels."""

    table: pa.Table
    bayes: float


def check(log: Log) -> None:
    """Refuse options that make no log, naming the option."""
    demands = {
        f"--rows must be at least 1; got {log.rows}": log.rows >= 1,
        f"--seed must be in 0 .. 4294967295; got {log.seed}": 0 <= log.seed < 2**32,
        f"--row-group-rows must be at least 1; got {log.row_group_rows}": log.row_group_rows >= 1,
    }
    for demand in (demand for demand, held in demands.items() if not held):
        raise SystemExit(demand)


def log_normal(column: Number) -> tuple[float, float]:
    """Return the mean and the deviation of the logarithms of a column's numbers."""
    variance = math.log1p((column.deviation / column.mean) ** 2)
    return math.log(column.mean) - variance / 2, math.sqrt(variance)


def zipf(cardinality: int, uniform: NDArray[np.float64]) -> NDArray[np.uint32]:
    """Return ranks 0 .. cardinality - 1 (n_rows,) of `uniform` (n_rows,): quantiles of x^-s on [1, cardinality + 1)."""
    # The columns of millions have long tails: five in six of the values that 250,000 rows show are seen once.
    power = 1 - (1.05 if cardinality > 100_000 else 1.2)
    whole = 1 - (cardinality + 1) ** power
    # exp and log of arrays are several times as fast as the power.
    quantile = np.exp(np.log(1 - whole * uniform) / power)
    return np.minimum(quantile.astype(np.uint32) - np.uint32(1), np.uint32(cardinality - 1))


def scatter(column: int, ranks: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """Return the texts of ranks below 2^24, no two alike, nor alike to those of other columns."""
    x = ranks + np.uint32((column + 1) << 24)
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        x ^= x >> np.uint32(shift)
        x *= np.uint32(factor)
    x ^= x >> np.uint32(16)
    return x


def weights(column: int, values: NDArray[np.uint64]) -> NDArray[np.float64]:
    """Return the weight of each value, of mean 0 and deviation 1 over all values: a hash of it and the column."""
    x = (values | np.uint64(column << 33)) + np.uint64(0x9E3779B97F4A7C15)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        x ^= x >> np.uint64(shift)
        x *= np.uint64(factor)
    x ^= x >> np.uint64(31)
    return math.sqrt(12) * ((x >> np.uint64(11)) * 2.0**-53 - 0.5)


def draw(rng: np.random.Generator, n_rows: int) -> Rows:
    """Draw rows without labels."""
    rates = {rate: rng.random(n_rows, dtype=np.float32) < rate for rate in sorted({c.null_rate for c in COLUMNS.values()})}
    numbers = np.empty((len(NUMBERS), n_rows), np.int32)
    for j, column in enumerate(NUMBERS.values()):
        mean, deviation = log_normal(column)
        value = np.exp(mean + deviation * rng.standard_normal(n_rows, dtype=np.float32))
        numbers[j] = np.rint(value) + column.least
    texts = np.empty((len(TEXTS), n_rows), np.uint32)
    for j, column in enumerate(TEXTS.values()):
        texts[j] = scatter(j, zipf(column.cardinality, rng.random(n_rows)))
    return Rows(numbers, texts, np.stack([rates[column.null_rate] for column in COLUMNS.values()]))


def log_odds(rows: Rows) -> NDArray[np.float64]:
    """Return the logarithm of the odds (n_rows,) that a label is 1."""
    score = np.full(rows.null.shape[1], INTERCEPT)
    of_null = [weights(j, np.array([NULL], np.uint64))[0] for j in range(len(COLUMNS))]
    for j, column in enumerate(NUMBERS.values()):
        mean, deviation = log_normal(column)
        slope = weights(j, np.zeros(1, np.uint64))[0]
        logarithm = np.log1p(np.maximum(rows.numbers[j], 0))
        score += NUMBER_EFFECT * np.where(rows.null[j], of_null[j], slope * (logarithm - mean) / deviation)
    for j, texts in enumerate(rows.texts, start=len(NUMBERS)):
        score += TEXT_EFFECT * np.where(rows.null[j], of_null[j], weights(j, texts.astype(np.uint64)))
    return score


def as_text(values: NDArray[np.uint32], null: NDArray[np.bool_]) -> pa.Array:
    """Return eight hexadecimal digits (n_rows,) of each value."""
    # By two look-ups of four digits each: no work of Python's for a row, and no dictionary to make first.
    digits = np.stack([HALVES[values >> np.uint32(16)], HALVES[values & np.uint32(0xFFFF)]], axis=1)
    offsets = np.arange(0, 8 * len(values) + 1, 8, dtype=np.int32)
    valid = pa.py_buffer(np.packbits(~null, bitorder="little")) if null.any() else None
    return pa.Array.from_buffers(pa.string(), len(values), [valid, pa.py_buffer(offsets), pa.py_buffer(digits)])


def make_row_group(log: Log, index: int) -> RowGroup:
    """Return one row group, a pure function of its arguments."""
    n_rows = min(log.row_group_rows, log.rows - index * log.row_group_rows)
    rng = np.random.default_rng(np.random.SeedSequence([log.seed, index]))
    rows = draw(rng, n_rows)
    score = log_odds(rows)
    label = np.log(1 / rng.random(n_rows) - 1) < score
    numbers = [pa.array(values, mask=null) for values, null in zip(rows.numbers, rows.null, strict=False)]
    texts = [as_text(values, null) for values, null in zip(rows.texts, rows.null[len(NUMBERS) :], strict=True)]
    table = pa.table([pa.array(label.astype(np.int8)), *numbers, *texts], schema=SCHEMA)
    return RowGroup(table, float(np.logaddexp(0, np.where(label, -score, score)).mean()))


def make(log: Log, target: Path) -> float:
    """Write the log to the Parquet file `target`; return the mean log loss of the model that drew its labels."""
    check(log)
    losses: list[float] = []

    def tables() -> Iterator[pa.Table]:
        for index in range(math.ceil(log.rows / log.row_group_rows)):
            table, bayes = make_row_group(log, index)
            losses.append(bayes * len(table))
            yield table

    write(tables(), target)
    return sum(losses) / log.rows


# --- the original


def open_source(source: str) -> Path | pa.NativeFile:
    """Return what to read: the file, or standard input if it is `-`, compressed by gzip or not."""
    if source == "-":
        compression = "gzip" if sys.stdin.buffer.peek(2)[:2] == b"\x1f\x8b" else None
        return pa.input_stream(sys.stdin.buffer, compression=compression)
    if not Path(source).is_file():
        raise SystemExit(f"{source}: no such file")
    return Path(source)


def batches(source: Path | pa.NativeFile) -> Iterator[pa.RecordBatch]:
    """Read the text as record batches of `SCHEMA`, in bounded memory."""
    stream = pyarrow.csv.open_csv(
        source,
        # Only the single-threaded reader knows the line of an error.
        pyarrow.csv.ReadOptions(column_names=SCHEMA.names, use_threads=False, block_size=BLOCK_BYTES),
        # A line that is skipped would not be counted.
        pyarrow.csv.ParseOptions(delimiter="\t", quote_char=False, ignore_empty_lines=False),
        pyarrow.csv.ConvertOptions(
            # As a truth value, a label is 0 or 1 or an error that knows its line.
            column_types={**dict(zip(SCHEMA.names, SCHEMA.types, strict=True)), "label": pa.bool_()},
            true_values=["1"],
            false_values=["0"],
            null_values=[""],
            strings_can_be_null=True,
        ),
    )
    rows = 0
    for batch in stream:
        if batch["label"].null_count:
            line = rows + batch["label"].is_null().index(True).as_py() + 1
            raise pa.ArrowInvalid(f"Row #{line}: the label is empty")
        rows += len(batch)
        yield batch.cast(SCHEMA)


def regroup(stream: Iterator[pa.RecordBatch], rows: int) -> Iterator[pa.Table]:
    """Cut a stream of record batches into tables of `rows` rows; the last one may be shorter."""
    held: list[pa.RecordBatch] = []
    for batch in stream:
        held.append(batch)
        while sum(map(len, held)) >= rows:
            table = pa.Table.from_batches(held)
            yield table.slice(0, rows)
            held = table.slice(rows).to_batches()
    if any(map(len, held)):
        yield pa.Table.from_batches(held)


def write(tables: Iterator[pa.Table], target: Path) -> int:
    """Write each table as a row group of `target`, by way of a temporary name; return the number of rows."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.tmp")
    rows = 0
    try:
        with pq.ParquetWriter(temporary, SCHEMA, compression="snappy") as writer:
            for table in tables:
                writer.write_table(table, row_group_size=len(table))
                rows += len(table)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
    return rows


def convert(source: str, target: Path, row_group_rows: int = ROW_GROUP_ROWS) -> int:
    """Convert the text `source`, - for standard input, to the Parquet file `target` and return its number of rows."""
    if row_group_rows < 1:
        raise SystemExit(f"--row-group-rows must be at least 1; got {row_group_rows}")
    opened = open_source(source)
    try:
        return write(regroup(batches(opened), row_group_rows), target)
    except (pa.ArrowException, OSError) as error:
        what = re.sub(r"Row #(\d+)", r"line \1", str(error))[:300]
        hint = (
            "expected lines of a label (0 or 1), 13 whole numbers and 26 texts with tabs between, without a header; "
            "mend or remove the line, or fetch the file again if it was cut"
        )
        raise SystemExit(f"{source}: {what}; {hint}") from None


# --- the command line


def main() -> None:
    """Convert or make what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("target", type=Path, metavar="OUT.parquet")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--rows", type=int, help="make a synthetic log of so many rows")
    what.add_argument("--tsv", metavar="FILE", help="convert text, or .gz, .bz2, .zst of it; - is standard input")
    parser.add_argument("--seed", type=int, default=0, help="of the synthetic log (default: 0)")
    parser.add_argument("--row-group-rows", "--rows-per-group", type=int, default=ROW_GROUP_ROWS)
    given = parser.parse_args()
    if given.tsv is not None:
        print(f"{given.target}: {convert(given.tsv, given.target, given.row_group_rows)} rows")
        return
    try:
        bayes = make(Log(given.rows, given.seed, given.row_group_rows), given.target)
    except OSError as error:
        raise SystemExit(f"cannot write to {given.target}: {error}") from None
    print(f"{given.target}: {given.rows} rows, {given.target.stat().st_size} bytes, log loss of the true model {bayes:.6f}")


if __name__ == "__main__":
    main()
