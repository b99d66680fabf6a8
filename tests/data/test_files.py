"""The files of a job: found wherever they are, each once, under one name, or refused by name."""

import os
import pickle
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamsgd.data.stores.files import Files, fits, open_source
from streamsgd.data.stores.filesystems import is_transient, local_or_remote_output, locate, retry
from streamsgd.errors import DataError, SettingsError


def write(path: Path, value: int = 1) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"value": [value]}), path)
    return path


def names(source: Files) -> list[str]:
    return [ref.name for ref in source.files]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "table"
    for name in (
        "a.parquet",
        "sub/b.parq",
        "sub/deep/c.pq",
        "sub/d.snappy.parquet",
        "sub/e.parquet.brotli",
        "_x=1/f.parquet",
        "_spark/hidden.parquet",
        ".hidden.parquet",
        "_SUCCESS.parquet",
    ):
        write(root / name)
    (root / "README.md").write_text("not data")
    (root / "_SUCCESS").touch()
    return root


VISIBLE = [
    "_x=1/f.parquet",
    "a.parquet",
    "sub/b.parq",
    "sub/d.snappy.parquet",
    "sub/deep/c.pq",
    "sub/e.parquet.brotli",
]


# --- law: a folder is its visible Parquet files, sorted, named relative to the folder, however it is written


@pytest.mark.parametrize("form", ["{}", "{}/", "file://{}", "{}/sub/..", "{}/**"])
def test_folder_is_its_visible_parquet_files(tree: Path, form: str) -> None:
    source = open_source(form.format(tree))
    assert names(source) == VISIBLE
    assert source.is_local
    for ref in source.files:
        assert Path(ref.path).stat().st_size == ref.size


def test_pathlib_and_relative_paths_are_the_same_files(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tree.parent)
    assert open_source("table") == open_source(tree) == open_source([tree]) == open_source(["table", tree])


def test_file_named_outright_is_taken_whatever_its_name(tree: Path) -> None:
    assert names(open_source(tree / "_spark/hidden.parquet")) == ["hidden.parquet"]
    odd = write(tree / "no_extension")
    assert names(open_source(odd)) == ["no_extension"]


def test_url_is_decoded(tmp_path: Path) -> None:
    write(tmp_path / "with space.parquet")
    assert names(open_source(f"file://{tmp_path}/with%20space.parquet")) == ["with space.parquet"]


def test_folder_without_parquet_names_takes_files_that_end_like_parquet(tmp_path: Path) -> None:
    write(tmp_path / "part-0")
    write(tmp_path / "part-1.dat")
    (tmp_path / "notes.txt").write_text("a note of more than twelve bytes")
    (tmp_path / "empty").touch()
    assert names(open_source(tmp_path)) == ["part-0", "part-1.dat"]


# --- law: a glob takes what it matches


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.parquet", ["a.parquet"]),
        ("**/*.parquet", ["_x=1/f.parquet", "a.parquet", "sub/d.snappy.parquet"]),
        ("s*/[bd].*", ["b.parq", "d.snappy.parquet"]),
        ("sub/**/c.pq", ["deep/c.pq"]),
        ("sub/?.parq", ["b.parq"]),
        ("s?b", ["sub/b.parq", "sub/d.snappy.parquet", "sub/deep/c.pq", "sub/e.parquet.brotli"]),
        ("_s*/*", ["_spark/hidden.parquet"]),
    ],
)
def test_glob(tree: Path, pattern: str, expected: list[str]) -> None:
    found = {Path(ref.path).name for ref in open_source(f"{tree}/{pattern}").files}
    assert found == {Path(name).name for name in expected}


def test_name_of_a_glob_is_relative_to_its_fixed_part(tree: Path) -> None:
    assert names(open_source(f"{tree}/s*/*.parq")) == ["sub/b.parq"]


