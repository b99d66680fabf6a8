"""Kernels compiled ahead, for images and clusters: short runs over made rows compile what runs of such settings need.

Nothing but the kernels is kept. Numbers are compiled for apart from lists of entries (categories and texts), and so is every
kind of target; columns, rows and values of settings are not.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from streamsgd.compute.client import client_of
from streamsgd.compute.context import task_memory
from streamsgd.compute.executors import reading
from streamsgd.data.sources.made_rows import write_made_rows
from streamsgd.errors import SettingsError
from streamsgd.kernels.compile.jit import CompileClock, cache_folder, cpu_target, kernel_counts
from streamsgd.messages import nearest
from streamsgd.model.evaluate import evaluate_source
from streamsgd.model.options import ScoringOptions
from streamsgd.model.predict import score_data
from streamsgd.model.score_stream import scoring_block_bytes
from streamsgd.settings.make import make_settings
from streamsgd.settings.words import speaks_python
from streamsgd.training.defaults import task_of
from streamsgd.training.run import train_model

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from streamsgd.settings.fields import Settings

COLUMNS = ("numbers", "values")
"""Kinds of made tables: of numbers alone, and of numbers, categories and texts."""

TARGETS = {"binary": "two classes", "regression": "a number", "multiclass": "three classes", "poisson": "a count"}
"""Kinds of made targets, by the task that they are of."""

USUAL = ("binary", "regression", "multiclass")
"""Tasks that `auto` finds."""

ROWS, FEW_ROWS = 140_000, 20_000
"""Rows of a made table: enough for a race to end and its best learner to go on; and for what does not race."""


@dataclass(frozen=True)
class Warmed:
    """What was compiled."""

    compiled: int
    """Kernels that were compiled anew ..."""
    known: int
    """... and those that were there."""
    seconds: float
    """Of compiling."""
    total_seconds: float
    folder: str
    """Where they are kept; empty if nowhere."""
    cpu: str
    """What they are for: a processor, and a digest of its features."""
    runs: tuple[str, ...]
    """What was learned."""
    workers: int = 0
    """Processes of a cluster, if they are theirs."""

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain JSON values."""
        return {**asdict(self), "runs": list(self.runs)}


@speaks_python
def warmup(*, columns: Sequence[str] = COLUMNS, **settings: Any) -> Warmed:
    """Compile the kernels that training, scoring and evaluating by some settings need, so that later runs find them.

    Parameters
    ----------
    columns
        `numbers` for tables of numbers alone, `values` for those with categories or texts.
    settings
        Of runs to come, but for those that name columns or data. With `scheduler`, every worker of that cluster compiles, one
        of a machine before the others.

    Raises
    ------
    StreamSGDError
        The settings contradict each other, or the cluster cannot be reached.

    """
    return warm_up(tuple(columns), settings)


def warm_up(columns: tuple[str, ...], settings: dict[str, Any]) -> Warmed:
    """Compile, here or on every worker of a cluster; see `warmup`.

    Raises
    ------
    StreamSGDError
        As there.

    """
    for name in columns:
        if name not in COLUMNS:
            raise SettingsError(f"--columns {name}: made tables are of {' or of '.join(COLUMNS)}{nearest(name, COLUMNS)}")
    made = make_settings({"target": "y", **settings})
    if made.scheduler is None:
        return _warm(columns, settings)
    plain = {name: value for name, value in settings.items() if name != "scheduler"}
    with client_of(None, made.scheduler, None) as client:
        return _joined(_on_workers(client, columns, plain))


def _on_workers(client: Any, columns: tuple[str, ...], settings: dict[str, Any]) -> list[Warmed]:
    """Compile on every worker: on one of each machine first, whose folder of kernels the others may share."""
    workers = list(client.scheduler_info(n_workers=-1)["workers"])
    first = list({address.rpartition(":")[0]: address for address in workers}.values())
    rounds = [first, [address for address in workers if address not in first]]
    found: list[Warmed] = []
    for some in rounds:
        tasks = [client.submit(_warm, columns, settings, workers=[address], pure=False) for address in some]
        found += client.gather(tasks)
    return found


def _joined(parts: Sequence[Warmed]) -> Warmed:
    """Return what the processes of a cluster compiled, as one."""
    one = parts[0]
    return Warmed(
        sum(part.compiled for part in parts),
        sum(part.known for part in parts),
        sum(part.seconds for part in parts),
        max(part.total_seconds for part in parts),
        one.folder,
        ", ".join(dict.fromkeys(part.cpu for part in parts)),
        one.runs,
        len(parts),
    )


def _warm(columns: tuple[str, ...], settings: Mapping[str, Any]) -> Warmed:
    """Learn from every made table that the settings allow, score it and measure the model."""
    began, (compiled, known), names = time.perf_counter(), kernel_counts(), []
    with tempfile.TemporaryDirectory(prefix="streamsgd-warmup-") as folder, CompileClock(silent=True) as clock:
        for kind in columns:
            for task in _tasks(make_settings({"target": "y", **settings})):
                _run(Path(folder), kind, task, settings)
                names.append(f"{kind}, {TARGETS[task]}")
    now = kernel_counts()
    seconds = time.perf_counter() - began
    return Warmed(now[0] - compiled, now[1] - known, clock.seconds, seconds, cache_folder(), cpu_target(), tuple(names))


def _tasks(settings: Settings) -> Iterator[str]:
    """Yield the tasks whose kernels are wanted: the one that the settings name, or all that would be found."""
    task = task_of(settings)
    yield from USUAL if task == "auto" else (task,)


def _run(folder: Path, kind: str, task: str, settings: Mapping[str, Any]) -> None:
    """Learn from made rows in one pass and in two, whose defaults differ; score them, and measure the model."""
    usual = make_settings({"target": "y", "epochs": 1, "memory": task_memory(), **settings})
    races = usual.optimizer == "auto" or usual.optimizer.startswith("race")
    data, model = folder / f"{kind}-{task}.parquet", folder / f"{kind}-{task}.sgd"
    write_made_rows(data, task, ROWS if races else FEW_ROWS, of_numbers=kind == "numbers")
    for epochs in dict.fromkeys([2, usual.epochs]):
        made = msgspec.structs.replace(usual, epochs=epochs, resume="never")
        learned, _ = train_model(str(data), made, out=model)
    with reading(made.executor, made.threads) as reader:
        block_bytes = scoring_block_bytes(made.memory)
        score_data(learned, str(data), str(folder / f"{kind}-{task}-scores"), executor=reader, block_bytes=block_bytes)
    evaluate_source(learned, str(data), ScoringOptions(executor=made.executor, threads=made.threads, memory=made.memory))
