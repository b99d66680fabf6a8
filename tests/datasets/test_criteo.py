"""Laws of the click log: the synthetic one has the published shape and a known signal, the converter loses nothing."""

import gzip
import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from sklearn.feature_extraction import FeatureHasher
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

SCRIPT = Path(__file__).resolve().parents[2] / "datasets" / "criteo.py"
NUMBERS = [f"I{i}" for i in range(1, 14)]
TEXTS = [f"C{i}" for i in range(1, 27)]
FIELDS = pa.schema([("label", pa.int8()), *((n, pa.int32()) for n in NUMBERS), *((n, pa.string()) for n in TEXTS)])
# As published for the 45,840,617 rows of the Kaggle training file.
NULL_RATES = [0.45, 0.0, 0.21, 0.22, 0.026, 0.22, 0.043, 0.0005, 0.043, 0.45, 0.043, 0.765, 0.22]
CARDINALITIES = [
    *(1460, 583, 10131227, 2202608, 305, 24, 12517, 633, 3, 93145, 5683, 8351593, 3194),
    *(27, 14992, 5461306, 10, 5652, 2173, 4, 7046547, 18, 15, 286181, 105, 142572),
]


def load():
    spec = importlib.util.spec_from_file_location("recipe_criteo", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


criteo = load()


@pytest.fixture(scope="module")
def group():
    return criteo.make_row_group(criteo.Log(200_000, row_group_rows=200_000), 0)


def cli(*arguments, **options):
    return subprocess.run([sys.executable, SCRIPT, *map(str, arguments)], capture_output=True, check=False, **options)


# --- the synthetic log -------------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_bytes_in_any_process_and_another_seed_does_not(tmp_path):
    def content(name, **changes):
        criteo.make(criteo.Log(**{"rows": 1_000, "row_group_rows": 300, **changes}), tmp_path / name)
        return (tmp_path / name).read_bytes()

    assert content("a") == content("b")
    assert content("c", seed=1) != content("a")
    done = cli(tmp_path / "d", "--rows", 1_000, "--seed", 0, "--rows-per-group", 300)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "d").read_bytes() == content("a")


def test_a_row_group_is_a_pure_function_of_its_address_and_not_of_how_many_there_are(tmp_path):
    criteo.make(criteo.Log(1_000, 7, 300), tmp_path / "few")
    criteo.make(criteo.Log(5_000, 7, 300), tmp_path / "many")
    with pq.ParquetFile(tmp_path / "few") as few, pq.ParquetFile(tmp_path / "many") as many:
        assert [few.metadata.row_group(i).num_rows for i in range(4)] == [300, 300, 300, 100]
        for i in range(3):
            assert few.read_row_group(i).equals(criteo.make_row_group(criteo.Log(1_000, 7, 300), i).table)
            assert few.read_row_group(i).equals(many.read_row_group(i))


def test_every_row_group_has_the_schema_and_texts_are_eight_hexadecimal_digits(tmp_path, group):
    group.table.validate(full=True)
    assert group.table.schema.equals(FIELDS)
    for name in TEXTS:
        assert pc.all(pc.match_substring_regex(group.table[name], "^[0-9a-f]{8}$")).as_py()
    criteo.make(criteo.Log(10), tmp_path / "ten")
    assert pq.read_schema(tmp_path / "ten").equals(FIELDS)
    chunk = pq.read_metadata(tmp_path / "ten").row_group(0).column(20)
    assert (chunk.compression, chunk.has_dictionary_page) == ("SNAPPY", True)


def test_nulls_are_as_frequent_as_published(group):
    for name, rate in zip(NUMBERS, NULL_RATES, strict=True):
        assert group.table[name].null_count / len(group.table) == pytest.approx(rate, abs=0.006), name
    rates = {name: group.table[name].null_count / len(group.table) for name in TEXTS}
    for names, rate in ((("C19", "C20", "C25", "C26"), 0.44), (("C22",), 0.76), (("C3", "C12", "C24"), 0.034)):
        assert [rates[name] for name in names] == pytest.approx([rate] * len(names), abs=0.006)
    assert group.table["label"].null_count == rates["C1"] == 0


def test_texts_have_no_more_values_than_published_and_few_of_them_are_most_rows(group):
    for name, cardinality in zip(TEXTS, CARDINALITIES, strict=True):
        counts = np.sort(pc.value_counts(group.table[name].drop_null()).field("counts").to_numpy())[::-1]
        assert len(counts) <= cardinality, name
        if cardinality < 1_000:
            assert len(counts) > 0.95 * cardinality, name
        if cardinality > 1_000_000:
            assert len(counts) > 40_000, name
        # Of a Zipf law the second is to the first as 2^-s, s in 1.05 .. 1.2, but for the width of their steps.
        assert 0.4 < counts[1] / counts[0] < 0.65, name


