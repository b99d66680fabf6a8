"""What Python is given as an argument is taken, or refused by the name of the argument: never a traceback of another kind."""

import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.parquet as pq
import pytest

import streamsgd
from streamsgd.data.open import open_data
from streamsgd.errors import DataError, SettingsError, StreamSGDError
from streamsgd.settings.arguments import FITS, PATH, fitted, fitter_of
from streamsgd.training.callbacks import OnEvent

pd = pytest.importorskip("pandas")
pl = pytest.importorskip("polars")

pytestmark = pytest.mark.python_words

PUBLIC = {name: getattr(streamsgd, name) for name in streamsgd.__all__ if inspect.isfunction(getattr(streamsgd, name))}

GOOD: dict[str, list[Any]] = {
    "int": [3, "3", 3.0, np.int64(3), np.array(3), "+3", "03", "3."],
    "float": [0.5, "0.5", ".5", "5e-1", np.float32(0.5), pa.scalar(0.5)],
    "bool": [True, "true", np.bool_(True)],
    "str": ["x", np.str_("x"), pa.scalar("x")],
    "str | os.PathLike[str]": ["x", Path("x")],
    "Model | str | os.PathLike[str]": ["x"],
    "Sequence[str]": [["x"], ("x",), "x", np.array(["x"]), pd.Series(["x"]), {"x"}],
    "Sequence[int]": [[3], (3,), 3, np.array([3]), pd.Series([3])],
    "Sequence[float]": [[0.5], 0.5, np.array([0.5]), pa.array([0.5])],
    "Callable": [print],
    "Sequence[Callback]": [[OnEvent(print)]],
    "Sequence[Mapping[str, Any]]": [[{"epochs": 1}], ({"epochs": 1},), {"epochs": 1}],
}

BAD: dict[str, list[Any]] = {
    "int": [None, "many", 3.5, [3], {}, object(), float("nan")],
    "float": [None, "much", [0.5], {}, object(), float("nan"), float("inf"), "-inf"],
    "bool": [None, "perhaps", 7, [True], object()],
    "str": [None, ["x"], {}, object(), b"\xff"],
    "str | os.PathLike[str]": [None, 3, ["x"], object(), pa.table({"x": [1]})],
    "Model | str | os.PathLike[str]": [None, 3, ["x"], object(), pa.table({"x": [1]})],
    "Sequence[str]": [[["x"]], [None], {"x": 1}, object()],
    "Sequence[int]": [["many"], [3.5], {"x": 1}, object(), [[3]]],
    "Sequence[float]": [["much"], {"x": 1}, object(), [None], [0.5, float("nan")], np.array([np.inf])],
    "Callable": [3, "x", [print]],
    "Sequence[Callback]": [3, [None], print, object()],
    "Sequence[Mapping[str, Any]]": [None, 3, [3], [None], "epochs", [{3: 3}], object()],
}


@pytest.mark.parametrize("annotation", FITS)
def test_what_says_the_same_is_taken_and_what_does_not_is_refused_by_name(annotation: str) -> None:
    first, *others = [fitted("n", value, FITS[annotation]) for value in GOOD[annotation]]
    assert all(type(other) is type(first) and other == first for other in others)
    for value in BAD[annotation]:
        with pytest.raises(SettingsError, match=r"^n=.* is not "):
            fitted("n", value, FITS[annotation])


def _arguments() -> Iterator[tuple[str, str, str]]:
    for name, function in PUBLIC.items():
        fitter = fitter_of(inspect.unwrap(function))
        for argument, (fit, _) in (fitter.fits if fitter else {}).items():
            yield name, argument, next(key for key, known in FITS.items() if known is fit)


@pytest.mark.parametrize(("function", "argument", "annotation"), [*_arguments()])
def test_every_argument_of_every_function_is_checked_before_anything_is_done(
    function: str, argument: str, annotation: str
) -> None:
    parameters = inspect.signature(PUBLIC[function]).parameters
    wanted = [name for name, p in parameters.items() if p.default is p.empty and p.kind is not p.VAR_KEYWORD]
    given = {name: [{"epochs": 1}] if name == "settings" else "nowhere" for name in wanted}
    for value in BAD[annotation]:
        if value is None:
            continue
        with pytest.raises(SettingsError, match=rf"^{argument}=.* is not "):
            PUBLIC[function](**{**given, argument: value})


def test_paths_are_not_numbers() -> None:
    with pytest.raises(SettingsError, match="is not a path"):
        fitted("out", 3, PATH)


# --- what is no data


NO_DATA: list[Any] = [
    None,
    3,
    object(),
    np.zeros((3, 2)),
    np.zeros(3, [("x", float)]),
    [1, 2],
    [None],
    [],
    (),
    "",
    {},
    [{}],
    {"x": 1j},
    b"\xff\xfe",
    pd.Series([1.0], name="x"),
    pl.Series("x", [1.0]),
    pa.array([1.0]),
    pd.DataFrame({"x": [1, "a"]}),
    pd.DataFrame({"x": [object()]}),
    pd.DataFrame({"x": [1j]}),
    pd.DataFrame({"x": pd.arrays.SparseArray([0.0, 1.0])}),
    pd.DataFrame({"x": [{1, 2}]}),
    pd.DataFrame([[1.0, 2.0]], columns=["x", "x"]),
    pl.DataFrame({"x": [object()]}),
    pl.LazyFrame({"x": [1]}).select(pl.col("nothing")),
    iter([1, 2]),
    iter([]),
    [pa.table({"x": [1.0]}), None],
    pa.table({"x": [1.0]}).slice(0, 0),
]


