"""Bad input: one error that says what, where and how to mend it; nothing left; a corrected run works."""

import os
import re
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import streamsgd
from streamsgd.compute.executors import Inline
from streamsgd.errors import DataError, ModelError, SchemaError, SettingsError, StreamSGDError
from streamsgd.model import store
from streamsgd.model.model import Model
from streamsgd.model.predict import score_data
from streamsgd.model.read import load
from streamsgd.settings.make import make_settings
from streamsgd.training.run import train_model

N = 1200


def table(n: int = N, seed: int = 0, **columns: Any) -> pa.Table:
    """Return features a, b, a target y, and columns over or beside them."""
    rng = np.random.default_rng([seed, 3])
    a, b = rng.normal(size=(2, n))
    return pa.table({"a": a, "b": b, "y": a - 2 * b + rng.normal(size=n), **columns})


def with_value(column: str, row: int, value: float, n: int = N) -> pa.Table:
    """Return the table with one value replaced."""
    plain = table(n)
    values = plain[column].to_numpy().copy()
    values[row] = value
    return plain.set_column(plain.schema.get_field_index(column), column, pa.array(values))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    return folder


def put(folder: Path, content: pa.Table, name: str = "part.parquet", row_group_size: int = 100) -> Path:
    pq.write_table(content, folder / name, row_group_size=row_group_size)
    return folder / name


@pytest.fixture(params=["inline", "dask"])
def executor(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def train(data: Path | str, emit: Callable[[Any], None] | None = None, **settings: Any) -> Model:
    given = {"target": "y", "executor": "inline", "epochs": 2, "validation": "none", **settings}
    return train_model(str(data), make_settings(given), emit=emit)[0]


@pytest.fixture(autouse=True)
def nothing_left(tmp_path: Path) -> Iterator[None]:
    """After every test: no thread of ours, no temporary file, no file open below the test's folder."""
    threads = {*threading.enumerate()}
    yield
    left = [t.name for t in threading.enumerate() if t not in threads and not t.name.startswith("Dask-Offload")]
    assert left == []
    assert [path for path in tmp_path.rglob("*") if path.name.endswith(".partial")] == []
    links = [os.path.realpath(f"/proc/self/fd/{fd}") for fd in range(1024)]
    assert [link for link in links if link.startswith(str(tmp_path))] == []


# --- files


def test_a_path_that_is_not_there(data: Path) -> None:
    put(data, table())
    with pytest.raises(DataError, match=r"dato: no such file or folder; did you mean .*/data\?"):
        train(data.parent / "dato")


def test_an_empty_folder(data: Path) -> None:
    with pytest.raises(DataError, match="data: no Parquet files in this folder; it is empty"):
        train(data)
    (data / "notes.txt").write_text("nothing here")
    with pytest.raises(DataError, match=r"no Parquet files in this folder; it holds notes\.txt"):
        train(data)


def test_no_rows_at_all(data: Path) -> None:
    put(data, table().slice(0, 0))
    with pytest.raises(DataError, match="data: no row at all in 1 file with 1 row group"):
        train(data)
    put(data, table(), "more.parquet")
    assert train(data).provenance["rows"] == N, "an empty file among others is no error"


def test_no_row_groups(data: Path) -> None:
    with pq.ParquetWriter(data / "part.parquet", table().schema):
        pass
    with pytest.raises(DataError, match="no row at all in 1 file with 0 row groups"):
        train(data)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 0.999])
def test_a_truncated_file(data: Path, share: float) -> None:
    path = put(data, table())
    raw = path.read_bytes()
    path.write_bytes(raw[: int(len(raw) * share)])
    with pytest.raises(DataError, match=r"part\.parquet: .*(truncated|0 bytes long.*write it again)"):
        train(data)
    path.write_bytes(raw)
    train(data)


def test_what_is_not_parquet(data: Path) -> None:
    (data / "part.parquet").write_text("a,b,y\n" * 100)
    with pytest.raises(DataError, match=r"part\.parquet: is not Parquet \(it does not end with PAR1\)"):
        train(data)


