"""An object store that fails in every way that stores do, and what becomes of training, evaluating and scoring on it.

    python scripts/fault_store.py --faults 1500

A proxy stands before an S3 server of moto and, by a seeded schedule, resets connections, cuts answers short, says 403, 404,
429, 500, 503 or that a token expired, answers with a page of HTML, says nothing, stops in the middle, garbles bytes, or shows
another object of the same size. Each scenario is a command on two small files under one kind of fault, for one request, a few,
or all from some moment on. It must end within the stated time with every row accounted for (and the same model as without
faults, if nothing was left out), or with an error of ours that names the object. Exit code 1 if one does not.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import logging
import os
import re
import socket
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import streamsgd
from streamsgd.data.stores.filesystems import set_io_timeout
from streamsgd.errors import StreamSGDError
from streamsgd.settings.make import make_settings
from streamsgd.stream.stats import Account
from streamsgd.training.run import train_model

BUCKET = "lake"

FILES, GROUPS, ROWS = 2, 3, 100
"""Of the data: files, row groups of each, and rows of those."""

IO_TIMEOUT = 21.0
"""Seconds; short, but long enough for a busy machine."""

SLACK = 60.0
"""Seconds beyond it that a run may take: its own work, and faults that it got over before."""

XML = '<?xml version="1.0" encoding="UTF-8"?><Error><Code>{}</Code><Message>{}</Message></Error>'

REFUSALS = {
    "403": ("403 Forbidden", XML.format("AccessDenied", "Access Denied")),
    "404": ("404 Not Found", XML.format("NoSuchKey", "The specified key does not exist.")),
    "429": ("429 Too Many Requests", XML.format("SlowDown", "Please reduce your request rate.")),
    "500": ("500 Internal Server Error", XML.format("InternalError", "We encountered an internal error.")),
    "503": ("503 Slow Down", XML.format("SlowDown", "Please reduce your request rate.")),
    "expired": ("400 Bad Request", XML.format("ExpiredToken", "The provided token has expired.")),
    "html": ("200 OK", "<!DOCTYPE html><html><body>Please log in to the proxy</body></html>"),
}

KINDS = (*REFUSALS, "reset", "cut short", "silent", "stall", "garbled", "damaged", "replaced")
"""Of faults. What is garbled comes right when asked for again, what is damaged never does."""


@dataclass
class Schedule:
    """Which requests fail, counted from 0, and how."""

    kind: str = ""
    first: int = 0
    last: int = 0
    methods: tuple[str, ...] = ("GET", "HEAD", "PUT", "POST")
    count: int = 0
    injected: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def strikes(self, method: str) -> str:
        """Count a request; return the kind of fault that it meets, or ''."""
        with self.lock:
            if method not in self.methods:
                return ""
            number, self.count = self.count, self.count + 1
            if not (self.kind and self.first <= number < self.last):
                return ""
            self.injected += 1
            return self.kind


class Proxy:
    """Passes requests on to a server, one per connection, except those that the schedule lets fail."""

    def __init__(self, target: int) -> None:
        self.target, self.schedule = target, Schedule()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.released = threading.Event()
        threading.Thread(target=self._accept, daemon=True).start()

    def begin(self, schedule: Schedule) -> None:
        """Begin a scenario; connections that an earlier one left silent are closed."""
        self.released.set()
        self.released = threading.Event()
        self.schedule = schedule

    def close(self) -> None:
        """Stop."""
        self.released.set()
        self.listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client, self.schedule, self.released), daemon=True).start()

    def _serve(self, client: socket.socket, schedule: Schedule, released: threading.Event) -> None:
        with client:
            try:
                request = _read_request(client)
                if request:
                    self._answer(client, request, schedule, released)
            except OSError:
                return

    def _answer(self, client: socket.socket, request: bytes, schedule: Schedule, released: threading.Event) -> None:
        method = request.split(b" ", 1)[0].decode()
        kind = schedule.strikes(method)
        if kind in REFUSALS:
            status, body = REFUSALS[kind]
            head = f"HTTP/1.1 {status}\r\nContent-Type: text/html\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
            client.sendall(head.encode() + (b"" if method == "HEAD" else body.encode()))
        elif kind == "reset":
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        elif kind == "silent":
            released.wait(600.0)
        else:
            self._pass_on(client, request, kind, released)

    def _pass_on(self, client: socket.socket, request: bytes, kind: str, released: threading.Event) -> None:
        head, _, body = self._forward(request).partition(b"\r\n\r\n")
        if kind in ("garbled", "damaged") and b" 206 " in head.split(b"\r\n")[0] and len(body) > 64:
            body = _garbled(body)
        if kind == "replaced":
            head = re.sub(rb'(?i)etag: "[^"]*"', b'ETag: "0123456789abcdef0123456789abcdef"', head)
        answer = head + b"\r\n\r\n" + body
        if kind == "cut short":
            answer = answer[: len(answer) * 2 // 3]
        if kind == "stall":
            client.sendall(answer[: len(answer) // 2])
            released.wait(600.0)
            return
        client.sendall(answer)

    def _forward(self, request: bytes) -> bytes:
        with socket.create_connection(("127.0.0.1", self.target)) as server:
            server.sendall(request.replace(b"\r\n", b"\r\nConnection: close\r\n", 1))
            return b"".join(iter(lambda: server.recv(65536), b""))


def _read_request(client: socket.socket) -> bytes:
    data = b""
    while b"\r\n\r\n" not in data:
        if not (piece := client.recv(65536)):
            return b""
        data += piece
    head, _, body = data.partition(b"\r\n\r\n")
    if re.search(rb"(?i)\r\nexpect: 100-continue", head):
        client.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        head = re.sub(rb"(?i)\r\nexpect: 100-continue", b"", head)
    chunked = re.search(rb"(?i)\r\ntransfer-encoding: chunked", head)
    while chunked and not re.search(rb"(?:^|\r\n)0\r\n(?:[^\r\n]+\r\n)*\r\n$", body):
        if not (piece := client.recv(65536)):
            return b""
        body += piece
    length = re.search(rb"(?i)\r\ncontent-length: (\d+)", head)
    while length and len(body) < int(length[1]):
        if not (piece := client.recv(65536)):
            return b""
        body += piece
    return head + b"\r\n\r\n" + body


def _garbled(body: bytes) -> bytes:
    """Return bytes with one in the middle changed, so that a page's checksum tells."""
    at = len(body) // 2
    return body[:at] + bytes([body[at] ^ 0x10]) + body[at + 1 :]


