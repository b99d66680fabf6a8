"""Laws of scoring on a cluster: the bits, files and errors of one process, whoever works and whoever dies."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from conftest import QUIET
from distributed import Client, LocalCluster

import streamsgd
from streamsgd.cli.commands import cli
from streamsgd.compute import client as clients
from streamsgd.compute.executors import Inline
from streamsgd.errors import ClusterError, DataError, ModelError, SettingsError, UnreadableError
from streamsgd.model import evaluate as evaluation
from streamsgd.model.evaluate import Evaluator
from streamsgd.model.model import Model
from streamsgd.model.predict import Scored
from streamsgd.stream.stats import Account

FILES, ROWS, GROUP = 6, 3_000, 500


def rows(seed: int, n: int = ROWS) -> pa.Table:
    rng = np.random.default_rng([11, seed])
    x = rng.normal(size=(n, 3))
    number = x @ [1.0, -2.0, 0.5] + rng.normal(size=n)
    columns = {"key": np.arange(n) + seed * n, "a": x[:, 0], "b": x[:, 1].astype(np.float32), "c": x[:, 2]}
    return pa.table({**columns, "number": number, "label": np.where(number > 0, "yes", "no")})


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with LocalCluster(n_workers=2, threads_per_worker=1, **QUIET) as cluster, Client(cluster, set_as_default=False) as client:
        yield client


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    for k in range(FILES):
        path = folder / f"day={k}" / "part.parquet"
        path.parent.mkdir()
        pq.write_table(rows(k), path, row_group_size=GROUP)
    pq.write_table(rows(0, 0), folder / "empty.parquet")
    return folder


@pytest.fixture(scope="module")
def models(data: Path) -> dict[str, Model]:
    usual = {"executor": "inline", "features": ["a", "b", "c"], "id": ["key"], "epochs": 1, "lanes": 1}
    files = [str(path) for path in data.glob("day=*/*")]
    return {target: streamsgd.train(files, target, **usual) for target in ("number", "label")}


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# --- several models


def test_a_cluster_scores_and_compares_several_models_as_one_process_does(
    client: Client, data: Path, models: dict[str, Model], tmp_path: Path
) -> None:
    """Byte for byte and bit for bit, of models of other columns and another target, and of a confusion."""
    files = [str(path) for path in data.glob("day=*/*")]
    other = streamsgd.train(files, "label", features=["a", "b"], executor="inline", epochs=1, lanes=1)
    also = {"few": other, "number": models["number"]}
    for place, more in (("here", {"executor": "inline"}), ("there", {"client": client})):
        streamsgd.predict(models["label"], data, tmp_path / place, also=also, **more)
    assert files_of(tmp_path / "here") == files_of(tmp_path / "there")
    here = streamsgd.compare(models["label"], {"few": other}, data, confusion=True, executor="inline")
    assert streamsgd.compare(models["label"], {"few": other}, data, confusion=True, client=client) == here


# --- predict


@pytest.mark.parametrize("target", ["number", "label"])
def test_a_cluster_writes_the_files_of_one_process(
    client: Client, data: Path, models: dict[str, Model], tmp_path: Path, target: str
) -> None:
    """Byte for byte, and nothing beside them; called again it finds them done."""
    model, account = models[target], Account()
    here = streamsgd.predict(model, data, tmp_path / "here", executor="inline")
    there = streamsgd.predict(model, data, tmp_path / "there", client=client, account=account)
    assert here == there == Scored(FILES + 1, 0, FILES * ROWS)
    assert files_of(tmp_path / "here") == files_of(tmp_path / "there")
    assert account.rows == account.total_rows == FILES * ROWS
    assert account.spent.decode > 0.0
    assert streamsgd.predict(model, data, tmp_path / "there", client=client) == Scored(0, FILES + 1, 0)


def test_what_dead_workers_left_is_removed(client: Client, data: Path, models: dict[str, Model], tmp_path: Path) -> None:
    out = tmp_path / "out" / "day=1"
    out.mkdir(parents=True)
    (out / ".part.parquet.0123456789abcdef.partial").write_bytes(b"half")
    (out / "mine.txt").write_text("the user's")
    streamsgd.predict(models["number"], data, tmp_path / "out", client=client)
    assert sorted(path.name for path in out.iterdir()) == ["mine.txt", "part.parquet"]


def test_a_damaged_file_is_named_and_the_others_before_it_stay(
    client: Client, data: Path, models: dict[str, Model], tmp_path: Path
) -> None:
    bad = tmp_path / "bad"
    for name, content in files_of(data).items():
        (bad / name).parent.mkdir(parents=True, exist_ok=True)
        (bad / name).write_bytes(content if "day=3" not in name else content[:2_000] + b"\0" * 20_000 + content[22_000:])
    with pytest.raises(UnreadableError, match=r"day=3/part\.parquet, row group"):
        streamsgd.predict(models["number"], bad, tmp_path / "out", client=client)
    ends = time.monotonic() + 20.0
    while any("partial" in name for name in files_of(tmp_path / "out")):  # a worker ends what it is at
        assert time.monotonic() < ends
        time.sleep(0.05)
    assert {f"day={k}/part.parquet" for k in range(3)} <= set(files_of(tmp_path / "out"))


def test_an_output_that_cannot_be_written_is_an_error(
    client: Client, data: Path, models: dict[str, Model], tmp_path: Path
) -> None:
    (tmp_path / "out").write_text("a file where the folder should be")
    with pytest.raises((ModelError, DataError)):
        streamsgd.predict(models["number"], [str(data / "day=1")], tmp_path / "out", client=client)


def test_tables_are_for_model_predict(models: dict[str, Model], tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"model\.predict"):
        streamsgd.predict(models["number"], rows(0), tmp_path / "out")


# --- evaluate


@pytest.mark.parametrize("target", ["number", "label"])
def test_a_cluster_measures_the_bits_of_one_process(
    client: Client, data: Path, models: dict[str, Model], monkeypatch: pytest.MonkeyPatch, target: str
) -> None:
    """Whatever the ranges that are measured apart."""
    files = [str(path) for path in sorted(data.glob("day=*/*"))]
    for range_bytes, block_bytes in ((64 << 20, 64 << 20), (60_000, 30_000), (1, 7_000)):
        monkeypatch.setattr(evaluation, "RANGE_BYTES", range_bytes)
        found = []
        for one in (None, client):
            evaluator = Evaluator.for_model(models[target], files, Inline(), block_bytes=block_bytes)
            evaluator.client = one
            found.append(evaluator.evaluate(models[target]))
            assert evaluator.account.rows == FILES * ROWS
        assert found[0] == found[1]
        assert found[0]["rows"] == FILES * ROWS


def test_what_is_filtered_is_counted_as_in_one_process(client: Client, data: Path, models: dict[str, Model]) -> None:
    accounts = [Account(), Account()]
    found = [
        streamsgd.evaluate(models["label"], data / "day=2", filter="a > 0.5", client=one, account=account)
        for one, account in zip((None, client), accounts, strict=True)
    ]
    assert found[0] == found[1]
    assert accounts[0].filtered == accounts[1].filtered > 0


def test_bad_rows_are_named_as_in_one_process(client: Client, models: dict[str, Model], tmp_path: Path) -> None:
    table = rows(1)
    bad = table.set_column(4, "number", pa.array([*table["number"].to_pylist()[:-1], float("nan")]))
    pq.write_table(bad, tmp_path / "bad.parquet", row_group_size=GROUP)
    with pytest.raises(DataError, match=r"bad\.parquet.*'number' is null, NaN"):
        streamsgd.evaluate(models["number"], tmp_path / "bad.parquet", client=client)


def test_a_validation_set_is_judged_on_the_cluster_with_the_same_bits(client: Client, data: Path) -> None:
    """Early stopping and all."""
    settings: dict[str, Any] = {"features": ["a", "b", "c"], "valid": str(data / "day=5"), "epochs": 3, "patience": 1}
    settings |= {"lanes": 2, "chunk_rows": 2_000, "memory": "1GB"}
    here, there = (streamsgd.train(data / "day=1", "label", client=one, **settings) for one in (None, client))
    assert here.to_bytes() == there.to_bytes()
    assert len(here.metrics["valid_losses"]) >= 2


# --- workers that die


def kill_one(client: Client) -> None:
    """End a worker process as the kernel does when memory is short; its nanny starts another."""
    pids = client.run(os.getpid)
    os.kill(next(iter(pids.values())), signal.SIGKILL)


class Killer:
    """Kills a worker once some work was done."""

    def __init__(self, client: Client) -> None:
        self.client, self.calls = client, 0

    def __call__(self, _account: Account) -> None:
        self.calls += 1
        if self.calls == 2:
            kill_one(self.client)


def test_a_worker_that_dies_changes_nothing(
    client: Client, data: Path, models: dict[str, Model], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [str(path) for path in sorted(data.glob("day=*/*"))]
    monkeypatch.setattr(evaluation, "RANGE_BYTES", 1)
    found = []
    for one in (None, client):
        account = Account(on_chunk=Killer(client) if one else None)
        evaluator = Evaluator.for_model(models["label"], files, Inline(), block_bytes=4_000)
        evaluator.client, evaluator.account = one, account
        found.append(evaluator.evaluate(models["label"]))
    assert found[0] == found[1]
    client.wait_for_workers(2, timeout=60)
    streamsgd.predict(models["label"], data, tmp_path / "here", executor="inline")
    streamsgd.predict(models["label"], data, tmp_path / "there", client=client, account=Account(on_chunk=Killer(client)))
    assert files_of(tmp_path / "here") == files_of(tmp_path / "there")
    client.wait_for_workers(2, timeout=60)


# --- from the command line


def test_predict_and_evaluate_start_workers_or_find_a_scheduler(
    client: Client, data: Path, models: dict[str, Model], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models["label"].save(tmp_path / "m.sgd")
    address = client.scheduler.address
    out = str(tmp_path / "out")
    ran = CliRunner().invoke(
        cli,
        ["predict", str(tmp_path / "m.sgd"), str(data), "-o", out, "--scheduler", address, "--quiet"],
        catch_exceptions=False,
    )
    assert f'"files":{FILES + 1}' in ran.output.replace(" ", "")
    streamsgd.predict(models["label"], data, tmp_path / "here", executor="inline")
    assert files_of(tmp_path / "here") == files_of(tmp_path / "out")
    expected = streamsgd.evaluate(models["label"], data / "day=1")
    assert streamsgd.evaluate(models["label"], data / "day=1", workers=1) == expected
    monkeypatch.setattr(clients, "START", 1.0)
    with pytest.raises(ClusterError, match="does not answer"):
        streamsgd.evaluate(models["label"], data, scheduler="tcp://127.0.0.1:1")
