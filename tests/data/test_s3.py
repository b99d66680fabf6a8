"""S3 over HTTP on loopback, with a real server: found by the environment, read, retried, refused by name."""

import pickle
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import boto3
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from moto.server import ThreadedMotoServer
from pyarrow.fs import FileSelector

import streamsgd
from streamsgd.data.dataset import read_dataset
from streamsgd.data.filters import row_filter
from streamsgd.data.parquet.pruning import prune
from streamsgd.data.stores.files import open_source
from streamsgd.data.stores.filesystems import local_or_remote_output
from streamsgd.errors import DataError

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:moto", "ignore::DeprecationWarning:botocore")
BUCKET = "lake"


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    yield server.get_host_and_port()[1]
    server.stop()


@pytest.fixture(autouse=True)
def environment(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "someone")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
    for name in ("AWS_ENDPOINT_URL_S3", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def tables(port: int, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Put the same hive folders on disk and into the bucket; return those on disk."""
    client = boto3.client(
        "s3",
        endpoint_url=f"http://127.0.0.1:{port}",
        region_name="us-east-1",
        aws_access_key_id="someone",
        aws_secret_access_key="secret",
    )
    client.create_bucket(Bucket=BUCKET)
    root = tmp_path_factory.mktemp("lake")
    for year in (2023, 2024):
        for part in range(3):
            path = root / f"table/year={year}/part {part}.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(pa.table({"x": np.arange(30) + 30 * part}), path, row_group_size=10)
    (root / "table/_SUCCESS").touch()
    (root / "broken.parquet").write_bytes(b"not parquet at all")
    (root / "delta/_delta_log").mkdir(parents=True)
    (root / "delta/_delta_log/0.json").write_text("{}")
    for path in root.rglob("*"):
        if path.is_file():
            client.upload_file(str(path), BUCKET, str(path.relative_to(root)))
    return root


# --- law: what is read from S3 is what is read from disk


@pytest.mark.parametrize("way", ["table", "table/", "table/*/*.parquet", "table/**", "table/year=2024", "table/y*=2023"])
def test_bucket_is_read_like_a_folder(tables: Path, way: str) -> None:
    remote, local = read_dataset(f"s3://{BUCKET}/{way}"), read_dataset(f"{tables}/{way}")
    assert remote.fingerprint == local.fingerprint
    assert remote.schema == local.schema
    assert remote.partition_values == local.partition_values
    assert np.array_equal(remote.rows, local.rows)
    assert not remote.source.is_local


def test_pickled_source_needs_no_endpoint_variable(tables: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker has credentials of its own, but the endpoint comes with the job."""
    data = pickle.dumps(read_dataset(f"s3://{BUCKET}/table"))
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    dataset = pickle.loads(data)
    assert b"secret" not in data
    group = pq.ParquetFile(dataset.source.open(dataset.source.files[-1])).read_row_group(2)
    assert group.column("x").to_pylist() == list(range(80, 90))


def test_pruning_reads_footers_from_s3(tables: Path) -> None:
    dataset = read_dataset(f"s3://{BUCKET}/table")
    keep = prune(dataset, row_filter("year == 2024 and x >= 80", dataset.schema))
    assert np.flatnonzero(keep).tolist() == [17]


def test_output_goes_to_s3(tables: Path) -> None:
    filesystem, path = local_or_remote_output(f"s3://{BUCKET}/scores/a.parquet")
    pq.write_table(pa.table({"score": [0.5]}), path, filesystem=filesystem)
    assert read_dataset(f"s3://{BUCKET}/scores").n_rows == 1


# --- law: what is wrong is named


@pytest.mark.parametrize("slash", ["", "/"])
def test_outputs_on_s3_follow_their_inputs(tables: Path, slash: str) -> None:
    """Listed beside the outputs in the bucket, found again, and deleted once the input is gone."""
    table = pa.table({"x": np.arange(40.0), "y": np.arange(40.0)})
    model = streamsgd.train(table, "y", executor="inline", epochs=1, optimizer="adam")
    store, _ = local_or_remote_output(f"s3://{BUCKET}")
    for name in "ab":
        with store.open_output_stream(f"{BUCKET}/in/{name}.parquet") as sink:
            pq.write_table(table, sink)
    out = f"s3://{BUCKET}/scores{slash}"

    def there() -> list[str]:
        return sorted(info.base_name for info in store.get_file_info(FileSelector(f"{BUCKET}/scores")) if info.is_file)

    assert streamsgd.predict(model, f"s3://{BUCKET}/in", out, executor="inline").files == 2
    assert there() == ["_streamsgd_outputs.json", "a.parquet", "b.parquet"]
    store.delete_file(f"{BUCKET}/in/a.parquet")
    scored = streamsgd.predict(model, f"s3://{BUCKET}/in", out, prune=True, executor="inline")
    assert (scored.files, scored.already_there, scored.pruned) == (0, 1, 1)
    assert there() == ["_streamsgd_outputs.json", "b.parquet"]
    store.delete_dir(f"{BUCKET}/scores")


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("s3://no-such-bucket/table", "no-such-bucket/table: no such file or folder .*no such bucket"),
        ("s3://lake/tabel", r"lake/tabel: no such file or folder; did you mean lake/table\?"),
        ("s3://lake/table/*.orc", "no file matches"),
        ("s3://lake/broken.parquet", r"broken\.parquet: is not Parquet \(it does not end with PAR1\)"),
        ("s3://lake/delta", "Delta table"),
    ],
)
def test_bad_url_is_named(tables: Path, url: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_dataset(url)


def test_object_that_vanished_is_named(tables: Path) -> None:
    source = open_source(f"s3://{BUCKET}/table")
    with pytest.raises(DataError, match=r"^lake/table/gone: no such file"):
        source.open("lake/table/gone")


def test_dead_endpoint_is_named_and_not_called_damage(tables: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streamsgd.data.stores.filesystems.PAUSE", 0.01)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1:{unused.getsockname()[1]}")
    with pytest.raises(DataError, match=r"the storage failed 4 times in a row.*check the network and the endpoint"):
        read_dataset(f"s3://{BUCKET}/table")


# --- law: a transient fault changes nothing


class Faulty:
    """A TCP proxy that resets, cuts short or answers 503 to the connections whose numbers are in `bad`."""

    def __init__(self, target: int, fault: str) -> None:
        self.target, self.fault = target, fault
        self.bad = range(0)
        self.count = 0
        self.lock = threading.Lock()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.thread = threading.Thread(target=self.accept, daemon=True)
        self.thread.start()

    def accept(self) -> None:
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.serve, args=(client,), daemon=True).start()

    def serve(self, client: socket.socket) -> None:
        """Pass one request on and close, so that every request is a connection with a number."""
        with client:
            head = b""
            while b"\r\n\r\n" not in head:
                if not (piece := client.recv(65536)):
                    return
                head += piece
            with self.lock:
                number, self.count = self.count, self.count + 1
            if number in self.bad and self.fault == "reset":
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                return
            if number in self.bad and self.fault == "503":
                client.sendall(b"HTTP/1.1 503 Slow Down\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                return
            answer = self.forward(head)
            client.sendall(answer[: len(answer) * 2 // 3] if number in self.bad else answer)

    def forward(self, head: bytes) -> bytes:
        with socket.create_connection(("127.0.0.1", self.target)) as server:
            server.sendall(head.replace(b"\r\n", b"\r\nConnection: close\r\n", 1))
            return b"".join(iter(lambda: server.recv(65536), b""))

    def close(self) -> None:
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.thread.join()


@pytest.fixture(params=["reset", "cut short", "503"])
def faulty(request: pytest.FixtureRequest, port: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[Faulty]:
    proxy = Faulty(port, request.param)
    monkeypatch.setattr("streamsgd.data.stores.filesystems.PAUSE", 0.01)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1:{proxy.port}")
    yield proxy
    proxy.close()


def test_faults_of_any_few_requests_change_nothing(tables: Path, faulty: Faulty) -> None:
    expected = read_dataset(tables / "table").fingerprint
    assert read_dataset(f"s3://{BUCKET}/table").fingerprint == expected
    requests = faulty.count
    assert requests > 12, "listing, and a head and a range of each of six files"
    for first in (0, requests // 3, requests * 2 // 3):
        faulty.count, faulty.bad = 0, range(first, first + 4)
        assert read_dataset(f"s3://{BUCKET}/table").fingerprint == expected
