"""What the footers say: checked, unified, fingerprinted, and small enough for a million row groups."""

import pickle
import re
import sys
import threading
from contextlib import suppress
from datetime import date
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamsgd.data.dataset import read_dataset, require
from streamsgd.data.parquet.no_footer import MEND
from streamsgd.data.schemas import widen
from streamsgd.errors import DataError, SchemaError
from streamsgd.model import store


def write(path: Path, columns: object, **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    table = columns if isinstance(columns, pa.Table) else pa.table(columns)
    pq.write_table(table, path, **options)
    return path


# --- law: the arrays are what pyarrow says of every row group, in the order of the files


def test_row_groups_are_those_of_the_files(tmp_path: Path) -> None:
    for i, (rows, size) in enumerate([(10, 3), (0, 5), (7, 7), (1, 1)]):
        write(tmp_path / f"{i}.parquet", {"x": np.arange(rows)}, row_group_size=size)
    dataset = read_dataset(tmp_path)
    expected = []
    for i in range(4):
        metadata = pq.read_metadata(tmp_path / f"{i}.parquet")
        groups = [metadata.row_group(j) for j in range(metadata.num_row_groups)]
        expected += [(i, j, group.num_rows, group.total_byte_size) for j, group in enumerate(groups)]
    found = zip(dataset.file, dataset.index, dataset.rows, dataset.bytes, strict=True)
    assert [tuple(map(int, row)) for row in found] == expected
    assert (dataset.n_files, dataset.n_rows, dataset.n_row_groups) == (4, 18, len(expected))
    assert [a.dtype for a in (dataset.file, dataset.index, dataset.rows, dataset.bytes)] == [
        np.int32, np.int32, np.int64, np.int64,
    ]  # fmt: skip


def test_no_rows_at_all_is_a_dataset(tmp_path: Path) -> None:
    with pq.ParquetWriter(tmp_path / "none.parquet", pa.schema({"x": pa.int64()})):
        pass
    dataset = read_dataset(tmp_path / "none.parquet")
    assert (dataset.n_rows, dataset.n_row_groups, dataset.compressed_bytes) == (0, 0, 0)
    assert dataset.schema == pa.schema({"x": pa.int64()})
    require(dataset, ["x"])


def test_footer_longer_than_the_first_read(tmp_path: Path) -> None:
    path = write(tmp_path / "wide.parquet", {f"column_{i}": [i] for i in range(2000)})
    dataset = read_dataset(path)
    assert len(dataset.schema) == 2000
    assert dataset.n_rows == 1


def test_progress_counts_every_file_in_order(tmp_path: Path) -> None:
    for i in range(5):
        write(tmp_path / f"{i}.parquet", {"x": [i]})
    calls: list[tuple[int, int]] = []
    read_dataset(tmp_path, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(i, 5) for i in range(1, 6)]


def test_pickles_and_selects(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", {"x": np.arange(10)}, row_group_size=2)
    dataset = pickle.loads(pickle.dumps(read_dataset(tmp_path)))
    some = dataset.select(dataset.index % 2 == 1)
    assert some.index.tolist() == [1, 3]
    assert some.n_rows == 4
    assert some.fingerprint == dataset.fingerprint


def test_leaves_no_thread_and_no_file_open(tmp_path: Path) -> None:
    for i in range(20):
        write(tmp_path / f"{i}.parquet", {"x": [i]})
    (tmp_path / "3.parquet").write_bytes(b"x" * 50)
    threads, files = threading.active_count(), len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(DataError, match=r"3\.parquet"):
        read_dataset(tmp_path)
    assert (threading.active_count(), len(list(Path("/proc/self/fd").iterdir()))) == (threads, files)


# --- law: the fingerprint changes with the data, not with the way to it


def test_fingerprint_follows_the_data(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    for folder in (one, two):
        write(folder / "a.parquet", {"x": [1, 2]})
        write(folder / "b.parquet", {"x": [3]})
    before = read_dataset(one).fingerprint
    assert before == read_dataset(two).fingerprint == read_dataset(f"{one}/*.parquet").fingerprint
    assert len(before) == 64
    write(two / "b.parquet", {"x": [4]})
    assert read_dataset(two).fingerprint != before
    (one / "b.parquet").rename(one / "c.parquet")
    assert read_dataset(one).fingerprint != before


# --- law: damage is refused by the name of the file


def damage(data: bytes) -> dict[str, tuple[bytes, str]]:
    footer = int.from_bytes(data[-8:-4], "little")
    return {
        "cut": (data[: len(data) // 2], f"does not end with PAR1; it is truncated: {MEND}"),
        "tiny": (data[:8], f"8 bytes are too short for it; it is truncated: {MEND}"),
        "text": (b"a,b\n1,2\n3,4\n", r"is not Parquet \(it does not end with PAR1\), and nothing else is read: write it as"),
        "a text": (b"a,b\n", r"is not Parquet \(4 bytes are too short for it\), and nothing else is read: write it as"),
        "a model": (store.pack("model", {}, {"weights": np.zeros(1)}), "is a model or a checkpoint, and Parquet is wanted"),
        "encrypted": (data[:-4] + b"PARE", "encrypted"),
        "length": (
            data[:-8] + (1 << 30).to_bytes(4, "little") + b"PAR1",
            "1,073,741,824 bytes of .* damaged",
        ),
        "no footer": (data[:-8] + bytes(4) + b"PAR1", "0 bytes of .* damaged"),
        "zeroed": (data[: -8 - footer] + bytes(footer) + data[-8:], "damaged"),
    }


@pytest.mark.parametrize("kind", ["cut", "tiny", "text", "a text", "a model", "encrypted", "length", "no footer", "zeroed"])
def test_damaged_file_is_named(tmp_path: Path, kind: str) -> None:
    good = write(tmp_path / "good.parquet", {"x": list(range(100))}).read_bytes()
    bad, message = damage(good)[kind]
    (tmp_path / "bad.parquet").write_bytes(bad)
    with pytest.raises(DataError, match=rf"^{re.escape(str(tmp_path))}/bad\.parquet: .*{message}"):
        read_dataset(tmp_path)


@given(st.data())
def test_any_flipped_footer_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    folder = tmp_path_factory.mktemp("flip")
    content = bytearray(write(folder / "a.parquet", {"x": [1, 2], "s": ["a", "b"]}).read_bytes())
    footer = int.from_bytes(content[-8:-4], "little")
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(len(content) - 8 - footer, len(content) - 1))] = data.draw(st.integers(0, 255))
    (folder / "a.parquet").write_bytes(content)
    with suppress(DataError):
        assert read_dataset(folder).n_rows >= 0


def varint(number: int) -> bytes:
    out = b""
    while number >= 0x80:
        out, number = out + bytes([number & 0x7F | 0x80]), number >> 7
    return out + bytes([number])


@pytest.mark.parametrize("claim", [0, 8, 4294967294, -1])
def test_footer_that_lies_about_rows_is_refused_with_both_numbers(tmp_path: Path, claim: int) -> None:
    """The count of the file is the thrift varint before its list of row groups; another number is put in."""
    path = write(tmp_path / "liar.parquet", {"x": list(range(77))})
    data = path.read_bytes()
    length = int.from_bytes(data[-8:-4], "little")
    footer = data[-8 - length : -8]
    old = b"\x16" + varint(77 << 1) + b"\x19\x1c"
    assert footer.count(old) == 1
    zigzag = (claim << 1) ^ (claim >> 63)
    footer = footer.replace(old, b"\x16" + varint(zigzag & (1 << 64) - 1) + b"\x19\x1c")
    path.write_bytes(data[: -8 - length] + footer + len(footer).to_bytes(4, "little") + b"PAR1")
    with pytest.raises(DataError, match=rf"/liar\.parquet: .*{claim:,} rows.*77.*it lies: {MEND}"):
        read_dataset(path)


# --- law: columns are unified by safe widening, and what is not safe stops only those who need it


def unified(tmp_path: Path, *types: pa.DataType) -> pa.DataType:
    for i, kind in enumerate(types):
        write(tmp_path / f"{i}.parquet", {"x": pa.nulls(1, kind), "id": [i]})
    dataset = read_dataset(tmp_path)
    require(dataset, ["x", "id"])
    return dataset.schema.field("x").type


WIDENINGS = [
    (pa.int8(), pa.int64(), pa.int64()),
    (pa.uint8(), pa.uint32(), pa.uint32()),
    (pa.uint8(), pa.int8(), pa.int16()),
    (pa.uint32(), pa.int16(), pa.int64()),
    (pa.float32(), pa.float64(), pa.float64()),
    (pa.float16(), pa.float32(), pa.float32()),
    (pa.int64(), pa.float32(), pa.float64()),
    (pa.uint64(), pa.float64(), pa.float64()),
    (pa.decimal128(5, 2), pa.decimal128(6, 1), pa.decimal128(7, 2)),
    (pa.decimal128(38, 0), pa.decimal128(38, 30), pa.decimal256(68, 30)),
    (pa.decimal256(76, 0), pa.decimal256(76, 40), pa.float64()),
    (pa.decimal128(5, 2), pa.int32(), pa.float64()),
    (pa.decimal128(5, 2), pa.float32(), pa.float64()),
    (pa.string(), pa.large_string(), pa.large_string()),
    (pa.dictionary(pa.int32(), pa.string()), pa.string(), pa.string()),
    (pa.dictionary(pa.int32(), pa.string()), pa.dictionary(pa.int8(), pa.string()), pa.string()),
    (pa.null(), pa.float32(), pa.float32()),
    (pa.null(), pa.string(), pa.string()),
    (pa.date32(), pa.timestamp("us"), pa.timestamp("us")),
    (pa.timestamp("ms"), pa.timestamp("ns"), pa.timestamp("ns")),
    (pa.timestamp("us", "UTC"), pa.timestamp("ms", "UTC"), pa.timestamp("us", "UTC")),
    (pa.timestamp("us", "Asia/Tokyo"), pa.timestamp("us", "Europe/Paris"), pa.timestamp("us", "UTC")),
    (pa.duration("s"), pa.duration("ms"), pa.duration("ms")),
    (pa.time32("s"), pa.time32("ms"), pa.time32("ms")),
    (pa.time32("ms"), pa.time64("us"), pa.time64("us")),
    (pa.int64(), pa.uint64(), pa.decimal128(20, 0)),
    (pa.bool_(), pa.int8(), pa.int8()),
    (pa.bool_(), pa.float64(), pa.float64()),
    (pa.string(), pa.binary(), pa.large_binary()),
    (pa.large_string(), pa.binary(4), pa.large_binary()),
    (pa.binary(3), pa.binary(4), pa.large_binary()),
]
CONFLICTS = [
    (pa.int64(), pa.string()),
    (pa.bool_(), pa.string()),
    (pa.time32("s"), pa.int32()),
    (pa.float64(), pa.string()),
    (pa.timestamp("us"), pa.timestamp("us", "UTC")),
    (pa.timestamp("us"), pa.int64()),
    (pa.list_(pa.int64()), pa.int64()),
]


@pytest.mark.parametrize(("a", "b", "expected"), WIDENINGS)
def test_widening_is_symmetric_and_ends(a: pa.DataType, b: pa.DataType, expected: pa.DataType) -> None:
    assert widen(a, b) == widen(b, a) == expected
    bare = a.value_type if pa.types.is_dictionary(a) else a
    assert widen(expected, bare) == expected
    assert widen(a, a) == a


@pytest.mark.parametrize(("a", "b"), CONFLICTS)
def test_conflicts_are_symmetric(a: pa.DataType, b: pa.DataType) -> None:
    assert widen(a, b) is None
    assert widen(b, a) is None


@pytest.mark.parametrize(
    ("values", "a", "b"),
    [
        ([-128, 127, None], pa.int8(), pa.uint8()),
        ([0.5, -3.25, None], pa.float16(), pa.float64()),
        ([date(1960, 2, 29), None], pa.date32(), pa.timestamp("ms")),
        (["a", "", None], pa.string(), pa.large_string()),
    ],
)
def test_widened_values_are_the_same_values(values: list, a: pa.DataType, b: pa.DataType) -> None:
    wide = pa.array(values, a).cast(widen(a, b))
    assert wide.cast(a).to_pylist() == values


def test_files_are_unified(tmp_path: Path) -> None:
    assert unified(tmp_path, pa.int8(), pa.int32(), pa.null(), pa.float32()) == pa.float64()


def test_conflict_stops_only_those_who_need_the_column(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", {"x": [1], "y": [1]})
    write(tmp_path / "b.parquet", {"x": ["one"], "y": [1.5]})
    dataset = read_dataset(tmp_path)
    require(dataset, ["y"])
    assert dataset.physical_schema(0).field("y").type == pa.int64()
    assert dataset.physical_schema(1).field("y").type == pa.float64()
    with pytest.raises(SchemaError, match=r"'x' is int64 in a\.parquet but string in b\.parquet"):
        require(dataset, ["y", "x"])


def test_missing_column_stops_only_those_who_need_it(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", {"x": [1], "y": [1]})
    write(tmp_path / "b.parquet", {"x": [2]})
    dataset = read_dataset(tmp_path)
    require(dataset, ["x"])
    with pytest.raises(SchemaError, match=r"^b\.parquet: has no column 'y'"):
        require(dataset, ["y"])


def test_unknown_column_suggests_the_nearest(tmp_path: Path) -> None:
    dataset = read_dataset(write(tmp_path / "a.parquet", {"income": [1], "age": [1]}))
    with pytest.raises(SchemaError, match="'incme' is in no file; did you mean income"):
        require(dataset, ["incme"])
    with pytest.raises(SchemaError, match="there are income, age"):
        require(dataset, ["zzz"])


def test_column_twice_in_a_file_is_refused_when_needed(tmp_path: Path) -> None:
    table = pa.Table.from_arrays([pa.array([1]), pa.array([2]), pa.array([3])], names=["x", "x", "y"])
    dataset = read_dataset(write(tmp_path / "a.parquet", table))
    require(dataset, ["y"])
    with pytest.raises(SchemaError, match=r"^a\.parquet: has column 'x' more than once"):
        require(dataset, ["x"])


def test_nested_columns_are_kept(tmp_path: Path) -> None:
    columns = {"l": [[1, 2]], "s": [{"a": 1}], "m": pa.array([[("k", 1)]], pa.map_(pa.string(), pa.int64()))}
    assert set(read_dataset(write(tmp_path / "a.parquet", columns)).schema.names) == {"l", "s", "m"}


def test_writers_metadata_makes_no_difference(tmp_path: Path) -> None:
    for i in range(3):
        write(tmp_path / f"{i}.parquet", pa.table({"x": [i]}).replace_schema_metadata({"written": str(i)}))
    dataset = read_dataset(tmp_path)
    assert len(dataset.file_schemas) == 1
    assert not dataset.schema.metadata


# --- law: folders named key=value are columns


def test_partition_folders_are_typed_columns(tmp_path: Path) -> None:
    for folder in (
        "year=2024/city=New%20York",
        "year=2024/city=__HIVE_DEFAULT_PARTITION__",
        "year=-1/city=7",
    ):
        write(tmp_path / folder / "a.parquet", {"x": [1]})
    dataset = read_dataset(tmp_path)
    assert dataset.partition_names == ("year", "city")
    assert dataset.partition_values == ((-1, "7"), (2024, "New York"), (2024, None))
    assert dataset.schema == pa.schema({"x": pa.int64(), "year": pa.int64(), "city": pa.string()})
    require(dataset, dataset.schema.names)


def test_folder_wins_over_a_column_of_its_name(tmp_path: Path) -> None:
    write(tmp_path / "x=1/a.parquet", {"x": ["text"], "y": [1]})
    write(tmp_path / "x=2/a.parquet", {"y": [1]})
    dataset = read_dataset(tmp_path)
    require(dataset, ["x", "y"])
    assert dataset.schema == pa.schema({"y": pa.int64(), "x": pa.int64()})


@pytest.mark.parametrize(
    ("folders", "message"),
    [(["x=1", "other"], "other/a.parquet: has no column 'x'"), (["x=1/x=2", "x=2"], "more than once")],
)
def test_uneven_partition_folders_are_refused_when_needed(tmp_path: Path, folders: list[str], message: str) -> None:
    for folder in folders:
        write(tmp_path / folder / "a.parquet", {"y": [1]})
    dataset = read_dataset(tmp_path)
    require(dataset, ["y"])
    with pytest.raises(SchemaError, match=message):
        require(dataset, ["x"])


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (["1", "20"], pa.int64()),
        (["01", "12"], pa.int64()),  # a month
        (["01", "2"], pa.string()),
        (["007", "012"], pa.string()),  # a code
        (["1", "2.5"], pa.string()),
        (["9" * 19, "1"], pa.string()),
        (["٣", "1"], pa.string()),
        (["2024-01-31", "2024-02-29"], pa.date32()),
        (["2024-01-31", "2024-02-30"], pa.string()),
    ],
)
def test_the_type_of_a_folder_column_holds_all_its_values(tmp_path: Path, values: list[str], kind: pa.DataType) -> None:
    for value in values:
        write(tmp_path / f"k={value}" / "a.parquet", {"y": [1]})
    assert read_dataset(tmp_path).schema.field("k").type == kind


# --- law: a million row groups take seconds; here a twentieth of it


def test_row_groups_cost_little(tmp_path: Path) -> None:
    path = write(tmp_path / "many.parquet", {"x": np.arange(50_000)}, row_group_size=1)
    dataset = read_dataset(path)
    assert dataset.n_row_groups == 50_000
    own = sum(a.nbytes for a in (dataset.file, dataset.index, dataset.rows, dataset.bytes))
    assert own == 50_000 * 24
    assert sys.getsizeof(pickle.dumps(dataset)) < own + 10_000
