"""Laws of training inside an ETL job: on its cluster, in its tasks, from its tables, with the same bits and undisturbed."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask
import distributed
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import QUIET
from distributed import Client, LocalCluster, get_client, worker_client
from distributed.security import Security

import streamsgd
from streamsgd.compute.context import task_memory, usual_threads
from streamsgd.data.sources.dask_feed import Computed
from streamsgd.data.sources.dask_tables import lazily, lazy_dataset
from streamsgd.data.sources.partitions import Part
from streamsgd.data.timings import Timings
from streamsgd.errors import DataError, SchemaError, SettingsError
from streamsgd.model.model import Model
from streamsgd.planning.chunks import Piece

N, PART = 24_000, 1_000
SETTINGS: dict[str, Any] = {"memory": "1GB", "epochs": 2, "chunk_rows": 4_000, "validation": 0.1, "lanes": 4}


def rows(first: int, n: int) -> pa.Table:
    """Return rows of numbers, a category and a label that depend on nothing but their place."""
    rng = np.random.default_rng([7, first])
    x = rng.normal(size=(n, 3))
    kind = rng.integers(0, 3, n)
    late = x @ [1.0, -2.0, 0.5] + kind + rng.normal(size=n) > 1.0
    return pa.table({"a": x[:, 0], "b": x[:, 1].astype(np.float32), "c": x[:, 2], "kind": kind.astype(str), "late": late})


def part(k: int) -> pa.Table:
    return rows(k * PART, PART)


def partly(k: int, sizes: tuple[int, ...]) -> pa.Table:
    """Return one of several tables of different sizes."""
    return pa.concat_tables([part(j) for j in range(N // PART)]).slice(sum(sizes[:k]), sizes[k])


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    """Two worker processes that speak TLS only."""
    security = Security.temporary()
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, security=security, protocol="tls", **QUIET) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        assert client.scheduler.address.startswith("tls://")
        yield client


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The same rows as a Parquet file, a row group for each partition."""
    path = tmp_path_factory.mktemp("etl") / "partitions"
    pq.write_table(pa.concat_tables([part(k) for k in range(N // PART)]), path, row_group_size=PART)
    return str(path)


def lazy() -> list[Any]:
    return [dask.delayed(part)(k) for k in range(N // PART)]


def same(model: Model, other: Model) -> bool:
    return model.weights.tobytes() == other.weights.tobytes() and model.metrics == other.metrics


@pytest.fixture(scope="module")
def reference(data: str) -> Model:
    return streamsgd.train(data, "late", **SETTINGS)


# --- on the user's cluster


def test_a_client_gives_the_same_model_and_nothing_of_it_changes(client: Client, data: str, reference: Model) -> None:
    """The user's futures, configuration, default client and log levels are as before, and nothing of ours is left."""
    before = dict(dask.config.config), logging.getLogger("distributed").level
    mine = client.map(lambda k: k * k, range(20))
    assert same(streamsgd.train(data, "late", client=client, **SETTINGS), reference)
    assert client.gather(mine) == [k * k for k in range(20)]
    assert client.status == "running"
    assert (dict(dask.config.config), logging.getLogger("distributed").level) == before
    with pytest.raises(ValueError, match="client"):
        distributed.default_client()
    assert {key for key in client.futures if str(key).startswith("streamsgd")} == set()


def test_tasks_have_names_that_read_well(client: Client, data: str) -> None:
    streamsgd.train(data, "late", client=client, **SETTINGS)
    names = {str(key) for key in client.run_on_scheduler(seen_names)}
    assert any(name.startswith("streamsgd-learn-epoch1-chunk") for name in names)
    assert any(name.startswith("streamsgd-learn-epoch0-chunk0") for name in names)


def seen_names(dask_scheduler: Any) -> list[str]:
    return [str(transition[0]) for transition in dask_scheduler.transition_log]


# --- as a task


def weights(model: Model) -> list[float]:
    return [float(w) for w in model.weights.ravel()]


def test_a_model_is_what_other_tasks_depend_on(client: Client, data: str, reference: Model, tmp_path: Path) -> None:
    """A run is a task like another; it reads with the threads of its worker, and its model goes on to the next task."""
    model = dask.delayed(streamsgd.train)(data, "late", out=str(tmp_path / "m.sgd"), **SETTINGS)
    then = dask.delayed(weights)(model)
    found = client.compute([then, model])
    assert found[0].result(timeout=120) == weights(reference)
    assert same(found[1].result(), reference)
    assert streamsgd.load(tmp_path / "m.sgd").to_bytes() == reference.to_bytes()


def limits() -> tuple[int, Any]:
    return usual_threads(None), task_memory()


def limit_of_worker(dask_worker: Any) -> int:
    return int(dask_worker.memory_manager.memory_limit)


def test_a_task_has_the_threads_and_half_of_the_memory_of_its_worker(client: Client) -> None:
    limit = next(iter(client.run(limit_of_worker).values()))
    assert client.submit(limits).result() == (1, f"{limit // 2_000_000}MB")
    assert limits()[1] is None


def of_the_same_cluster(data: str | None, settings: dict[str, Any], how: str) -> list[float]:
    """Train on a file, or on tables that the cluster computes."""
    data = data or lazy()  # type: ignore[assignment]
    if how == "get_client":
        return weights(streamsgd.train(data, "late", client=get_client(), **settings))
    with worker_client() as client:
        return weights(streamsgd.train(data, "late", client=client, **settings))


@pytest.mark.parametrize("how", ["get_client", "worker_client"])
def test_a_task_may_train_on_the_cluster_that_runs_it(client: Client, data: str, reference: Model, how: str) -> None:
    """Even if such tasks take every thread there is: they step aside for those they wait for."""
    tasks = [client.submit(of_the_same_cluster, source, SETTINGS, how, pure=False) for source in (data, None)]
    assert client.gather(tasks) == [weights(reference)] * 2


def test_a_task_in_the_same_process_gives_the_same_model(data: str, reference: Model) -> None:
    with (
        LocalCluster(processes=False, n_workers=1, threads_per_worker=1, **QUIET) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        model = dask.delayed(streamsgd.train)(data, "late", **SETTINGS)
        assert client.compute(dask.delayed(weights)(model)).result(timeout=60) == weights(reference)
        assert client.submit(of_the_same_cluster, data, SETTINGS, "get_client").result(timeout=60) == weights(reference)


# --- tables that Dask computes


@pytest.mark.parametrize("lanes", [1, 4])
@pytest.mark.parametrize("how", ["here", "delayed", "futures"])
def test_delayed_tables_are_as_a_file_with_a_row_group_each(client: Client, data: str, lanes: int, how: str) -> None:
    settings = {**SETTINGS, "lanes": lanes}
    source = client.compute(lazy()) if how == "futures" else lazy()
    expected = streamsgd.train(data, "late", **settings)
    assert same(streamsgd.train(source, "late", client=None if how == "here" else client, **settings), expected)
    assert how != "futures" or {future.status for future in source} == {"finished"}


def test_tables_of_any_size_give_the_same_model_everywhere(client: Client) -> None:
    """Empty ones, small ones that are read together, and larger ones than a chunk, which are cut."""
    sizes = (0, 9_000, 10, 0, 20, 30, 5_000, 9_940, 0)
    assert sum(sizes) == N
    parts = [dask.delayed(partly)(k, sizes) for k in range(len(sizes))]
    here = streamsgd.train(parts, "late", **SETTINGS)
    assert here.provenance["rows"] == N
    assert same(here, streamsgd.train(parts, "late", client=client, **SETTINGS))


def test_futures_need_no_client_of_their_own(client: Client, reference: Model) -> None:
    assert same(streamsgd.train(client.compute(lazy()), "late", **SETTINGS), reference)


def test_few_partitions_are_in_memory_at_a_time() -> None:
    """Without a cluster they are computed by the threads that read, and dropped."""
    calls = []

    def table(k: int) -> pa.Table:
        calls.append(k)
        return pa.table({"x": np.full(1_000_000, k, np.float64)})

    computed = Computed([dask.delayed(table)(k) for k in range(6)], [1_000_000] * 6, most=20_000_000)
    for k in range(6):
        assert computed([Part(k, 5, 7)], ("x",))[0]["x"].to_pylist() == [float(k)] * 2
        assert sum(kept.nbytes for kept in computed._kept.values()) <= 20_000_000
    computed([Part(5, 0, 1)], ("x",))
    assert calls == [0, 1, 2, 3, 4, 5]


class Frame:
    """What a Dask DataFrame is to us: something with `to_delayed`, of tables that Arrow can take."""

    def to_delayed(self) -> list[Any]:
        return lazy()


def test_whatever_has_to_delayed_is_a_collection(reference: Model) -> None:
    assert same(streamsgd.train(Frame(), "late", **SETTINGS), reference)


def test_a_dask_dataframe_is_trained_on(client: Client) -> None:
    """Its index is no column, and what pandas holds gives what Arrow holds."""
    frames = pytest.importorskip("dask.dataframe")
    pandas = pytest.importorskip("pandas")
    table = pa.concat_tables([part(k) for k in range(4)])
    frame = frames.from_pandas(pandas.DataFrame(table.to_pydict()), npartitions=4)
    frame = frame[frame.a > -1.0]
    settings = {**SETTINGS, "lanes": 1}
    here = streamsgd.train(frame, "late", **settings)
    assert [column.name for column in here.encoding.columns] == ["a", "b", "c"]
    assert same(here, streamsgd.train(frame, "late", client=client, **settings))


def test_partitions_may_differ_in_the_width_of_a_column(client: Client) -> None:
    def mixed(k: int) -> pa.Table:
        table = part(k)
        return table.set_column(1, "b", table["b"].cast(pa.float64())) if k % 2 else table

    parts = [dask.delayed(mixed)(k) for k in range(6)]
    here = streamsgd.train(parts, "late", **SETTINGS)
    assert same(here, streamsgd.train(parts, "late", client=client, **SETTINGS))


def test_evaluate_takes_delayed_tables_too(client: Client, data: str, reference: Model) -> None:
    found = streamsgd.evaluate(reference, data)
    assert streamsgd.evaluate(reference, lazy()) == found
    assert streamsgd.evaluate(reference, lazy(), client=client) == found


def test_plan_and_inspect_take_delayed_tables(data: str) -> None:
    """And say of them what they say of a file."""
    settings = {key: value for key, value in SETTINGS.items() if key != "epochs"}
    here, file = (streamsgd.plan(source, "late", **settings) for source in (lazy(), data))
    assert [here.plan.chunk(0, k) for k in range(6)] == [file.plan.chunk(0, k) for k in range(6)]
    assert here.encoding == file.encoding
    one, other = (streamsgd.inspect(source, "late").to_dict() for source in (lazy(), data))
    for column in (*one["columns"], *other["columns"]):
        del column["encoded_bytes"]  # which only a file has
    assert one["columns"] == other["columns"]


@pytest.mark.parametrize("more", [{"combine": "sync", "optimizer": "adam"}, {"filter": "a > 0"}, {"polish": 2}, {"lanes": 1}])
def test_other_ways_to_learn_take_them_as_well(client: Client, data: str, more: dict[str, Any]) -> None:
    settings = {**SETTINGS, "epochs": 1, **more}
    expected = streamsgd.train(data, "late", **settings)  # first, or both workers would compile what it compiles
    assert same(streamsgd.train(lazy(), "late", client=client, **settings), expected)


# --- what goes wrong


def broken(k: int) -> Any:
    if k == 3:
        raise FileNotFoundError(f"no such day: {k}")
    return part(k)


@pytest.mark.parametrize("on_cluster", [False, True])
def test_a_partition_that_cannot_be_computed_is_named(client: Client, on_cluster: bool) -> None:
    parts = [dask.delayed(broken)(k) for k in range(6)]
    with pytest.raises(DataError, match="partition 3 cannot be computed: FileNotFoundError: no such day: 3"):
        streamsgd.train(parts, "late", client=client if on_cluster else None, **SETTINGS)


def flaky(k: int, path: str) -> Any:
    """Return what is there the first time, and then fail, or give other rows."""
    mark = Path(path) / str(k)
    if k == 3 and mark.exists():
        if mark.read_text() == "fail":
            raise ValueError("the source is gone")
        return part(k).slice(1)
    mark.write_text(Path(path, "how").read_text())
    return part(k)


@pytest.mark.parametrize("on_cluster", [False, True])
@pytest.mark.parametrize(
    ("how", "message"),
    [("fail", "partition 3 cannot be computed: ValueError: the source is gone"), ("other", "partition 3 has 999 rows now")],
)
def test_a_partition_that_is_another_one_later_is_named(
    client: Client, tmp_path: Path, on_cluster: bool, how: str, message: str
) -> None:
    (tmp_path / "how").write_text(how)
    parts = [dask.delayed(flaky)(k, str(tmp_path)) for k in range(6)]
    if not on_cluster:  # which would keep them, they are small
        dataset: Any = lazy_dataset(lazily(parts))
        dataset.source.fetch = Computed(parts, dataset.rows.tolist(), 0)
        with pytest.raises(DataError, match=message):
            list(dataset.source.reader().read(Piece(0, 3, 4, 0, 10, 0), ("a",), Timings()))
        return
    with pytest.raises(DataError, match=message):
        streamsgd.train(parts, "late", client=client, **SETTINGS)


def test_a_column_that_a_partition_lacks_is_named_with_it() -> None:
    parts = [dask.delayed(part)(k) for k in range(3)]
    parts.append(dask.delayed(lambda: part(3).drop_columns(["c"]))())
    with pytest.raises(SchemaError, match="partition 3: has no column 'c'"):
        streamsgd.train(parts, "late", **SETTINGS)


def test_a_bad_value_is_named_with_its_partition() -> None:
    def bad(k: int) -> pa.Table:
        table = part(k)
        return table if k != 2 else table.set_column(4, "late", pa.array([None] * 7 + table["late"].to_pylist()[7:]))

    with pytest.raises(DataError, match=r"partition.* 'late' is null.* in 7 rows, first in row 0 of partition 2"):
        streamsgd.train([dask.delayed(bad)(k) for k in range(4)], "late", **SETTINGS)


def test_what_is_no_table_or_no_partition_is_refused() -> None:
    with pytest.raises(DataError, match="partition 0 is of type list, which is no table"):
        streamsgd.train([dask.delayed(lambda: [1, 2])()], "late")
    with pytest.raises(SettingsError, match="cannot hold a str as well"):
        streamsgd.train([dask.delayed(part)(0), "data.parquet"], "late")
    with pytest.raises(SettingsError, match="pass client="):
        streamsgd.train(lazy(), "late", workers=2)
    with pytest.raises(SettingsError, match="no synchronous"):
        streamsgd.train(lazy(), "late", client=object())


def test_lost_futures_are_named(client: Client) -> None:
    futures = client.compute(lazy()[:3])
    client.gather(futures)
    futures[1].cancel(force=True)
    with pytest.raises(DataError, match="partition 1 is lost"):
        streamsgd.train(futures, "late", client=client, **SETTINGS)


def test_a_run_on_delayed_tables_goes_on_where_it_stopped(client: Client, tmp_path: Path) -> None:
    """The keys of delayed tables differ from process to process; the tables do not, and that is what counts."""
    settings = {**SETTINGS, "checkpoint_chunks": 1}
    whole = streamsgd.train(lazy(), "late", client=client, **settings)
    with pytest.raises(streamsgd.errors.Stopped):
        streamsgd.train(lazy(), "late", out=tmp_path / "m.sgd", client=client, time_limit=0.01, **settings)
    resumed = streamsgd.train(lazy(), "late", out=tmp_path / "m.sgd", client=client, **settings)
    assert same(resumed, whole)
    assert resumed.to_bytes() == whole.to_bytes()