# --- scenarios


@dataclass
class Result:
    """How a scenario ended."""

    ended: str
    """`done`, or the name of an error."""
    told: str
    seconds: float
    digest: str = ""
    rows: dict[str, int] = field(default_factory=dict)
    left: bool = False
    """Whether rows were left out as unreadable."""


@dataclass
class Store:
    """Data behind a proxy."""

    proxy: Proxy
    server: Any
    clean: dict[str, tuple[Result, int]] = field(default_factory=dict)
    """By command what it came to without faults, and how many requests it made."""

    def run(self, command: str, schedule: Schedule, unreadable: str) -> Result:
        """Run a command under a schedule."""
        self.proxy.begin(schedule)
        began = time.monotonic()
        try:
            result = COMMANDS[command](unreadable)
        except StreamSGDError as error:
            result = Result(type(error).__name__, str(error), 0.0)
        except Exception as error:  # noqa: BLE001  what is looked for
            result = Result(f"bug: {type(error).__name__}", str(error), 0.0)
        result.seconds = time.monotonic() - began
        return result

    def close(self) -> None:
        """Stop proxy and server."""
        self.proxy.close()
        self.server.stop()


def _train(unreadable: str) -> Result:
    settings = make_settings(
        {
            "target": "y",
            "epochs": 2,
            "memory": "1GB",
            "executor": "inline",
            "unreadable": unreadable,
            "io_timeout": IO_TIMEOUT,
            "checkpoint_chunks": 1,
            "chunk_rows": 300,
            "resume": "never",
            "validation": 0.1,
        }
    )
    model, report = train_model(f"s3://{BUCKET}/data", settings, out=f"s3://{BUCKET}/out/m.sgd")
    counts = model.provenance["counts"]
    held, skipped, lost, epochs = counts["held"], counts["skipped"], counts["lost"], report.epochs
    gone = epochs * (FILES * GROUPS * ROWS - held - skipped) - report.rows
    # Of rows that are lost in a later pass nobody knows which are held out.
    told = gone if 0 <= lost - gone <= epochs * held else 0
    rows = {"learned": (report.rows + told) // epochs, "held": held, "skipped": skipped}
    return Result("done", "", 0.0, hashlib.sha256(model.weights.tobytes()).hexdigest(), rows, skipped + lost > 0)


def _evaluate(unreadable: str) -> Result:
    set_io_timeout(IO_TIMEOUT)
    model = streamsgd.load(MODEL[unreadable])
    account = Account()
    found = streamsgd.evaluate(
        model, f"s3://{BUCKET}/data", executor="inline", memory="1GB", account=account, io_timeout=IO_TIMEOUT
    )
    rows = {"measured": account.rows - account.skipped, "skipped": account.skipped}
    return Result("done", "", 0.0, repr(found), rows, account.skipped > 0)


def _predict(unreadable: str) -> Result:
    model = streamsgd.load(MODEL[unreadable])
    with tempfile.TemporaryDirectory() as folder:
        scored = streamsgd.predict(model, f"s3://{BUCKET}/data", folder, executor="inline", memory="1GB", io_timeout=IO_TIMEOUT)
        tables = [pq.read_table(path) for path in sorted(Path(folder).rglob("*.parquet"))]
    digest = hashlib.sha256(pa.concat_tables(tables)["prediction"].to_numpy().tobytes()).hexdigest()
    return Result("done", "", 0.0, digest, {"written": scored.rows})


COMMANDS = {"train": _train, "evaluate": _evaluate, "predict": _predict}

MODEL: dict[str, Any] = {}
"""By `unreadable` the path of a model to use."""


def open_store(folder: Path) -> Store:
    """Start a server with two files and a proxy before it, and run each command once without faults."""
    import boto3
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel("ERROR")
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    port = server.get_host_and_port()[1]
    proxy = Proxy(port)
    os.environ.update(
        {
            "AWS_ACCESS_KEY_ID": "someone",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{proxy.port}",
            "AWS_REGION": "us-east-1",
        }
    )
    client = boto3.client("s3", endpoint_url=f"http://127.0.0.1:{port}", region_name="us-east-1")
    client.create_bucket(Bucket=BUCKET)
    rng = np.random.default_rng(0)
    for number in range(FILES):
        x = rng.normal(size=(GROUPS * ROWS, 3))
        sink = io.BytesIO()
        table = pa.table({**{f"x{j}": x[:, j] for j in range(3)}, "y": x @ [1.0, -2.0, 0.5] + rng.normal(size=len(x))})
        pq.write_table(table, sink, row_group_size=ROWS, write_page_checksum=True)
        client.put_object(Bucket=BUCKET, Key=f"data/{number}.parquet", Body=sink.getvalue())
    store = Store(proxy, server)
    for unreadable in ("error", "skip"):
        MODEL[unreadable] = str(folder / f"{unreadable}.sgd")
        settings = make_settings({"target": "y", "memory": "1GB", "executor": "inline", "epochs": 1, "unreadable": unreadable})
        train_model(f"s3://{BUCKET}/data", settings, out=MODEL[unreadable])
    for command in COMMANDS:
        schedule = Schedule()
        result = store.run(command, schedule, "error")
        if result.ended != "done" or sum(result.rows.values()) != FILES * GROUPS * ROWS:
            raise AssertionError(f"{command} fails without faults: {result}")
        store.clean[command] = result, schedule.count
    return store


def scenario(store: Store, seed: int, kinds: tuple[str, ...] = KINDS) -> tuple[str, Schedule, Result, str]:
    """Run one scenario; return what it was, its schedule, its result, and what is wrong with that, or ''."""
    rng = np.random.default_rng([12, seed])
    kind = kinds[seed % len(kinds)]
    command = ("train", "train", "evaluate", "predict")[int(rng.integers(4))]
    unreadable = ("error", "skip")[int(rng.integers(2))]
    clean, requests = store.clean[command]
    n = int(rng.choice([1, 4, 10**6]))
    first = int(rng.integers(requests))
    methods: tuple[str, ...] = ("GET", "HEAD", "PUT", "POST")
    if kind in ("damaged", "garbled"):
        methods, first, n = ("GET",), int(rng.integers(requests // 2)), 1 if kind == "garbled" else 10**6
    if kind == "replaced":
        n = 10**6
    schedule = Schedule(kind, first, first + n, methods)
    result = store.run(command, schedule, unreadable)
    return (
        f"{command}, {kind} x {n} from request {first}, --unreadable {unreadable}",
        schedule,
        result,
        _wrong(kind, clean, result, command),
    )


def _wrong(kind: str, clean: Result, result: Result, command: str) -> str:
    if result.seconds > IO_TIMEOUT + SLACK:
        return f"took {result.seconds:.0f} s"
    if result.ended.startswith("bug"):
        return result.ended
    if result.ended != "done":
        named = re.search(rf"{BUCKET}/|s3://|\d\.parquet|m\.sgd", result.told)
        return "" if named else "the error names no object"
    if sum(result.rows.values()) != FILES * GROUPS * ROWS:
        return f"of {FILES * GROUPS * ROWS} rows {result.rows}"
    if result.left and kind not in ("damaged", "garbled"):
        return "rows were left out that the storage refused to give"
    if not result.left and command != "evaluate" and result.digest != clean.digest:
        return "another result than without faults"
    return ""


def main() -> int:
    """Run scenarios until so many faults were injected; print how they ended."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faults", type=int, default=1500)
    parser.add_argument("--first", type=int, default=0, help="Seed of the first scenario.")
    parser.add_argument("--scenarios", type=int, default=10**6)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS, help="Of faults, one after another.")
    parser.add_argument("--verbose", action="store_true", help="Say how each scenario ended.")
    given = parser.parse_args()
    logging.getLogger("streamsgd").setLevel("ERROR")
    ended: Counter[str] = Counter()
    bugs: list[str] = []
    injected = slowest = n = 0
    with tempfile.TemporaryDirectory() as folder:
        store = open_store(Path(folder))
        while injected < given.faults and n < given.scenarios:
            what, schedule, result, wrong = scenario(store, given.first + n, tuple(given.kinds))
            injected, n, slowest = injected + schedule.injected, n + 1, max(slowest, result.seconds)
            ended[f"{schedule.kind}: {'rows left out' if result.left else result.ended}"] += 1
            if given.verbose:
                print(
                    f"{given.first + n - 1}: {what}: {schedule.injected}, {result.seconds:.1f} s, {result.ended} {result.told}",
                    flush=True,
                )
            if wrong:
                bugs.append(f"scenario {given.first + n - 1} ({what}): {wrong}: {result.told[:300]}")
                print(bugs[-1], flush=True)
        store.close()
    print(
        json.dumps(
            {"scenarios": n, "faults": injected, "slowest_seconds": round(slowest, 1), "ended": ended, "bugs": len(bugs)}
        )
    )
    return 1 if bugs else 0


if __name__ == "__main__":
    sys.exit(main())