@pytest.mark.parametrize("data", NO_DATA, ids=lambda data: f"{type(data).__module__}.{type(data).__name__}")
def test_what_is_no_data_is_refused(data: Any) -> None:
    with pytest.raises(StreamSGDError) as error:
        streamsgd.train(data, "y")
    assert "--" not in str(error.value)


def test_the_column_that_arrow_cannot_hold_is_named() -> None:
    good = {"x": [1.0, 2.0], "s": ["a", "b"]}
    for bad in ([1, "a"], [object(), None], pd.arrays.SparseArray([0.0, 1.0]), [1j, 2j]):
        frame = pd.DataFrame({**good, "odd one": bad, "z": [1, 2]})
        with pytest.raises(DataError, match="column 'odd one' of the table is nothing that Arrow can hold"):
            open_data(frame)


# --- streams


def test_an_error_of_a_generator_is_its_own_and_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    def tables() -> Iterator[pa.Table]:
        yield pa.table({"x": [1.0, 2.0], "y": [1.0, 2.0]})
        raise LookupError("the database is gone")

    with pytest.raises(LookupError, match=r"^the database is gone$"):
        streamsgd.train(tables(), "y")
    assert not [*tmp_path.iterdir()]


PAIRS_OF_MEANINGS: list[tuple[Any, Any]] = [
    (pa.array([1.5]), pa.array(["2.5"])),
    (pa.array(["a"]), pa.array([2])),
    (pa.array([True]), pa.array(["true"])),
    (pa.array([1], pa.timestamp("us")), pa.array(["2024-01-01"])),
    (pa.array([1], pa.timestamp("us")), pa.array([1], pa.timestamp("us", "UTC"))),
    (pa.array([1], pa.timestamp("us")), pa.array([5])),
    (pa.array([1], pa.date32()), pa.array([5], pa.int32())),
    (pa.array([1], pa.duration("s")), pa.array([5])),
    (pa.array([[1.0]]), pa.array([1.0])),
]


@pytest.mark.parametrize(("first", "second"), PAIRS_OF_MEANINGS)
def test_tables_of_a_stream_mean_the_same_as_files_do(first: Any, second: Any, tmp_path: Path) -> None:
    """Arrow's cast would read numbers from text, and hours from other hours; a list of tables, and files, are refused."""
    tables = [pa.table({"x": column, "y": [1.0]}) for column in (first, second)]
    for number, table in enumerate(tables):
        pq.write_table(table, tmp_path / f"{number}.parquet")
    for given in (tables, iter(tables), str(tmp_path), pads.dataset(tmp_path)):
        with pytest.raises(StreamSGDError, match="'x'"):
            streamsgd.train(given, "y")


# --- models


@pytest.mark.parametrize("model", [None, 3, object(), ["m.sgd"], {}, pa.table({"x": [1]})], ids=lambda m: type(m).__name__)
@pytest.mark.parametrize(
    "function", ["evaluate", "predict", "explain", "importance", "calibrate", "export", "report", "load", "compare"]
)
def test_what_is_no_model_is_refused(function: str, model: Any) -> None:
    given: dict[str, tuple[Any, ...]] = {"export": ("out",), "report": ("out",), "load": (), "compare": ("a.sgd", "data")}
    rest = given.get(function, ("data", "out")[: 2 if function in ("predict", "explain") else 1])
    named = {"to": "json"} if function == "export" else {}
    with pytest.raises(StreamSGDError):
        PUBLIC[function](model, *rest, **named)


def test_a_model_to_go_on_from_in_memory_is_refused_with_what_takes_it() -> None:
    table = pa.table({"x": [1.0, 2.0, 3.0, 4.0], "y": [1.0, 2.0, 3.0, 5.0]})
    model = streamsgd.train(table, "y", executor="inline", keep_memory=True)
    with pytest.raises(SettingsError, match=r"start=.*partial_fit"):
        streamsgd.train(table, "y", start=model)
    with pytest.raises(SettingsError, match="at="):
        streamsgd.noise(table, "y", at=3)
    with pytest.raises(SettingsError, match=r"valid=.*model\.evaluate\(table\)"):
        streamsgd.train(table, "y", valid=table)


@pytest.mark.parametrize(
    "grid",
    [
        None,
        3,
        {"epochs": 3},
        {"epochs": {}},
        {"epochs": None},
        {3: [1]},
        ["epochs"],
        [3],
        "epochs",
        {"penalty": [["l2"]]},
        5.0,
    ],
    ids=str,
)
def test_grids_that_are_none_are_refused_or_taken(grid: Any) -> None:
    table = pa.table({"x": np.arange(40.0), "y": np.arange(40.0) % 7})
    try:
        tuned = streamsgd.tune(table, "y", grid, executor="inline", validation=0.5)
    except StreamSGDError as error:
        assert "--" not in str(error) and re.search("grid|configuration 0", str(error))  # noqa: PT018, PT017  either is right
    else:
        assert grid == {"epochs": 3}
        assert tuned.settings == {"epochs": 3}


@pytest.mark.parametrize("settings", [[], [{"nothing": 1}], [{"bits": 8}, {"bits": 9}]], ids=str)
def test_settings_of_many_that_are_none_are_refused(settings: Any) -> None:
    with pytest.raises(StreamSGDError):
        streamsgd.train_many(pa.table({"x": [1.0, 2.0], "y": [1.0, 2.0]}), "y", settings)


def test_what_is_no_client_is_refused() -> None:
    with pytest.raises(SettingsError, match="client"):
        streamsgd.train(pa.table({"x": [1.0, 2.0], "y": [1.0, 2.0]}), "y", client=3)