def damage_page(path: Path, group: int, column: int) -> None:
    raw = bytearray(path.read_bytes())
    at = pq.ParquetFile(path).metadata.row_group(group).column(column).data_page_offset
    raw[at : at + 30] = b"\xff" * 30
    path.write_bytes(raw)


@pytest.mark.parametrize("chunk_rows", [30, 300, 10_000], ids=["sliced", "chunks", "merged"])
def test_a_damaged_page_is_an_error_or_left_out_and_counted(data: Path, executor: str, chunk_rows: int) -> None:
    path = put(data, table())
    damage_page(path, 7, 1)
    where = r"part\.parquet, row group 7: columns a, b cannot be read: .*or pass --unreadable skip"
    with pytest.raises(DataError, match=where):
        train(data, executor=executor, chunk_rows=chunk_rows)
    model = train(data, executor=executor, chunk_rows=chunk_rows, unreadable="skip")
    assert model.provenance["counts"]["skipped"] == 100
    assert model.provenance["rows_learned"] == 2 * (N - 100)
    (problem,) = model.provenance["left_out"]
    assert "row group 7: columns a, b" in problem
    assert problem.endswith("the file is damaged")  # and no advice to do what was done


@pytest.mark.parametrize("later", [{"epochs": 8}, {"epochs": 1, "polish": 3, "optimizer": "adam", "penalty": "l2"}])
def test_rows_that_an_earlier_pass_could_read_are_counted_as_lost(
    data: Path, executor: str, later: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    """Damage in place, with the time of modification given back: nothing but the decoder can know."""
    path = put(data, table())
    metadata, before, done = pq.ParquetFile(path).metadata, path.stat(), []
    place = metadata.row_group(7).column(0).data_page_offset

    def damage(event: Any) -> None:
        if event.rows >= N and not done:
            with path.open("r+b") as file:
                file.seek(place)
                file.write(bytes(16))
            os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
            done.append(event.rows)

    model = train(data, executor=executor, unreadable="skip", emit=damage, threads=1, cache="none", **later)
    assert done
    counts = model.provenance["counts"]
    assert counts["skipped"] == 0
    assert counts["lost"] >= 100
    assert counts["lost"] % 100 == 0
    if "polish" not in later:
        assert model.provenance["rows_learned"] + counts["lost"] == 8 * N
    (problem,) = model.provenance["left_out"]
    assert "row group 7" in problem
    assert problem.endswith("(in a later pass)")
    assert caplog.text.count("left out:") == 1


def test_what_cannot_be_read_is_named_when_a_model_is_measured_and_scores(
    data: Path, tmp_path: Path, executor: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = put(data, table())
    model = train(data)
    damage_page(path, 7, 1)
    for verb in (
        lambda: streamsgd.evaluate(model, data, executor=executor, unreadable="skip"),
        lambda: streamsgd.predict(model, data, tmp_path / "scores", executor=executor, unreadable="skip"),
    ):
        caplog.clear()
        verb()
        assert re.findall(r"left out: part\.parquet, row group (\d)", caplog.text) == ["7"]


def test_only_damage_is_skipped_as_unreadable(data: Path) -> None:
    """Bad values and changed files have rules of their own."""
    put(data, with_value("y", 700, np.nan))
    with pytest.raises(DataError, match="pass --bad-rows skip"):
        train(data, unreadable="skip")


# --- files that change under the run


def vanish(path: Path) -> None:
    path.unlink(missing_ok=True)


def shrink(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)


def grow(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"more")


CHANGES = {
    vanish: r"part\.parquet: no such file or folder; it is missing or has vanished",
    shrink: r"part\.parquet: is [\d,]+ bytes now but was [\d,]+ when listed",
    grow: r"part\.parquet: is [\d,]+ bytes now but was [\d,]+ when listed; the data must not change",
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_file_that_changes_during_the_run(data: Path, executor: str, change: Callable[[Path], None], tmp_path: Path) -> None:
    """An error that names it, after which the run goes on from its checkpoint once the file is back."""
    path = put(data, table(9000))
    raw, saved = path.read_bytes(), tmp_path / "saved"
    settings = {"executor": executor, "chunk_rows": 300, "checkpoint": str(saved), "checkpoint_chunks": 1}
    with pytest.raises(DataError, match=CHANGES[change]):
        train(data, emit=lambda event: event.rows > 2000 and change(path), **settings)
    path.write_bytes(raw)
    alone = train(data, chunk_rows=300)
    assert train(data, **{**settings, "resume": "always"}).to_bytes() == alone.to_bytes()


@pytest.mark.parametrize("change", CHANGES)
def test_a_streamed_row_group_whose_file_changes(data: Path, change: Callable[[Path], None]) -> None:
    """A file that is open goes on or fails by name, and the next epoch finds the change at the latest."""
    path = put(data, table(9000), row_group_size=9000)
    with pytest.raises(DataError, match=r"part\.parquet"):
        train(data, emit=lambda event: event.rows > 2000 and change(path), chunk_rows=300, epochs=5, cache="none")


# --- targets


def test_a_target_that_is_not_there(data: Path) -> None:
    put(data, table())
    with pytest.raises(SettingsError, match=r"there is no column 'yy', did you mean 'y'\?"):
        train(data, target="yy")


BAD_TARGETS: dict[str, tuple[Any, dict[str, Any], str]] = {
    "constant": (np.ones(N), {}, "target 'y' is constant: every row is 1"),
    "constant text": (
        ["u"] * N,
        {},
        "target 'y' is constant: every row is 'u', so there is nothing",
    ),
    "all null": (pa.nulls(N, pa.float64()), {}, "target 'y' has no usable value: every row is null or NaN"),
    "all NaN": (
        np.full(N, np.nan),
        {"task": "regression"},
        "'y' has no usable value: every row is null, NaN",
    ),
    "of no type": (pa.nulls(N), {}, "target 'y' is of type null; it must be a number, a boolean or a string"),
    "lists": ([[1.0]] * N, {}, r"target 'y' is of type list<.*>; it must be a number, a boolean or a string"),
    "text": (
        ["u", "v"] * (N // 2),
        {"task": "regression"},
        "of type string but the task is regression",
    ),
    "three classes": (
        ["u", "v", "w"] * (N // 3),
        {"task": "binary"},
        "'y' has 3 values .*'u', 'v', 'w'.*",
    ),
    "dates": (
        pa.array(np.arange(N) % 3, pa.int32()).cast(pa.date32()),
        {"task": "multiclass"},
        "'y' holds values such as 1970-01-01, which cannot be classes; write them as strings or integers",
    ),
    "times of day": (
        pa.array(np.arange(N) % 3 + 7, pa.int64()).cast(pa.time64("ns")),
        {"task": "multiclass"},
        r"'y' holds values such as 00:00:00\.00000000\d, which cannot be classes; write them as strings or integers",
    ),
    "how long it took": (
        pa.array(np.arange(N) % 3 + 7, pa.int64()).cast(pa.duration("ns")),
        {"task": "multiclass"},
        r"'y' holds values such as \d, which cannot be classes; write them as strings or integers",
    ),
    "too large": (
        np.linspace(-1e300, 1e300, N),
        {},
        "'y' has values so large that their variance",
    ),
    "too many classes": (
        [f"c{k}" for k in range(10_001)],
        {},
        "'y' has more than 10,000 distinct values; if it is a number to predict, write it as a number, not as text",
    ),
    "numbers as text": (
        [str(k / 7) for k in range(N)],
        {},
        f"'y' has {N:,} distinct values in {N:,} rows, and classes come back; if it is a number .* write it as a number",
    ),
    "classes": ([0, 1] * (N // 2), {"classes": ["0"]}, "--classes 0: one class leaves nothing to learn"),
    "no such class": (
        [0, 1] * (N // 2),
        {"classes": ["a", "b"]},
        "--classes '[ab]' is not a value of target 'y'",
    ),
    "loss": (["u", "v"] * (N // 2), {"loss": "squared"}, "'y' is of type string but the task is regression"),
}


@pytest.mark.parametrize("name", BAD_TARGETS)
def test_a_target_that_cannot_be_learned(data: Path, name: str) -> None:
    values, settings, message = BAD_TARGETS[name]
    put(data, table(len(values)).drop_columns(["y"]).append_column("y", pa.array(values)))
    with pytest.raises(StreamSGDError, match=message):
        train(data, **settings)


def test_rows_that_all_weigh_nothing(data: Path) -> None:
    put(data, table().append_column("w", pa.array(np.zeros(N))))
    with pytest.raises(
        DataError, match="--weight w: the weights of all rows that were learned are 0, so that nothing was learned"
    ):
        train(data, weight="w")


BAD_VALUES: dict[str, tuple[Any, dict[str, Any], str]] = {
    "NaN": (np.nan, {}, "it must be a finite number"),
    "infinite": (-np.inf, {}, "it must be a finite number"),
    "negative count": (-1.0, {"task": "poisson"}, "counts must be whole numbers of at least 0"),
    "fractional count": (1.5, {"task": "poisson"}, "counts must be whole numbers of at least 0"),
    "other class": (3.0, {"classes": ["0", "1"]}, r"the classes are 0\.0, 1\.0"),
}


@pytest.mark.parametrize("name", BAD_VALUES)
def test_single_bad_targets_are_an_error_or_are_counted(data: Path, executor: str, name: str) -> None:
    value, settings, rule = BAD_VALUES[name]
    rng = np.random.default_rng(1)
    y = rng.integers(0, 2 if "classes" in settings else 5, N).astype(np.float64)
    y[[345, 346, 1100]] = value
    put(data, table(y=y))
    where = r"part\.parquet, row groups? .*column 'y' is null, NaN or out of range"
    which = r"in \d rows, first in row 45 of row group 3"
    with pytest.raises(DataError, match=f"{where} {which}; {rule}. Clean it, or pass --bad-rows skip"):
        train(data, executor=executor, **settings)
    model = train(data, executor=executor, bad_rows="skip", **settings)
    assert model.provenance["counts"]["skipped"] == 3
    assert model.provenance["rows_learned"] == 2 * (N - 3)


@pytest.mark.parametrize("value", [None, np.nan, np.inf, -0.5])
def test_bad_weights_are_an_error_or_left_out_and_counted(data: Path, value: float | None) -> None:
    weight = np.ones(N).tolist()
    weight[120] = value  # type: ignore[call-overload]
    put(data, table(w=pa.array(weight, pa.float64())))
    rule = "in 1 row, first in row 20 of row group 1; weights must be finite numbers of at least 0"
    with pytest.raises(DataError, match=f"column 'w' is null, NaN or out of range {rule}"):
        train(data, weight="w")
    assert train(data, weight="w", bad_rows="skip").provenance["counts"]["skipped"] == 1


# --- features


@pytest.mark.parametrize("kind", [pa.float64(), pa.string(), pa.null(), pa.date32()], ids=str)
def test_a_feature_without_any_value_is_left_out_and_said_once(data: Path, kind: Any, caplog: pytest.LogCaptureFixture) -> None:
    put(data, table(a=pa.nulls(N, kind), c=pa.nulls(N, kind)))
    assert [column.name for column in train(data).encoding.columns] == ["b"]
    assert [r.message for r in caplog.records if "hold no value" in r.message] == [
        "2 columns hold no value in any row and are left out: 'a', 'c'"
    ]
    with pytest.raises(DataError, match="feature 'a' has no value in any row; leave it out with --exclude 'a'"):
        train(data, exclude=["b", "c"])


def test_missing_values_where_they_are_forbidden(data: Path) -> None:
    put(data, with_value("a", 5, np.nan))
    with pytest.raises(DataError, match="feature 'a' has 1 missing values in the first look; impute"):
        train(data, missing="error")
    assert train(data).provenance["counts"]["missing"] == 1


def test_an_infinite_feature(data: Path, executor: str) -> None:
    put(data, with_value("b", 777, np.inf))
    message = r"part\.parquet, row groups? .*feature 'b' is infinite in 1 row; clean it, or .*--infinite missing"
    with pytest.raises(DataError, match=message):
        train(data, executor=executor)
    model = train(data, executor=executor, infinite="missing")
    assert model.provenance["counts"]["missing"] == 1


def test_a_feature_too_large_to_scale(data: Path) -> None:
    put(data, with_value("b", 7, np.finfo(np.float64).max))
    with pytest.raises(DataError, match="feature 'b' has values so large that their variance overflows"):
        train(data)


def test_features_that_cannot_be_used(data: Path) -> None:
    put(data, table(s=[{"k": 1}] * N, t=[[[1]]] * N))
    with pytest.raises(DataError, match=r"'s' is of type struct<k: int64>; .* these 2 out with: --exclude 's' --exclude 't'"):
        train(data)
    train(data, exclude=["s", "t"])


def test_no_feature_is_left(data: Path) -> None:
    put(data, table())
    with pytest.raises(SettingsError, match="no feature column is left; see --features and --exclude"):
        train(data, exclude=["*"])


def test_files_that_disagree(data: Path) -> None:
    put(data, table(), "one.parquet")
    put(data, table(a=["text"] * N), "two.parquet")
    with pytest.raises(SchemaError, match=r"column 'a' is double in one\.parquet but string in two\.parquet"):
        train(data)
    train(data, exclude=["a"])
    put(data, table().drop_columns(["b"]), "two.parquet")
    with pytest.raises(SchemaError, match=r"two\.parquet: has no column 'b', which other files have"):
        train(data)


def test_a_filter_that_leaves_nothing(data: Path) -> None:
    put(data, table())
    with pytest.raises(DataError, match="--filter 'a > 1000' leaves no row"):
        train(data, filter="a > 1000")
    with pytest.raises(StreamSGDError, match=r"leaves no row|no usable value"):
        train(data, filter="a > 0 and a < 1e-12")


def test_every_skipped_row_is_counted(data: Path) -> None:
    """Rows learned, filtered, skipped and held out add up to the rows of the data, to the last one."""
    y = table()["y"].to_numpy().copy()
    y[::50] = np.nan
    path = put(data, table(y=y), "one.parquet")
    put(data, table(seed=1), "two.parquet")
    damage_page(path, 3, 0)
    model = train(data, epochs=1, filter="b > -1", bad_rows="skip", unreadable="skip", validation=0.2)
    counts = model.provenance["counts"]
    assert min(counts[key] for key in ("filtered", "skipped", "held")) > 0
    assert counts["skipped"] > 100
    assert model.provenance["rows_learned"] + counts["filtered"] + counts["skipped"] + counts["held"] == 2 * N


# --- places to write to


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a disk of 64 KiB."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = shutil.which("mount")
    command = [mount or "mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(place)]
    if mount is None or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("mounting a tmpfs is not permitted here")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def test_a_full_disk_while_a_model_is_saved(tiny_disk: Path, data: Path) -> None:
    put(data, table())
    model, path = train(data), tiny_disk / "model.sgd"
    model.save(path)
    before = path.read_bytes()
    (tiny_disk / "filler").write_bytes(bytes(64 * 1024 - 4096 - 8192))
    model.metrics["note"] = "x" * 30_000
    with pytest.raises(ModelError, match=r"model\.sgd: cannot be saved: .*No space left.*make room"):
        model.save(path)
    assert path.read_bytes() == before, "the file that was there is still whole"
    assert sorted(p.name for p in tiny_disk.iterdir()) == ["filler", "model.sgd"]


def test_a_full_disk_while_a_checkpoint_is_saved(tiny_disk: Path, data: Path, executor: str) -> None:
    """The run ends with an error, earlier checkpoints stay, and with room it goes on to the same bytes."""
    put(data, table(9000))
    alone = train(data, chunk_rows=300).to_bytes()
    filler = tiny_disk / "filler"
    settings = {
        "chunk_rows": 300,
        "executor": executor,
        "checkpoint": str(tiny_disk / "c"),
        "checkpoint_chunks": 1,
    }

    def fill(event: Any) -> None:
        if event.rows > 2000 and not filler.exists():
            stat = os.statvfs(tiny_disk)
            filler.write_bytes(bytes(stat.f_bavail * stat.f_frsize))

    with pytest.raises(ModelError, match=r"ckpt: cannot be saved: .*No space left.*start again"):
        train(data, emit=fill, **settings)
    assert [p.name for p in (tiny_disk / "c").iterdir() if not p.name.endswith(".ckpt")] == []
    filler.unlink()
    assert train(data, **settings, resume="always").to_bytes() == alone


def test_a_full_disk_while_predictions_are_written(tiny_disk: Path, data: Path) -> None:
    put(data, table(20_000), row_group_size=20_000)
    model = train(data)
    with pytest.raises(ModelError, match=r"part\.parquet: cannot be written: .*No space left"):
        score_data(model, str(data), str(tiny_disk / "out"), executor=Inline(), block_bytes=1 << 16)
    assert list((tiny_disk / "out").iterdir()) == []


def test_a_folder_that_is_read_only(data: Path, tmp_path: Path) -> None:
    put(data, table())
    place = tmp_path / "locked"
    place.mkdir()
    mount = shutil.which("mount")
    command = [mount or "mount", "-t", "tmpfs", "-o", "ro,size=64k", "tmpfs", str(place)]
    if mount is None or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("mounting a tmpfs is not permitted here")
    try:
        model, why = train(data), "(Read-only|[Pp]ermission)"
        with pytest.raises(ModelError, match=rf"model\.sgd: cannot be saved: .*{why}.*another place"):
            model.save(place / "model.sgd")
        with pytest.raises(SettingsError, match=rf"--checkpoint .*cannot be written: {why}.*choose another place"):
            train(data, chunk_rows=300, checkpoint=str(place / "c"), checkpoint_chunks=1)
        with pytest.raises(ModelError, match=rf"part\.parquet: cannot be written: .*{why}"):
            score_data(model, str(data), str(place / "out"), executor=Inline(), block_bytes=1 << 16)
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


# --- model files


@pytest.fixture(scope="module")
def model_bytes(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("model")
    put(folder, table())
    return train(folder).to_bytes()


def newer(raw: bytes) -> bytes:
    header, arrays = store.unpack("model", raw, "m")
    return store.pack("model", {**header, "format": store.FORMAT + 1}, arrays)


def checkpoint(raw: bytes) -> bytes:
    header, arrays = store.unpack("model", raw, "m")
    return store.pack("checkpoint", {k: v for k, v in header.items() if k not in ("format", "kind")}, arrays)


BAD_MODELS: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "empty": (lambda raw: b"", "not a streamsgd model, or a damaged one"),
    "truncated": (lambda raw: raw[: len(raw) // 2], "not a streamsgd model, or a damaged one"),
    "a byte short": (lambda raw: raw[:-1], "not a streamsgd model, or a damaged one"),
    "a byte long": (lambda raw: raw + b"\0", "not a streamsgd model, or a damaged one"),
    "a weight changed": (
        lambda raw: raw[:-3] + bytes([raw[-3] ^ 1]) + raw[-2:],
        "damaged, its checksum does not match",
    ),
    "a setting changed": (
        lambda raw: raw.replace(b"auto", b"otto", 1),
        "damaged, its checksum does not match",
    ),
    "newer": (newer, "format 3 is newer than this version reads .2.; upgrade streamsgd"),
    "a checkpoint": (checkpoint, "holds a checkpoint, not a model"),
    "text": (lambda raw: b"hello" * 99, "not a streamsgd model, or a damaged one"),
    "Parquet": (lambda raw: b"PAR1" * 99, "is Parquet, which holds rows; give a model, which comes before the data"),
    "JSON": (lambda raw: b'{"a": 1}', "not a streamsgd model, or a damaged one"),
    "zip": (lambda raw: b"PK" * 99, "not a streamsgd model, or a damaged one"),
}


@pytest.mark.parametrize("name", BAD_MODELS)
def test_a_model_file_that_is_not_one(model_bytes: bytes, tmp_path: Path, name: str) -> None:
    change, message = BAD_MODELS[name]
    path = tmp_path / "m.sgd"
    path.write_bytes(change(model_bytes))
    with pytest.raises(ModelError, match=rf"m\.sgd: {message}"):
        load(path)
    path.write_bytes(model_bytes)
    assert load(path).to_bytes() == model_bytes


def test_a_model_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"nowhere\.sgd: there is no such file"):
        load(tmp_path / "nowhere.sgd")
    with pytest.raises(ModelError, match=r": is a folder; give the file of a model, which comes before the data"):
        load(tmp_path)
