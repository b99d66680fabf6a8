"""Strings that were read as moments in training: what says none of them later is missing, and said once, with numbers."""

import datetime as dt
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import streamsgd
from streamsgd.cli.main import main
from streamsgd.errors import DataError

N = 600
X = np.random.default_rng(0).normal(size=N)
MOMENTS = [dt.datetime(2024, 1, 1) + dt.timedelta(minutes=7 * k, seconds=k) for k in range(N)]  # noqa: DTZ001

FORMS: dict[str, Callable[[dt.datetime], str]] = {
    "naive": str,
    "zoned": lambda moment: f"{moment.isoformat()}Z",
    "offset": lambda moment: f"{moment}+02:00",
    "seven digits": lambda moment: f"{moment.isoformat()}.1234567",
    "day first": lambda moment: moment.strftime("%d/%m/%Y"),
}


def table(form: str, n: int = N, odd: int = 0) -> pa.Table:
    """Moments of a form, of which some are words."""
    texts = [FORMS[form](moment) for moment in MOMENTS[:n]]
    return pa.table({"t": ["never"] * odd + texts[odd:], "x": X[:n], "y": 2.0 * X[:n]})


def train(data: Any, **options: Any) -> streamsgd.Model:
    return streamsgd.train(data, "y", **{"epochs": 2, "threads": 1, "memory": "1GB", "validation": 0.0, **options})


@pytest.fixture(scope="module")
def models() -> dict[str, streamsgd.Model]:
    found = {form: train(table(form)) for form in ("naive", "zoned")}
    assert all(model.encoding.moments == ("t",) for model in found.values())
    return found


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    found = [record.getMessage() for record in caplog.records if "no moments as training saw them" in record.getMessage()]
    caplog.clear()
    return found


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("trained", ["naive", "zoned"])
def test_what_says_no_moment_is_said_once_by_every_use(
    trained: str, form: str, models: dict[str, streamsgd.Model], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model, data, path = models[trained], table(form), tmp_path / "t.parquet"
    pq.write_table(data, path, row_group_size=100)
    trainer = streamsgd.Trainer("y").partial_fit(table(trained))
    uses: list[Callable[[], Any]] = [
        lambda: model.predict(data),
        lambda: model.predict(path),
        lambda: model.predict(data.to_pylist()),
        lambda: model.evaluate(data),
        lambda: streamsgd.evaluate(model, path, threads=1),
        lambda: streamsgd.predict(model, path, tmp_path / "out", threads=1),
        lambda: trainer.partial_fit(data),
        lambda: train(table(trained), valid=str(path)),
    ]
    fits = form == trained or (trained, form) == ("zoned", "offset")
    apart = trained == "zoned" if form == "naive" else trained == "naive" and form in ("zoned", "offset")
    zone = f" (600 have {'no' if trained == 'zoned' else 'a'} time zone, where training saw" if apart else ", for example '"
    for k, use in enumerate(uses):
        use()
        found = told(caplog)
        assert len(found) == (0 if fits else 1), (k, found)
        assert fits or found[0].startswith(f"column 't': 600 of 600 values are no moments as training saw them{zone}")


def test_some_that_are_none_are_counted_whatever_is_read(
    models: dict[str, streamsgd.Model], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pq.write_table(table("naive", odd=7), tmp_path / "a.parquet", row_group_size=50)
    pq.write_table(table("naive", odd=5), tmp_path / "b.parquet", row_group_size=50)
    models["naive"].save(tmp_path / "m.sgd")
    streamsgd.evaluate(models["naive"], tmp_path / "*.parquet", threads=2)
    assert told(caplog) == [
        "column 't': 12 of 1,200 values are no moments as training saw them, for example 'never'; they are missing"
    ]
    assert main(["evaluate", str(tmp_path / "m.sgd"), str(tmp_path / "*.parquet")]) == 0
    assert len(told(caplog)) == 1


def test_nulls_and_no_rows_are_nothing_to_say(models: dict[str, streamsgd.Model], caplog: pytest.LogCaptureFixture) -> None:
    for texts in (pa.nulls(3, pa.string()), pa.array([], pa.string()), pa.array(["2024-01-01", None, "2024-01-02 03:04"])):
        models["naive"].predict(pa.table({"t": texts, "x": X[: len(texts)]}))
    assert told(caplog) == []


def test_a_row_that_is_served_says_it_of_the_first(
    models: dict[str, streamsgd.Model], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    models["naive"].save(tmp_path / "m.sgd")
    served = streamsgd.serving.load(tmp_path / "m.sgd")
    missing = served.predict({"t": None, "x": 0.5})
    assert "moment" not in caplog.text
    for text in ("2024-01-01T00:00:00Z", "01/02/2024"):
        assert served.predict({"t": text, "x": 0.5}) == missing
    assert caplog.text.count("no moment as training saw them: it has a time zone; it is missing") == 1
    assert "01/02/2024" not in caplog.text


def test_bytes_are_no_texts_of_moments(models: dict[str, streamsgd.Model]) -> None:
    with pytest.raises(DataError, match=r"'t' .* is of type binary"):
        models["naive"].predict(pa.table({"t": [b"2024-01-01"], "x": [1.0]}))