def test_numbers_have_heavy_tails(group):
    for name in NUMBERS:
        values = group.table[name].drop_null().to_numpy()
        assert values.max() > 10 * values.mean(), name
        assert values.min() >= (-2 if name == "I2" else 0), name
    assert pc.min(group.table["I2"]).as_py() < 0


def test_the_loss_of_the_true_model_is_below_what_a_learner_gets_and_that_below_the_constant(group):
    y = group.table["label"].to_numpy()
    assert y.mean() == pytest.approx(0.255, abs=0.02)
    assert 0.44 < group.bayes < 0.5
    table = group.table.slice(0, 40_000).select([*NUMBERS, *(n for n in TEXTS if criteo.TEXTS[n].cardinality < 1_000)])
    features = [
        [
            (name, np.log1p(max(value or 0, 0)) / 10) if name[0] == "I" else (f"{name}={value}", 1.0)
            for name, value in row.items()
        ]
        for row in table.to_pylist()
    ]
    x = FeatureHasher(1 << 14, input_type="pair", alternate_sign=False).transform(features)
    held = np.arange(len(table)) >= 30_000
    some = y[: len(table)]
    model = LogisticRegression(max_iter=500, tol=1e-3).fit(x[~held], some[~held])
    learned = log_loss(some[held], model.predict_proba(x[held]))
    constant = log_loss(y, np.full(len(y), y.mean()))
    assert group.bayes < learned < 0.95 * constant


def test_the_chance_of_a_label_is_what_the_model_says(group):
    rows = criteo.draw(np.random.default_rng(np.random.SeedSequence([0, 0])), 200_000)
    chance = 1 / (1 + np.exp(-criteo.log_odds(rows)))
    bins = np.minimum((10 * chance).astype(int), 9)
    y = group.table["label"].to_numpy()
    for k in range(9):
        size = (bins == k).sum()
        assert y[bins == k].mean() == pytest.approx(chance[bins == k].mean(), abs=4 / np.sqrt(size)), k
    assert group.bayes == pytest.approx(log_loss(y, chance))


def test_no_two_texts_of_all_columns_are_alike():
    made = [criteo.scatter(j, np.arange(50_000, dtype=np.uint32)) for j in range(26)]
    assert len(np.unique(np.concatenate(made))) == 26 * 50_000


@pytest.mark.parametrize("cardinality", [1, 3, 1_000, 10_131_227])
def test_ranks_stay_in_their_range_at_both_ends(cardinality):
    ranks = criteo.zipf(cardinality, np.array([0.0, 0.5, 1 - 2.0**-53]))
    assert ranks[0] == 0
    assert ranks[2] == cardinality - 1


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from /proc")
def test_memory_does_not_grow_with_the_rows(tmp_path):
    def peak_bytes(rows):
        code = (
            "import resource, runpy, sys; sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__');"
            "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
        )
        command = [sys.executable, "-c", code, SCRIPT, tmp_path / "out", "--rows", str(rows), "--row-group-rows", "20000"]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        return 1024 * int(done.stdout.split()[-1])

    few, many = peak_bytes(100_000), peak_bytes(600_000)
    # Half a million rows more are 150 MB of values.
    assert many - few < 20e6, (few, many)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rows": 0}, "--rows"),
        ({"seed": -1}, "--seed"),
        ({"seed": 2**32}, "--seed"),
        ({"row_group_rows": 0}, "--row-group-rows"),
    ],
)
def test_options_that_make_no_log_are_refused(tmp_path, changes, message):
    with pytest.raises(SystemExit, match=f"^{message} must be"):
        criteo.make(criteo.Log(**{"rows": 10, **changes}), tmp_path / "out" / "a.parquet")
    assert not (tmp_path / "out").exists()


def test_an_interrupted_file_is_not_there(tmp_path, monkeypatch):
    made = criteo.make_row_group

    def interrupted(log, index):
        if index == 1:
            raise KeyboardInterrupt
        return made(log, index)

    monkeypatch.setattr(criteo, "make_row_group", interrupted)
    with pytest.raises(KeyboardInterrupt):
        criteo.make(criteo.Log(1_000, row_group_rows=300), tmp_path / "a.parquet")
    assert list(tmp_path.iterdir()) == []


# --- the converter -----------------------------------------------------------------------------------------


def as_tsv(table):
    """Return the text as Criteo writes it: no header, no quotes, nothing for a null."""
    sink = pa.BufferOutputStream()
    options = pa.csv.WriteOptions(include_header=False, delimiter="\t", quoting_style="none")
    pa.csv.write_csv(table, sink, options)
    return sink.getvalue().to_pybytes()


