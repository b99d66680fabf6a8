"""Things that go wrong on Dask workers, for tests and scripts: plugins that reach every worker of a client, also those to come."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

from distributed import WorkerPlugin


class Faulty(WorkerPlugin):
    """Has something happen before a worker reads a piece."""

    def setup(self, worker: Any) -> None:
        from streamsgd.parquet import PieceReader

        if not hasattr(PieceReader, "sound"):
            PieceReader.sound = PieceReader.read  # type: ignore[attr-defined]
        sound: Callable[..., Any] = PieceReader.sound  # type: ignore[attr-defined]

        def read(reader: Any, piece: Any, *args: Any) -> Any:
            self.befall(worker, piece)
            return sound(reader, piece, *args)

        PieceReader.read = read  # type: ignore[method-assign]

    def teardown(self, worker: Any) -> None:
        from streamsgd.parquet import PieceReader

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


class Slow(Faulty):
    """Makes every read of every worker take so long, and those of some workers longer."""

    name = "slow"

    def __init__(self, seconds: float, times: dict[str, float]) -> None:
        self.seconds, self.times = seconds, times

    def befall(self, worker: Any, piece: Any) -> None:
        time.sleep(self.seconds * self.times.get(worker.address, 1.0))