def test_file_whose_name_looks_like_a_glob_is_itself(tmp_path: Path) -> None:
    write(tmp_path / "a[1].parquet")
    write(tmp_path / "a1.parquet")
    assert names(open_source(tmp_path / "a[1].parquet")) == ["a[1].parquet"]


segments = st.lists(st.sampled_from(["a", "b", "ab"]), max_size=5)


@given(segments, st.lists(st.sampled_from(["a", "*", "?", "**", "a*"]), max_size=5))
def test_stars_stand_for_any_number_of_segments(path: list[str], parts: list[str]) -> None:
    """A `**` that matches is replaced by some number of `*`, and the rest matches alike."""
    if "**" not in parts:
        assert fits(path, parts) is (len(path) == len(parts) and all(fits([p], [q]) for p, q in zip(path, parts, strict=True)))
        return
    at = parts.index("**")
    longer = [parts[:at] + ["*"] * k + parts[at + 1 :] for k in range(len(path) + 1)]
    assert fits(path, parts) is any(fits(path, one) for one in longer)


# --- law: every file once, under the same name whichever way it was asked for


def test_repetitions_count_once(tree: Path) -> None:
    source = open_source([tree, tree / "a.parquet", f"{tree}/*.parquet"])
    assert len(source.files) == len(VISIBLE)


@pytest.mark.parametrize(("link", "to"), [("sub/loop", "."), ("latest.parquet", "sub/deep/c.pq"), ("day=2", "sub")])
def test_a_link_to_what_is_there_already_is_refused_by_name(tree: Path, link: str, to: str) -> None:
    (tree / link).symlink_to(tree / to)
    with pytest.raises(DataError, match=rf"{link}.*: is the same file as .*, by a symbolic link: its rows would count twice"):
        open_source(tree)
    (tree / link).unlink()
    (tree.parent / "aside").symlink_to(tree / "a.parquet")
    assert len(open_source(tree.parent / "aside").files) == 1


def test_partition_folder_and_table_give_one_name_to_a_file(tmp_path: Path) -> None:
    file = write(tmp_path / "year=2024/month=1/a.parquet")
    write(tmp_path / "year=2025/month=1/a.parquet")
    name = "year=2024/month=1/a.parquet"
    assert name in names(open_source(tmp_path))
    for way in (file, file.parent, file.parent.parent, f"{tmp_path}/year=2024/*/*.parquet", [file]):
        assert names(open_source(way)) == [name]


def test_names_of_several_places_are_relative_to_their_common_folder(tmp_path: Path) -> None:
    a, b = write(tmp_path / "one/x.parquet"), write(tmp_path / "two/x.parquet")
    assert names(open_source([a, b])) == names(open_source([a.parent, b])) == ["one/x.parquet", "two/x.parquet"]


def test_source_pickles_without_its_filesystem(tree: Path) -> None:
    source = open_source(tree)
    source.open(source.files[0]).close()
    again = pickle.loads(pickle.dumps(source))
    assert again == source
    assert "filesystem" not in vars(again)
    assert again.open(again.files[0]).size() == again.files[0].size


# --- law: what cannot be read is refused by name


def test_missing_path_suggests_the_nearest(tree: Path) -> None:
    with pytest.raises(DataError, match=r"tabel: no such file or folder; did you mean .*/table\?"):
        open_source(tree.parent / "tabel")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: p.joinpath("d").mkdir(), "no Parquet files in this folder; it is empty"),
        (lambda p: [p.joinpath("d").mkdir(), p.joinpath("d/x.csv").write_text("1,2")], "it holds x.csv"),
        (lambda p: [write(p / "d/a.parquet"), p.joinpath("d/b.parquet").touch()], r"b\.parquet: is 0 bytes"),
        (
            lambda p: [write(p / "d/a.parquet"), p.joinpath("d/_delta_log").mkdir()],
            r"Delta table .*file_uris\(\)",
        ),
        (lambda p: [write(p / "d/a.parquet"), p.joinpath("d/.hoodie").mkdir()], "Hudi table"),
        (
            lambda p: [write(p / "d/x/data/a.parquet"), write(p / "d/x/metadata/1.metadata.json")],
            "Iceberg table",
        ),
    ],
)
def test_bad_folder(tmp_path: Path, make: object, message: str) -> None:
    make(tmp_path)
    with pytest.raises(DataError, match=message):
        open_source(tmp_path / "d")
    with pytest.raises(DataError):
        open_source(f"{tmp_path}/d/**")


