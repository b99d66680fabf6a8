"""Things that go wrong on Dask workers, for tests and scripts: plugins for all that a client has or gets."""

from __future__ import annotations

import os
import sys
import time
from typing import Any

from distributed import WorkerPlugin


class Faulty(WorkerPlugin):
    """Has something happen before a worker reads a piece."""

    def setup(self, worker: Any) -> None:
        from streamsgd.data.parquet.pieces import PieceReader  # noqa: PLC0415  in the worker

        if not hasattr(PieceReader, "sound"):
            PieceReader.sound = PieceReader.read  # type: ignore[attr-defined]
        sound: Any = PieceReader.sound  # type: ignore[attr-defined]

        def read(reader: Any, piece: Any, *args: Any) -> Any:
            self.befall(worker, piece)
            return sound(reader, piece, *args)

        PieceReader.read = read  # type: ignore[method-assign]

    def teardown(self, worker: Any) -> None:
        from streamsgd.data.parquet.pieces import PieceReader  # noqa: PLC0415  in the worker

        PieceReader.read = PieceReader.sound  # type: ignore[attr-defined, method-assign]

    def befall(self, worker: Any, piece: Any) -> None:
        raise NotImplementedError


class Crash(Faulty):
    """Kills whoever reads one of some row groups."""

    name = "crash"

    def __init__(self, *groups: int) -> None:
        self.groups = groups

    def befall(self, worker: Any, piece: Any) -> None:
        if any(piece.first <= group < piece.last for group in self.groups):
            os._exit(23)


class Without(WorkerPlugin):
    """Has a worker lack a package."""

    def __init__(self, package: str) -> None:
        self.package = package

    def setup(self, worker: Any) -> None:
        for name in [name for name in sys.modules if name.partition(".")[0] == self.package]:
            del sys.modules[name]
        sys.modules[self.package] = None  # type: ignore[assignment]


class Slow(Faulty):
    """Makes every read of every worker take so long, and those of some workers longer."""

    name = "slow"

    def __init__(self, seconds: float, times: dict[str, float]) -> None:
        self.seconds, self.times = seconds, times

    def befall(self, worker: Any, piece: Any) -> None:
        time.sleep(self.seconds * self.times.get(worker.address, 1.0))
