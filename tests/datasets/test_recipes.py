"""Laws of the scripts that make Parquet: they make what they say, reproducibly, in bounded memory."""

import bz2
import gzip
import importlib.util
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from sklearn.datasets import load_svmlight_file
from sklearn.linear_model import LinearRegression, LogisticRegression, PoissonRegressor
from sklearn.metrics import log_loss

ROOT = Path(__file__).resolve().parents[2]
SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"


def load(name):
    """Import a script of datasets/ by its path."""
    spec = importlib.util.spec_from_file_location(f"recipe_{name}", ROOT / "datasets" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


synthetic, higgs, covtype, libsvm, nyc_taxi, demo_flights = map(
    load, ("synthetic", "higgs", "covtype", "libsvm", "nyc_taxi", "demo_flights")
)
TASKS = ("binary", "multiclass", "regression", "poisson")


def shared(name):
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"{name} is not in the shared data folder")
    return path


def settings(**changes):
    return replace(synthetic.Settings(rows=1_000, columns=9, files=3, row_group_rows=150), **changes)


def whole(paths):
    return pa.concat_tables(pq.read_table(path) for path in paths)


def leftovers(folder):
    return [path.name for path in folder.rglob("*") if path.name.endswith(".tmp")]


# --- synthetic ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sort", [False, True])
@pytest.mark.parametrize("kind", ["dense", "mixed"])
@pytest.mark.parametrize("task", TASKS)
def test_every_kind_has_the_rows_and_row_groups_asked_for(tmp_path, task, kind, sort):
    asked = settings(task=task, kind=kind, sort_by_label=sort, id=True, null_fraction=0.1)
    paths = synthetic.write(asked, tmp_path)
    assert [path.name for path in paths] == [f"part-0000{f}.parquet" for f in range(3)]
    metadata = [pq.read_metadata(path) for path in paths]
    sizes = [[m.row_group(i).num_rows for i in range(m.num_row_groups)] for m in metadata]
    assert sizes == [[150, 150, 33], [150, 150, 33], [150, 150, 34]]
    table = whole(paths)
    assert table["id"].to_pylist() == list(range(1_000))
    assert table.column_names == ["id", "y", *synthetic.truth(asked).names]
    assert table["y"].null_count == 0
    assert not leftovers(tmp_path)


def test_the_same_seed_gives_the_same_bytes_and_another_seed_does_not(tmp_path):
    def content(folder, **changes):
        paths = synthetic.write(settings(kind="mixed", **changes), tmp_path / folder)
        return [path.read_bytes() for path in paths]

    assert content("a") == content("b")
    assert content("c", seed=1)[0] != content("a")[0]


@pytest.mark.parametrize("task", TASKS)
def test_a_file_made_alone_is_the_file_made_with_the_others(tmp_path, task):
    asked = settings(task=task, sort_by_label=True)
    together = synthetic.write(asked, tmp_path / "together")
    (alone,) = synthetic.write(asked, tmp_path / "alone", only=1)
    assert [path.name for path in (tmp_path / "alone").iterdir()] == [alone.name] == [together[1].name]
    assert alone.read_bytes() == together[1].read_bytes()


def test_a_row_group_is_a_pure_function_of_its_address(tmp_path):
    asked = settings(kind="mixed", task="regression")
    with pq.ParquetFile(synthetic.write(asked, tmp_path)[2]) as file:
        assert file.read_row_group(1).equals(synthetic.make_row_group(asked, 2, 1))


@pytest.mark.parametrize("task", TASKS)
def test_sorted_labels_ascend_over_all_files(tmp_path, task):
    asked = settings(task=task, sort_by_label=True)
    y = whole(synthetic.write(asked, tmp_path))["y"].to_numpy()
    assert (np.diff(y) >= 0).all()
    assert y[0] < y[-1]
    if task in ("binary", "multiclass"):
        assert np.abs(np.bincount(y) - 1_000 * synthetic.shares(asked)).max() <= 1