def test_partition_of_a_delta_table_is_refused_and_its_live_files_are_not(tmp_path: Path) -> None:
    file = write(tmp_path / "year=2024/a.parquet")
    (tmp_path / "_delta_log").mkdir()
    for way in (tmp_path / "year=2024", f"{tmp_path}/*/*.parquet"):
        with pytest.raises(DataError, match="Delta table"):
            open_source(way)
    assert names(open_source([file])) == ["year=2024/a.parquet"]


def test_data_folder_of_an_iceberg_table_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "data/day=1/a.parquet")
    write(tmp_path / "metadata/v1.metadata.json")
    with pytest.raises(DataError, match="holds an Iceberg table"):
        open_source(tmp_path / "data/day=1")


@pytest.mark.parametrize("older", ["v9.metadata.json", "00009-a.metadata.json"])
def test_the_newest_metadata_of_an_iceberg_table_is_named(tmp_path: Path, older: str) -> None:
    """By number, not by name; of one number, as two writers may leave, by time."""
    write(tmp_path / "t/data/a.parquet")
    tied = {"00010-b.metadata.json": 2, "00010-c.metadata.json": 1}
    for name, when in {older: 3, **tied, "odd.metadata.json": 4}.items():
        os.utime(write(tmp_path / "t/metadata" / name), (when, when))
    for place in ("t", "t/data", "t/metadata"):
        with pytest.raises(DataError, match=r"the newest of its metadata, \S*/t/metadata/00010-b\.metadata\.json$"):
            open_source(tmp_path / place)


def test_pipes_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DataError, match="pipe or device"):
        open_source(tmp_path / "pipe")


def test_glob_without_match(tree: Path) -> None:
    with pytest.raises(DataError, match=r"\*\.orc: no file matches"):
        open_source(f"{tree}/*.orc")


@pytest.mark.parametrize(
    ("data", "message"),
    [([], "no data"), ("", "no data"), ("s3://", "bucket"), ("s3://b*/x", "bucket")],
)
def test_senseless_places(data: object, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        open_source(data)


def test_two_filesystems_are_refused(tree: Path) -> None:
    with pytest.raises(SettingsError, match="different filesystems"):
        open_source([tree, "memory://x"])


def test_unknown_scheme_is_named() -> None:
    with pytest.raises(DataError, match="nosuch://host/x: cannot open this kind of URL"):
        open_source("nosuch://host/x")


def test_file_that_vanishes_or_shrinks_after_listing_is_named(tmp_path: Path) -> None:
    file = write(tmp_path / "a.parquet")
    source = open_source(file)
    file.write_bytes(file.read_bytes()[:-5])
    with pytest.raises(DataError, match=r"a\.parquet: is [\d,]+ bytes now but was"):
        source.open(source.files[0])
    file.unlink()
    with pytest.raises(DataError, match=r"a\.parquet: no such file"):
        source.open(source.files[0])


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_unreadable_file_is_named(tmp_path: Path) -> None:
    file = write(tmp_path / "a.parquet")
    file.chmod(0)
    with pytest.raises(DataError, match=r"a\.parquet: permission denied"):
        open_source(file).open(str(file))


# --- fsspec and outputs


def test_any_scheme_of_fsspec(tmp_path: Path) -> None:
    memory = fsspec.filesystem("memory")
    data = write(tmp_path / "a.parquet").read_bytes()
    for path in ("/lake/x=1/a.parquet", "/lake/x=2/b.parquet", "/lake/_hidden/c.parquet"):
        memory.pipe(path, data)
    source = open_source("memory://lake")
    assert names(source) == ["x=1/a.parquet", "x=2/b.parquet"] == names(open_source("memory://lake/*/*.parquet"))
    again = pickle.loads(pickle.dumps(source))
    assert pq.read_table(again.open(again.files[0])).num_rows == 1


def test_output_place_is_not_created(tmp_path: Path) -> None:
    filesystem, path = local_or_remote_output(tmp_path / "out" / "scores")
    assert path == str(tmp_path / "out" / "scores")
    assert not (tmp_path / "out").exists()
    filesystem.create_dir(path)
    assert (tmp_path / "out" / "scores").is_dir()


# --- settings of S3


def test_s3_takes_its_endpoint_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://general:1")
    monkeypatch.delenv("AWS_REGION", raising=False)
    monkeypatch.delenv("AWS_DEFAULT_REGION", raising=False)
    assert locate("s3://bucket/k") == (
        "s3://?endpoint_override=general%3A1&region=us-east-1&scheme=http",
        "bucket/k",
    )
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "https://special:2/")
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    assert locate("s3a://bucket/p?rt*")[0] == "s3://?endpoint_override=special%3A2&region=eu-west-1&scheme=https"
    assert "region=x" in locate("s3://bucket/k?region=x&anonymous=true")[0]


