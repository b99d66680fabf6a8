"""Convert HIGGS.csv.gz or SUSY.csv.gz of the UCI repository, or a part of them, to one Parquet file.

    python datasets/higgs.py HIGGS.csv.gz higgs.parquet

The source has no header; the label (0 or 1) comes first, then 28 (HIGGS) or 18 (SUSY) numbers. It is read as
a stream, compressed or not, with commas, tabs, semicolons or blanks between the numbers. The file has the
target `y` (int8) and the features in float32 under their UCI names (x00, x01 ... if they are not 28 or 18).
Sources: https://archive.ics.uci.edu/dataset/280/higgs and https://archive.ics.uci.edu/dataset/279/susy
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

JETS = [f"jet_{i}_{what}" for i in (1, 2, 3, 4) for what in ("pt", "eta", "phi", "b_tag")]
MASSES = ["m_jj", "m_jjj", "m_lv", "m_jlv", "m_bb", "m_wbb", "m_wwbb"]
LEPTONS = [f"lepton_{i}_{what}" for i in (1, 2) for what in ("pt", "eta", "phi")]
MISSING = ["missing_energy_magnitude", "missing_energy_phi"]
HIGGS = ["lepton_pt", "lepton_eta", "lepton_phi", *MISSING, *JETS, *MASSES]
SUSY = [
    *LEPTONS,
    *MISSING,
    *("met_rel", "axial_met", "m_r", "m_tr_2", "r", "mt2", "s_r", "m_delta_r", "dphi_r_b", "cos_theta_r1"),
]


def sniff(source: Path) -> tuple[str, int]:
    """Return the delimiter and the number of columns of the first line."""
    with pa.input_stream(source) as stream:
        line = stream.read(1 << 16).split(b"\n", 1)[0].decode(errors="replace").strip()
    if not line:
        raise SystemExit(f"{source}: the first line is empty: expected a label and numbers")
    delimiter = next((candidate for candidate in "\t,; " if candidate in line), None)
    if delimiter is None:
        raise SystemExit(f"{source}: no comma, tab, semicolon or blank in the first line: {line[:80]!r}")
    return delimiter, line.count(delimiter) + 1


def feature_names(n_features: int) -> list[str]:
    """Return the names of the features: those of UCI where their number tells them."""
    known = {len(HIGGS): HIGGS, len(SUSY): SUSY}
    return known.get(n_features) or [f"x{j:02d}" for j in range(n_features)]


def batches(source: Path) -> Iterator[pa.RecordBatch]:
    """Read the text as record batches of y (float32) and the features (float32), in bounded memory."""
    delimiter, n_columns = sniff(source)
    names = ["y", *feature_names(n_columns - 1)]
    yield from pyarrow.csv.open_csv(
        source,
        # Only the single-threaded reader knows the line of an error.
        pyarrow.csv.ReadOptions(column_names=names, use_threads=False, block_size=1 << 22),
        pyarrow.csv.ParseOptions(delimiter=delimiter, quote_char=False),
        pyarrow.csv.ConvertOptions(column_types=dict.fromkeys(names, pa.float32()), null_values=[]),
    )


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


def cast(table: pa.Table, schema: pa.Schema, before: int) -> pa.Table:
    """Cast a table that begins `before` rows into the file; an error tells the rows."""
    try:
        return table.cast(schema)
    except pa.ArrowInvalid as error:
        raise pa.ArrowInvalid(f"label of rows {before + 1} .. {before + len(table)}: {error}") from None


def write(tables: Iterator[pa.Table], schema: pa.Schema, target: Path) -> int:
    """Write each table as a row group of `target`, by way of a temporary name; return the number of rows."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.tmp")
    rows = 0
    try:
        with pq.ParquetWriter(temporary, schema) as writer:
            for table in tables:
                writer.write_table(cast(table, schema, rows), row_group_size=len(table))
                rows += len(table)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
    return rows


def convert(source: Path, target: Path, row_group_rows: int = 250_000) -> int:
    """Convert `source` to the Parquet file `target` and return its number of rows."""
    if not source.is_file():
        raise SystemExit(f"{source}: no such file")
    if row_group_rows < 1:
        raise SystemExit(f"--row-group-rows must be at least 1; got {row_group_rows}")
    try:
        _, n_columns = sniff(source)
        features = [pa.field(name, pa.float32()) for name in feature_names(n_columns - 1)]
        schema = pa.schema([pa.field("y", pa.int8()), *features])
        return write(regroup(batches(source), row_group_rows), schema, target)
    except (pa.ArrowException, OSError) as error:
        hint = "expected lines of a label (0 or 1) and numbers, without a header, to the end of the file"
        raise SystemExit(f"{source}: {str(error)[:300]}; {hint}") from None


def main() -> None:
    """Convert the file that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("source", type=Path, metavar="SOURCE", help="text, or .gz, .bz2, .zst of it")
    parser.add_argument("target", type=Path, metavar="OUT.parquet")
    parser.add_argument("--row-group-rows", type=int, default=250_000)
    arguments = parser.parse_args()
    rows = convert(arguments.source, arguments.target, arguments.row_group_rows)
    print(f"{arguments.target}: {rows} rows")


if __name__ == "__main__":
    main()