@pytest.mark.parametrize("sort", [False, True])
@pytest.mark.parametrize("kind", ["dense", "mixed"])
@pytest.mark.parametrize("task", TASKS)
def test_an_unregularised_fit_finds_the_truth(task, kind, sort):
    asked = settings(rows=60_000, files=1, row_group_rows=60_000, task=task, kind=kind, sort_by_label=sort)
    rows = synthetic.make_row_group(asked, 0, 0).drop_null()
    truth = synthetic.truth(asked)
    numbers = [as_numbers(rows[name]) for name in truth.names]
    mean, scale = np.mean(numbers, axis=1), np.std(numbers, axis=1)
    x, y = (np.transpose(numbers) - mean) / scale, rows["y"].to_numpy()
    weights, intercept = truth.weights * scale, truth.intercept + truth.weights @ mean
    model = {
        "binary": LogisticRegression(C=np.inf),
        "multiclass": LogisticRegression(C=np.inf),
        "regression": LinearRegression(),
        "poisson": PoissonRegressor(alpha=0),
    }[task].fit(x, y)
    found = np.column_stack([np.atleast_1d(model.intercept_), np.atleast_2d(model.coef_)])
    true = np.column_stack([intercept, weights])
    if task == "multiclass":  # softmax does not change when all scores move together
        found, true = found - found.mean(axis=0), true - true.mean(axis=0)
    # Measured: at most 0.04 for classes, else 0.01, of weights up to 1.8.
    np.testing.assert_allclose(found, true, atol=0.06 if task in ("binary", "multiclass") else 0.02)


def as_numbers(column):
    if pa.types.is_date32(column.type):
        return column.cast(pa.int32()).to_numpy().astype(float)
    if pa.types.is_timestamp(column.type):
        return column.cast(pa.int64()).to_numpy().astype(float)
    return column.cast(pa.float64()).to_numpy()


def test_noise_is_the_deviation_of_a_regression_target_and_divides_other_weights():
    asked = settings(rows=20_000, files=1, row_group_rows=20_000, task="regression", noise=0.3)
    rows, truth = synthetic.make_row_group(asked, 0, 0), synthetic.truth(asked)
    score = truth.intercept[0] + truth.weights[0] @ np.stack([rows[name].to_numpy() for name in truth.names])
    assert np.std(rows["y"].to_numpy() - score) == pytest.approx(0.3, rel=0.03)
    quiet, loud = (synthetic.truth(settings(noise=noise)).weights for noise in (1.0, 4.0))
    np.testing.assert_allclose(quiet, 4 * loud)


def test_the_truth_depends_on_the_seed_and_not_on_the_layout():
    base = synthetic.truth(settings()).weights
    np.testing.assert_array_equal(base, synthetic.truth(settings(rows=5, files=1, row_group_rows=2)).weights)
    assert not np.allclose(base, synthetic.truth(settings(seed=1)).weights)


def test_nulls_have_the_fraction_asked_for_and_hide_nothing_else():
    asked = settings(rows=20_000, files=1, row_group_rows=20_000, kind="mixed")
    plain = synthetic.make_row_group(asked, 0, 0)
    holed = synthetic.make_row_group(replace(asked, null_fraction=0.25), 0, 0)
    assert [name for name in plain.column_names if plain[name].null_count] == ["x03_int64"]
    for name in synthetic.truth(asked).names:
        assert holed[name].null_count / 20_000 == pytest.approx(0.25, abs=0.02)
        both = pc.and_(pc.is_valid(plain[name]), pc.is_valid(holed[name]))
        assert plain[name].filter(both).equals(holed[name].filter(both))
    assert holed["y"].equals(plain["y"])


