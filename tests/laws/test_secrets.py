"""Secrets of URLs are in nothing that goes out: errors, logs, results, plans, models, checkpoints."""

import io
import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import streamsgd
from streamsgd.cli.main import main
from streamsgd.compute.memory import PeakMemory
from streamsgd.data.stores.filesystems import locate
from streamsgd.errors import DataError, Stopped, StreamSGDError
from streamsgd.redact import HIDDEN, hide, redact, remember
from streamsgd.settings.make import identity, make_settings
from streamsgd.show.reporters import Lines, Plain, to_json

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
SECRETS = st.text(f"{LETTERS}+=_-", min_size=8, max_size=40).map(lambda text: f"Zq{text}")
"""Such as no message holds by chance."""

SHAPES = st.sampled_from(
    [
        "s3://AKIAKEY:{}@bucket/folder/a.parquet",
        "s3://AKIAKEY:{}/{}@bucket/a.parquet",
        "https://user:{}@host.example:8443/a.parquet",
        "https://{}@host.example/a.parquet",
        "https://bucket.s3.amazonaws.com/a.parquet?X-Amz-Signature={}&X-Amz-Expires=600",
        "https://b.example/a.parquet?AWSAccessKeyId={}&Signature={}&Expires=1",
        "abfs://c@account.example/a.parquet?sv=2020&sig={}",
        "gs://bucket/a.parquet?access_token={}",
        "hdfs://user:{}@namenode/a.parquet",
        "ftp://user:{}@host/a.parquet#part",
    ]
)


@st.composite
def urls(draw: st.DrawFn) -> tuple[str, list[str]]:
    """A URL and the secrets in it."""
    shape = draw(SHAPES)
    secrets = [draw(SECRETS) for _ in range(shape.count("{}"))]
    return shape.format(*secrets), secrets


def outputs(url: str, alone: str) -> dict[str, str]:
    """Everything that goes out, given a message with a URL, and one that quotes a part of it."""
    stream, heard = io.StringIO(), io.StringIO()
    texts = (f"{url}: cannot be read", f"reading ({url}) or '{url}', then [{url}]", f"no route to {alone}")
    handler = logging.StreamHandler(heard)
    logging.getLogger("streamsgd").addHandler(handler)
    try:
        for text in texts:
            logging.getLogger("streamsgd.data.stores.files").warning("%s: attempt %d", text, 1)
    finally:
        logging.getLogger("streamsgd").removeHandler(handler)
    for kind in (Plain, Lines):
        for text in texts:
            kind(stream, PeakMemory()).line(text)
    made = make_settings({"target": "y", "valid": url, "scheduler": "tcp://10.0.0.1:1"})
    return {
        "errors": " ".join(str(DataError(text)) + repr(DataError(text)) for text in texts),
        "logs": heard.getvalue(),
        "lines": stream.getvalue(),
        "results": to_json({"out": url, url: [url, {"message": texts[-1]}]}),
        "settings": json.dumps(identity(made)),
    }


@settings(deadline=None)
@given(urls())
def test_no_output_holds_a_secret_of_a_url(url: tuple[str, list[str]]) -> None:
    text, secrets = url
    remember(text)
    for where, shown in outputs(text, secrets[0]).items():
        for secret in secrets:
            assert secret not in shown, where
        assert HIDDEN in shown, where


@given(urls())
def test_what_is_stored_does_not_depend_on_what_was_seen_before(url: tuple[str, list[str]]) -> None:
    before = hide(url[0])
    remember(url[0])
    assert hide(url[0]) == before == hide(before)
    assert not [secret for secret in url[1] if secret in before]


@pytest.mark.parametrize(
    "text",
    [
        "s3://bucket/folder/part-*.parquet",
        "s3://bucket/year=2024/a?.parquet",
        "s3://bucket/me@home/a.parquet",
        "s3://bucket/a.parquet?region=eu-west-1&endpoint_override=localhost:9000&scheme=http",
        "hdfs://namenode:8020/data",
        "tcp://10.0.0.1:8786 does not answer",
        "error: a=b?c=d is not a filter; see user@host",
        "file:///data/a.parquet",
    ],
)
def test_what_holds_no_secret_is_left_as_it_is(text: str) -> None:
    assert hide(text) == text


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("data") / "d.parquet"
    pq.write_table(pa.table({"x": rng.normal(size=900), "y": rng.normal(size=900)}), path, row_group_size=300)
    return path