# --- retries


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (OSError("When reading: AWS Error NETWORK_CONNECTION during GetObject: curlCode: 28, Timeout"), True),
        (OSError("AWS Error SLOW_DOWN during GetObject operation"), True),
        (OSError("AWS Error UNKNOWN (HTTP status 503) during HeadObject"), True),
        (ConnectionResetError("reset"), True),
        (TimeoutError("slow"), True),
        (OSError(116, "stale file handle"), True),
        (OSError("AWS Error ACCESS_DENIED during HeadObject operation"), False),
        (OSError("AWS Error NO_SUCH_BUCKET during ListObjectsV2 operation"), False),
        (OSError("Couldn't deserialize thrift: TProtocolException: Invalid data"), False),
        (OSError("Unexpected end of stream: Page was smaller (429) than expected (503)"), False),
        (FileNotFoundError("gone"), False),
        (PermissionError("no"), False),
        (ValueError("timed out"), False),
    ],
)
def test_transient_errors_are_told_from_lasting_ones(error: Exception, expected: bool) -> None:
    assert is_transient(error) is expected


@pytest.mark.parametrize("failures", [0, 1, 3])
def test_retry_survives_fewer_failures_than_attempts(failures: int) -> None:
    left = [failures]

    def call() -> str:
        if left[0]:
            left[0] -= 1
            raise ConnectionResetError("reset")
        return "done"

    assert retry(call, "x", attempts=4, pause=0.001) == "done"


def test_retry_ends_and_says_that_the_storage_failed() -> None:
    calls = []

    def call() -> None:
        calls.append(1)
        raise TimeoutError("slow")

    with pytest.raises(DataError, match="x: the storage failed 3 times in a row, last with: slow"):
        retry(call, "x", attempts=3, pause=0.001)
    assert len(calls) == 3


def test_names_that_are_no_utf8_are_named_and_not_a_bug(tmp_path: Path) -> None:
    pq.write_table(pa.table({"x": [1.0]}), tmp_path / "a.parquet")
    strange = os.fsencode(tmp_path) + b"/\xff.parquet"
    Path(os.fsdecode(strange)).write_bytes((tmp_path / "a.parquet").read_bytes())
    with pytest.raises(SettingsError, match=r"xff\.parquet': is not UTF-8"):
        open_source(os.fsdecode(strange))
    with pytest.raises(DataError, match="holds a name that is not UTF-8"):
        open_source(tmp_path)
    assert len(open_source(tmp_path / "a.parquet").files) == 1