def peak_bytes(tmp_path, rows):
    """Run the script in its own process; VmHWM, unlike ru_maxrss, does not start from the parent's peak."""
    code = (
        "import runpy, sys; sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__');"
        "print([l.split()[1] for l in open('/proc/self/status') if l.startswith('VmHWM')][0])"
    )
    script, out = ROOT / "datasets" / "synthetic.py", tmp_path / str(rows)
    options = ["--rows", str(rows), "--columns", "4", "--row-group-rows", "100000"]
    command = [sys.executable, "-c", code, script, out, *options]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return 1024 * int(done.stdout.split()[-1])


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from /proc")
def test_memory_does_not_grow_with_the_rows(tmp_path):
    few, many = peak_bytes(tmp_path, 1_000_000), peak_bytes(tmp_path, 4_000_000)
    # Three million rows more are 60 MB of values.
    assert many - few < 20e6, (few, many)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rows": 2}, "--files must be at least 1 and at most --rows"),
        ({"files": 0}, "--files"),
        ({"columns": 0}, "--columns"),
        ({"row_group_rows": 0}, "--row-group-rows"),
        ({"classes": 1}, "--classes"),
        ({"seed": -1}, "--seed"),
        ({"null_fraction": 1.0}, "--null-fraction"),
        ({"noise": 0.0}, "--noise"),
        ({"noise": float("nan")}, "--noise"),
        ({"task": "poisson", "noise": 0.1}, "--noise"),
    ],
)
def test_settings_that_make_no_data_set_are_refused(tmp_path, changes, message):
    with pytest.raises(SystemExit, match=message):
        synthetic.write(settings(**changes), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_files_of_another_data_set_and_files_that_are_not_of_this_one_are_refused(tmp_path):
    synthetic.write(settings(), tmp_path)
    with pytest.raises(SystemExit, match=r"part-00002\.parquet is not of this data set"):
        synthetic.write(settings(files=2), tmp_path)
    with pytest.raises(SystemExit, match=r"--only must be a file of this data set, 0 \.\. 2; got 3"):
        synthetic.write(settings(), tmp_path, only=3)


def test_an_interrupted_file_is_not_there(tmp_path, monkeypatch):
    made = synthetic.make_row_group

    def interrupted(asked, file, index):
        if index == 1:
            raise KeyboardInterrupt
        return made(asked, file, index)

    monkeypatch.setattr(synthetic, "make_row_group", interrupted)
    with pytest.raises(KeyboardInterrupt):
        synthetic.write(settings(), tmp_path)
    assert list(tmp_path.iterdir()) == []


# --- converters --------------------------------------------------------------------------------------------


@pytest.mark.shared
def test_higgs_equals_numpy(tmp_path):
    source = shared("libsvm_vw/higgs7000.train.tsv.gz")
    assert higgs.convert(source, tmp_path / "h.parquet", row_group_rows=3_000) == 7_000
    table, expected = pq.read_table(tmp_path / "h.parquet"), np.loadtxt(source, dtype=np.float32)
    assert table.column_names == ["y", *higgs.HIGGS]
    np.testing.assert_array_equal(np.column_stack([column.to_numpy() for column in table]), expected)
    metadata = pq.read_metadata(tmp_path / "h.parquet")
    assert [metadata.row_group(i).num_rows for i in range(3)] == [3_000, 3_000, 1_000]


@pytest.mark.parametrize("n_features", [18, 28, 3])
@pytest.mark.parametrize("delimiter", [",", "\t", ";", " "])
def test_higgs_takes_any_delimiter_and_names_the_columns_of_uci(tmp_path, delimiter, n_features):
    values = np.random.default_rng(0).random((5, n_features)).astype(np.float32)
    rows = np.column_stack([[0, 1, 1, 0, 1], values])
    np.savetxt(tmp_path / "s.csv", rows, fmt="%.18e", delimiter=delimiter)  # as in the UCI files
    higgs.convert(tmp_path / "s.csv", tmp_path / "s.parquet")
    table = pq.read_table(tmp_path / "s.parquet")
    assert table["y"].to_pylist() == [0, 1, 1, 0, 1]
    np.testing.assert_array_equal(np.column_stack([column.to_numpy() for column in table]), rows)
    known = {18: higgs.SUSY, 28: higgs.HIGGS, 3: ["x00", "x01", "x02"]}
    assert table.column_names == ["y", *known[n_features]]


@pytest.mark.shared
def test_covtype_equals_numpy(tmp_path):
    source = shared("tabular/covtype.20k.csv.gz")
    assert covtype.convert(source, tmp_path / "c.parquet", row_group_rows=15_000) == 20_000
    table, expected = pq.read_table(tmp_path / "c.parquet"), np.loadtxt(source, np.int16, delimiter=",")
    assert table.schema.equals(covtype.SCHEMA)
    assert len(table.column_names) == 55
    np.testing.assert_array_equal(np.column_stack([column.to_numpy() for column in table]), expected)


def dense(path):
    table = pq.read_table(path)
    return np.column_stack([column.to_numpy() for column in table.drop_columns("y")]), table["y"].to_numpy()


@pytest.mark.shared
@pytest.mark.parametrize("n_features", [None, 13, 20])
def test_libsvm_equals_sklearn(tmp_path, n_features):
    path = shared("libsvm_vw/heart_scale")
    source = libsvm.Source(path, "svmlight", 1)
    assert libsvm.convert(source, tmp_path / "l.parquet", n_features, row_group_rows=100) == 270
    x, y = dense(tmp_path / "l.parquet")
    expected_x, expected_y = load_svmlight_file(path, n_features=n_features)
    np.testing.assert_array_equal(x, expected_x.toarray().astype(np.float32))
    np.testing.assert_array_equal(y, expected_y)
    assert pq.read_metadata(tmp_path / "l.parquet").num_row_groups == 3


@pytest.mark.shared
def test_indices_equal_numpy(tmp_path):
    path = shared("libsvm_vw/a9a_123d_train.dummy.gz")
    assert libsvm.convert(libsvm.Source(path, "indices", 0), tmp_path / "l.parquet", 123) == 32_561
    x, y = dense(tmp_path / "l.parquet")
    expected = np.zeros_like(x)
    with gzip.open(path, "rt") as lines:
        for i, line in enumerate(lines):
            label, *active = map(int, line.split())
            expected[i, active] = 1
            assert y[i] == label
    np.testing.assert_array_equal(x, expected)
    assert pq.read_schema(tmp_path / "l.parquet").names[::123] == ["y", "x122"]


def test_compressed_libsvm_text_reads_as_plain_text(tmp_path):
    text = b"# a comment\n+1 2:0.5 7:1e3\n\n-1 # no feature\n0.25 1:-1\n"
    openers = {"t": open, "t.gz": gzip.open, "t.bz2": bz2.open}
    made = []
    for name, opener in openers.items():
        with opener(tmp_path / name, "wb") as stream:
            stream.write(text)
        libsvm.convert(libsvm.Source(tmp_path / name, "svmlight", 1), tmp_path / "out.parquet")
        made.append(pq.read_table(tmp_path / "out.parquet"))
    assert made[0].equals(made[1])
    assert made[0].equals(made[2])
    assert made[0].select(["y", "x2", "x7"]).to_pydict() == {
        "y": [1, -1, 0.25],
        "x2": [0.5, 0, 0],
        "x7": [1e3, 0, 0],
    }


def test_a_wide_libsvm_row_group_stays_under_its_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr(libsvm, "ROW_GROUP_BYTES", 4 * 50 * 3)
    (tmp_path / "t").write_text("1 50:1\n" * 8)
    libsvm.convert(libsvm.Source(tmp_path / "t", "svmlight", 1), tmp_path / "t.parquet")
    metadata = pq.read_metadata(tmp_path / "t.parquet")
    assert [metadata.row_group(i).num_rows for i in range(3)] == [3, 3, 2]


@pytest.mark.shared
def test_taxi_months_whose_types_drift_come_to_one_schema_with_the_same_values(tmp_path):
    november = shared("tabular/green_tripdata_2025-11.parquet")
    original = pq.read_table(november)
    october = original.drop_columns("cbd_congestion_fee").rename_columns({"passenger_count": "Passenger_Count"})
    index = october.column_names.index("Passenger_Count")
    october = october.set_column(index, "Passenger_Count", october[index].cast(pa.int64()))
    (tmp_path / "in").mkdir()
    pq.write_table(october, tmp_path / "in" / "october.parquet")
    paths = [tmp_path / "in" / "october.parquet", november]
    made = nyc_taxi.convert_all(paths, tmp_path / "out", row_group_rows=20_000)
    first, second = map(pq.read_table, made)
    assert first.schema.equals(second.schema)
    assert first["cbd_congestion_fee"].null_count == len(first) == len(second) == len(original)
    assert second.rename_columns(original.column_names).cast(original.schema).equals(original)
    assert first.drop_columns("cbd_congestion_fee").equals(second.drop_columns("cbd_congestion_fee"))
    assert pq.read_metadata(made[0]).num_row_groups == 3


def trips(path, **columns):
    pq.write_table(pa.table({"tpep_pickup_datetime": pa.array([0], pa.timestamp("us")), **columns}), path)
    return path


def test_taxi_months_that_do_not_go_together_are_refused(tmp_path):
    first = trips(tmp_path / "a.parquet", fare=[1.0])
    text = trips(tmp_path / "b.parquet", fare=["one"])
    with pytest.raises(SystemExit, match=r"b\.parquet: does not go with the months before it.*fare"):
        nyc_taxi.convert_all([first, text], tmp_path / "out")
    pq.write_table(pa.table({"lpep_pickup_datetime": [0]}), tmp_path / "green.parquet")
    with pytest.raises(SystemExit, match=r"green\.parquet: not the same kind of trips"):
        nyc_taxi.convert_all([first, tmp_path / "green.parquet"], tmp_path / "out")
    pq.write_table(pa.table({"x": [0]}), tmp_path / "x.parquet")
    with pytest.raises(SystemExit, match=r"x\.parquet: no trip records"):
        nyc_taxi.convert_all([tmp_path / "x.parquet"], tmp_path / "out")
    with pytest.raises(SystemExit, match=r"a\.parquet.*give each file once"):
        nyc_taxi.convert_all([first, first], tmp_path / "out")
    with pytest.raises(SystemExit, match="another folder"):
        nyc_taxi.convert_all([first], tmp_path)
    with pytest.raises(SystemExit, match=r"none\.parquet: no such file"):
        nyc_taxi.convert_all([tmp_path / "none.parquet"], tmp_path / "out")
    exact = trips(tmp_path / "c.parquet", fare=[2**53 + 1])
    with pytest.raises(SystemExit, match=r"c\.parquet: .*9007199254740993"):
        nyc_taxi.convert_all([first, exact], tmp_path / "out")
    assert not leftovers(tmp_path)


COVER = ",".join(["1"] * 55) + "\n"
CONVERTERS = {
    "higgs": higgs.convert,
    "covtype": covtype.convert,
    "libsvm": lambda source, target: libsvm.convert(libsvm.Source(source, "svmlight", 1), target),
    "indices": lambda source, target: libsvm.convert(libsvm.Source(source, "indices", 0), target, 9),
}


@pytest.mark.parametrize(
    ("converter", "text", "message"),
    [
        ("higgs", "", "the first line is empty"),
        ("higgs", "12\n", "no comma, tab, semicolon or blank in the first line"),
        ("higgs", "1,2,3\n0,1\n", "Row #2: Expected 3 columns, got 2"),
        ("higgs", "1,2,3\n0,1,two\n", "Row #2: .*invalid value 'two'"),
        ("higgs", "1,2,3\n0,1,\n", "Row #2: .*invalid value ''"),
        ("higgs", "1,2,3\n0.5,1,2\n", "label of rows 1 .. 2: .*0.5"),
        ("covtype", "", "Empty CSV file"),
        ("covtype", COVER * 2 + "1,2\n", "Row #3: Expected 55 columns, got 2"),
        ("covtype", COVER + COVER.replace("1", "9"), "Row #2: .*invalid value '9'"),
        ("libsvm", "", "holds no rows"),
        ("libsvm", "1 1:2\n1 2:\n", "line 2: could not convert"),
        ("libsvm", "1 1:2\none 2:1\n", "line 2: could not convert string to float: 'one'"),
        ("libsvm", "1 1:2\n1 0:1\n", "line 2: index 0 is below the first one, give --first-index 0"),
        ("libsvm", "1 1:2 1:3\n", "line 1: an index stands twice"),
        ("libsvm", "1 99999999:1\n", "99999999 features: a dense file holds"),
        ("indices", "1 2 8\n1 9\n", "line 2: index 9 needs --features 10"),
        ("indices", "1 2:1\n", "line 1: .*'2:1'"),
    ],
)
def test_bad_text_gives_one_message_and_no_file(tmp_path, converter, text, message):
    (tmp_path / "in.txt").write_text(text)
    with pytest.raises(SystemExit, match=rf"in\.txt: .*{message}"):
        CONVERTERS[converter](tmp_path / "in.txt", tmp_path / "out.parquet")
    assert [path.name for path in tmp_path.iterdir()] == ["in.txt"]


@pytest.mark.parametrize("converter", CONVERTERS)
def test_missing_and_truncated_and_falsely_named_files_are_refused(tmp_path, converter):
    convert, target = CONVERTERS[converter], tmp_path / "out.parquet"
    with pytest.raises(SystemExit, match=r"none\.gz: no such file"):
        convert(tmp_path / "none.gz", target)
    line = COVER if converter == "covtype" else "1 1:1\n" if converter == "libsvm" else "1 1\n"
    numbers = np.random.default_rng(0).integers(1, 10, 20_000)
    text = "".join(line.replace("1", str(number)) if converter == "higgs" else line for number in numbers)
    whole_file = gzip.compress(text.encode())
    (tmp_path / "cut.gz").write_bytes(whole_file[: len(whole_file) // 2])
    with pytest.raises(SystemExit, match=r"cut\.gz: .*([Tt]runcated|ended before)"):
        convert(tmp_path / "cut.gz", target)
    (tmp_path / "text.gz").write_text(text)
    with pytest.raises(SystemExit, match=r"text\.gz: .*(incorrect header|Not a gzipped)"):
        convert(tmp_path / "text.gz", target)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cut.gz", "text.gz"]


# --- the demo ----------------------------------------------------------------------------------------------

DEMO = ROOT / "datasets" / "demo"


@pytest.mark.shared
def test_the_demo_is_what_its_script_makes(tmp_path):
    source = shared("tabular/flights-3m.parquet")
    for made in demo_flights.make(source, tmp_path):
        assert pq.read_table(made).equals(pq.read_table(DEMO / made.name))


def test_the_demo_is_small_and_says_its_licence():
    assert sum(path.stat().st_size for path in DEMO.iterdir()) < 5_000_000
    assert "Public domain" in DEMO.with_name("demo-LICENSE.md").read_text()
    assert all(pq.read_metadata(path).num_row_groups >= 5 for path in DEMO.glob("*.parquet"))


def test_the_demo_is_a_folder_of_parquet_for_every_reader():
    names = [path.name for path in DEMO.iterdir()]
    assert names
    assert all(name.endswith(".parquet") for name in names)
    assert pq.read_table(DEMO).num_rows == 499_999  # as pd.read_parquet reads it
    pandas = pytest.importorskip("pandas")
    assert len(pandas.read_parquet(DEMO, columns=["late"])) == 499_999


def test_the_demo_can_be_learned():
    table = whole(sorted(DEMO.glob("*.parquet")))
    names = ["distance", "month", "day_of_week", "hour", "origin_flights", "origin_late_share"]
    columns = [pc.fill_null(table[name].cast("float64"), pc.mean(table[name])) for name in names]
    x, y = np.column_stack([column.to_numpy() for column in columns]), table["late"].to_numpy()
    x = (x - x.mean(axis=0)) / x.std(axis=0)
    held_out = np.random.default_rng(0).random(len(y)) < 0.2
    chance = LogisticRegression().fit(x[~held_out], y[~held_out]).predict_proba(x[held_out])
    constant = np.full(held_out.sum(), y[~held_out].mean())
    assert log_loss(y[held_out], chance) < 0.96 * log_loss(y[held_out], constant)


def test_the_scripts_are_no_package():
    assert not list((ROOT / "datasets").rglob("__init__.py"))
    for script in (ROOT / "datasets").glob("*.py"):
        done = subprocess.run([sys.executable, script, "--help"], check=True, capture_output=True, text=True)
        assert done.stdout.startswith(f"usage: {script.name}")