SECRET = "Zq4LongEnoughToBeOne"
PLACES = [
    f"s3://AKIAKEY:{SECRET}@bucket/d.parquet",
    f"s3://AKIAKEY:ab/{SECRET}@bucket/d.parquet",
    f"http://user:{SECRET}@127.0.0.1:9/d.parquet",
    f"http://127.0.0.1:9/d.parquet?X-Amz-Signature={SECRET}",
    f"nonsense://user:{SECRET}@host/d.parquet",
]


@pytest.mark.parametrize("place", PLACES)
def test_commands_that_fail_at_a_url_show_no_secret(
    place: str, data: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    common = ["--target", "y", "--memory", "1GB", "--executor", "inline", "--epochs", "1"]
    out = str(tmp_path / "m.sgd")
    for arguments in (
        ["train", place, *common, "-o", out],
        ["train", str(data), *common, "-o", out, "--valid", place],
        ["plan", place, *common[:4]],
        ["inspect", place],
    ):
        assert main(arguments) == 2
        shown = capfd.readouterr()
        assert SECRET not in shown.out + shown.err
        assert "error: " in shown.err


def test_neither_a_model_nor_a_checkpoint_holds_a_secret(data: Path, tmp_path: Path) -> None:
    """A signed link to the validation set, which a run on this machine reads by fsspec."""
    import fsspec  # noqa: PLC0415

    place = f"memory://signed/d.parquet?sig={SECRET}"
    with fsspec.open(place, "wb") as file:
        file.write(data.read_bytes())
    common: dict[str, Any] = {"valid": place, "epochs": 2, "chunk_rows": 300, "executor": "inline", "memory": "1GB"}
    with pytest.raises(Stopped) as stop:
        streamsgd.train(data, "y", checkpoint=str(tmp_path / "c"), time_limit=1e-9, optimizer="adam", **common)
    assert SECRET not in str(stop.value)
    (saved,) = (tmp_path / "c").iterdir()
    assert SECRET.encode() not in saved.read_bytes()
    model = streamsgd.train(data, "y", checkpoint=str(tmp_path / "c"), out=tmp_path / "m.sgd", optimizer="adam", **common)
    assert model.metrics["valid"]["rows"] == 900
    assert SECRET.encode() not in (tmp_path / "m.sgd").read_bytes()
    assert HIDDEN in model.settings["valid"]


def test_a_secret_that_a_library_quotes_without_its_url_is_hidden() -> None:
    locate(f"hdfs://user:{SECRET}abc@host/x")
    assert str(StreamSGDError(f"login of user with {SECRET}abc failed")) == f"login of user with {HIDDEN} failed"
    assert redact(SECRET[:5]) == SECRET[:5]


# --- values of the data


def strings(folder: Path) -> Path:
    """Few strings, many strings, texts, and two that are long."""
    n = 3000
    rng = np.random.default_rng(1)
    columns = {
        "few": [f"few-{k}" for k in rng.integers(0, 5, n)],
        "many": [f"many-{k}" for k in rng.integers(0, 2500, n)],
        "words": [f"hello word{k} and word{k % 7} again here" for k in range(n)],
        "long": [("long-a" if k else "long-b") * 60 for k in rng.integers(0, 2, n)],
    }
    pq.write_table(pa.table({**columns, "y": rng.normal(size=n)}), folder / "s.parquet")
    return folder / "s.parquet"


@pytest.mark.parametrize("values", [True, False])
def test_a_model_holds_no_value_that_is_long_and_none_if_told_so(tmp_path: Path, values: bool) -> None:
    path = strings(tmp_path)
    model = streamsgd.train(path, "y", values=values, text=["words"], executor="inline", memory="1GB", epochs=1, bits=10)
    stored = json.dumps(model.header())
    assert "long-a" not in stored
    assert ("few-1" in stored) == ("word1" in stored) == ("many-" in stored) == values
    assert len(model.predict(pq.read_table(path))) == 3000