def test_text_comes_back_as_it_was_plain_or_compressed_or_from_standard_input(tmp_path, monkeypatch):
    # Blocks smaller than the text, so that row groups are put together of several.
    monkeypatch.setattr(criteo, "BLOCK_BYTES", 1 << 16)
    table = criteo.make_row_group(criteo.Log(2_000), 0).table
    text = as_tsv(table)
    (tmp_path / "t.tsv").write_bytes(text)
    (tmp_path / "t.tsv.gz").write_bytes(gzip.compress(text))
    for name in ("t.tsv", "t.tsv.gz"):
        assert criteo.convert(str(tmp_path / name), tmp_path / "out.parquet", 900) == 2_000
        assert pq.read_table(tmp_path / "out.parquet").equals(table)
        metadata = pq.read_metadata(tmp_path / "out.parquet")
        assert [metadata.row_group(i).num_rows for i in range(3)] == [900, 900, 200]
    for given in (text, gzip.compress(text)):
        done = cli(tmp_path / "in.parquet", "--tsv", "-", input=given)
        assert done.returncode == 0, done.stderr
        assert pq.read_table(tmp_path / "in.parquet").equals(table)


def test_an_empty_field_is_a_null_and_a_dash_is_a_sign(tmp_path):
    line = "\t".join(["1", "-1", "2147483647", *[""] * 11, "05db9164", *[""] * 25])
    (tmp_path / "t").write_text(f"{line}\n{line.replace('1', '0', 1)}")
    assert criteo.convert(str(tmp_path / "t"), tmp_path / "out.parquet") == 2
    first, second = pq.read_table(tmp_path / "out.parquet").to_pylist()
    assert {name: value for name, value in first.items() if value is not None} == {
        "label": 1,
        "I1": -1,
        "I2": 2147483647,
        "C1": "05db9164",
    }
    assert second["label"] == 0


GOOD = "\t".join(["0", *["7"] * 13, *["05db9164"] * 26]) + "\n"


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (GOOD.removeprefix("0\t"), "Expected 40 columns, got 39"),
        (GOOD.replace("\n", "\t\n"), "Expected 40 columns, got 41"),
        ("\n", "the label is empty"),
        (GOOD.replace("0\t", "2\t", 1), "invalid value '2'"),
        (GOOD.replace("0\t", "\t", 1), "the label is empty"),
        (GOOD.replace("7", "seven", 1), "invalid value 'seven'"),
        (GOOD.replace("7", "7.5", 1), "invalid value '7.5'"),
        (GOOD.replace("7", "2147483648", 1), "invalid value '2147483648'"),
        (GOOD.replace("05db", "05\udcff", 1), "invalid UTF8"),
    ],
)
@pytest.mark.parametrize("before", [0, 2, 1_000])
def test_a_damaged_line_is_told_by_its_number_with_what_to_do(tmp_path, monkeypatch, before, bad, message):
    monkeypatch.setattr(criteo, "BLOCK_BYTES", 1 << 14)  # about 55 lines
    (tmp_path / "t.tsv").write_text(GOOD * before + bad + GOOD * 2, encoding="utf-8", errors="surrogateescape")
    with pytest.raises(
        SystemExit, match=rf"t\.tsv: .*line {before + 1}: .*{message}.*; expected lines of a label.*mend or remove"
    ):
        criteo.convert(str(tmp_path / "t.tsv"), tmp_path / "out.parquet")
    assert [path.name for path in tmp_path.iterdir()] == ["t.tsv"]


def test_missing_and_empty_and_truncated_and_falsely_named_files_are_refused(tmp_path):
    def refused(name, content, message):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(SystemExit, match=rf"{name}: .*{message}"):
            criteo.convert(str(tmp_path / name), tmp_path / "out.parquet")

    whole = gzip.compress(as_tsv(criteo.make_row_group(criteo.Log(2_000), 0).table))
    refused("empty", b"", "Empty CSV file")
    refused("cut.gz", whole[: len(whole) // 2], "([Tt]runcated|ended before)")
    refused("text.gz", GOOD.encode(), "incorrect header")
    with pytest.raises(SystemExit, match=r"none: no such file"):
        criteo.convert(str(tmp_path / "none"), tmp_path / "out.parquet")
    with pytest.raises(SystemExit, match=r"^--row-group-rows must be at least 1; got 0"):
        criteo.convert(str(tmp_path / "empty"), tmp_path / "out.parquet", 0)
    assert not list(tmp_path.glob("*.tmp"))
    assert not (tmp_path / "out.parquet").exists()


def test_either_a_log_is_made_or_a_text_converted(tmp_path):
    for given in ([], ["--rows", 5, "--tsv", "x"]):
        done = cli(tmp_path / "out", *given, text=True)
        assert done.returncode == 2
        assert "--tsv" in done.stderr
    done = cli(tmp_path / "out", "--tsv", tmp_path / "none", text=True)
    assert done.returncode == 1
    assert done.stderr.strip().endswith("no such file")
