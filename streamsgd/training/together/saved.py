"""Checkpoints of several runs that share a decode: one file, so that a kill at any instant leaves all of them at one place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import msgspec
import numpy as np
from msgspec import Meta

from streamsgd.errors import ModelError
from streamsgd.model import store
from streamsgd.model.read import from_file
from streamsgd.model.validate import converted
from streamsgd.settings.registry import PARTS, make
from streamsgd.training.phases.base import prefixed, under
from streamsgd.training.result import header_of
from streamsgd.training.resuming.saved import check_cursor, check_restored, restoring
from streamsgd.training.run import frozen_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from streamsgd.model.model import Model
    from streamsgd.settings.fields import Settings
    from streamsgd.training.checkpoint import Checkpoints
    from streamsgd.training.engine import Engine
    from streamsgd.training.job import Job

Count = Annotated[int, Meta(ge=0)]

NOTHING_YET: dict[str, Any] = {
    "cursor": [0, 0],
    "phases": {},
    "totals": {"counts": {}, "problems": [], "common": {}},
    "poisoned": [],
    "validation": {},
}
"""What a run that is not under way says of where it is."""


class Ended(NamedTuple):
    """What came of a run."""

    status: str
    """`done`, `halved` or `diverged`."""
    loss: float
    """By which it is compared; infinite where it diverged."""
    rows: int = 0
    steps: int = 0
    rung: int | None = None
    """The comparison at which it was dropped."""
    model: Model | None = None
    why: str = ""
    """How it diverged."""


class Cursor(NamedTuple):
    """Where several runs are."""

    groups: list[list[int]]
    """Numbers of the runs that learn together."""
    group: int
    """The one under way."""
    rung: int
    """Comparisons that were made in it."""
    rounds: int
    """So far, of all groups."""


class RunsHeader(msgspec.Struct):
    """What a checkpoint of several runs says."""

    common: dict[str, Any]
    """What all of them say of their jobs ..."""
    jobs: list[dict[str, Any]]
    """... and each by itself."""
    groups: list[list[Count]]
    group: Count
    rung: Count
    rounds: Count
    runs: dict[str, dict[str, Any]]
    """Of those under way, as in a checkpoint of one run."""
    ended: dict[str, tuple[str, float | None, Count, Count, Count | None, str]]


@dataclass
class SavedRuns:
    """A checkpoint of several runs, as it was read."""

    said: RunsHeader
    arrays: dict[str, np.ndarray]
    name: str

    @property
    def header(self) -> dict[str, Any]:
        """What the first run says of its data."""
        return self.of(0)

    @property
    def cursor(self) -> Cursor:
        """Where the runs were."""
        return Cursor(self.said.groups, self.said.group, self.said.rung, self.said.rounds)

    def ended(self, jobs: Sequence[Job]) -> dict[int, Ended]:
        """Return what came of the runs that had ended, with the models that are kept."""
        found = {}
        for text, (status, loss, rows, steps, rung, why) in self.said.ended.items():
            number = int(text)
            model = self._model(number, jobs[number])
            found[number] = Ended(status, np.inf if loss is None else loss, rows, steps, rung, model, why)
        return found

    def _model(self, number: int, job: Job) -> Model | None:
        data = self.arrays.get(f"model{number}")
        if data is None:
            return None
        loss = _if_own("loss", job.parts.loss)
        structure = _if_own("model", make("model", job.settings.model))
        packed = store.unpack("model", data.tobytes(), self.name)
        return from_file(*packed, loss, self.name, job.settings.column_kind, structure=structure)

    def of(self, number: int) -> dict[str, Any]:
        """Return the header of a run, as of a checkpoint of its own."""
        return {**NOTHING_YET, **self.said.common, **self.said.jobs[number], **self.said.runs.get(str(number), {})}


def save_runs(
    checkpoints: Checkpoints,
    jobs: Sequence[Job],
    cursor: Cursor,
    ended: Mapping[int, Ended],
    states: Mapping[int, tuple[dict[str, Any], dict[str, np.ndarray]]],
) -> None:
    """Save all runs as they stand between two rounds.

    Parameters
    ----------
    checkpoints
        Where to.
    jobs
        Of all runs.
    cursor
        Where they are.
    ended
        What came of those that have ended.
    states
        Header and arrays of those that have not, as of checkpoints of their own.

    Raises
    ------
    ModelError
        The storage refused; earlier checkpoints stay.

    """
    said = [header_of(job) for job in jobs]
    common = {key: value for key, value in said[0].items() if all(one.get(key) == value for one in said)}
    arrays = dict[str, np.ndarray]()
    for number, (_header, own) in states.items():
        arrays |= prefixed(f"run{number}", own)
    for number, one in ended.items():
        if one.model is not None:
            arrays[f"model{number}"] = np.frombuffer(one.model.to_bytes(), np.uint8)
    header = {
        "common": common,
        "jobs": [{key: value for key, value in one.items() if key not in common} for one in said],
        **cursor._asdict(),
        "runs": {
            str(number): {key: value for key, value in header.items() if key in NOTHING_YET}
            for number, (header, _own) in states.items()
        },
        "ended": {
            str(number): (one.status, one.loss if np.isfinite(one.loss) else None, one.rows, one.steps, one.rung, one.why)
            for number, one in ended.items()
        },
    }
    checkpoints.save(cursor.group, cursor.rounds, header, arrays)


def read_runs(saved: tuple[dict[str, Any], dict[str, np.ndarray]], n_runs: int, name: str) -> SavedRuns:
    """Return a checkpoint of so many runs.

    Raises
    ------
    ModelError
        It is of one run, of another number of runs, or says what cannot be.

    """
    header, arrays = saved
    if "runs" not in header:
        raise ModelError(
            f"{name} holds checkpoints of a single run: pass --resume never to start anew, or another --checkpoint"
        )
    said = converted(header, RunsHeader, name, "")
    if len(said.jobs) != n_runs or sorted(number for group in said.groups for number in group) != list(range(n_runs)):
        raise ModelError(
            f"{name} holds checkpoints of {len(said.jobs)} runs, and now there are {n_runs}: pass the same grid to go on, or "
            "--resume never to start anew"
        )
    strange = [number for number in (*said.runs, *said.ended) if not number.isdecimal() or int(number) >= n_runs]
    if strange or said.group >= len(said.groups):
        raise ModelError(f"{name}: says something of run {strange[:1]} or group {said.group}, which there are not")
    return SavedRuns(said, arrays, name)


def frozen_runs(saved: SavedRuns, settings: Sequence[Settings]) -> list[dict[str, Any]]:
    """Return what a checkpoint decides of each run.

    Raises
    ------
    ModelError
        It is of other settings.

    """
    return [frozen_of(saved.of(number), own) for number, own in enumerate(settings)]


def restore_run(saved: SavedRuns, number: int, engine: Engine) -> None:
    """Set a run to where it was saved.

    Raises
    ------
    ModelError
        What was saved of it does not fit.

    """
    if str(number) not in saved.said.runs:
        raise ModelError(f"{saved.name}: says nothing of run {number}, which had not ended")
    header, arrays = saved.of(number), under(f"run{number}", saved.arrays)
    name = f"{saved.name}, run {number}"
    check_cursor(header, engine.job.plan, name)
    with restoring(name):
        engine.restore(header, arrays)
        again = engine.state()
    check_restored((header, arrays), again, name)


def _if_own(kind: str, part: Any) -> Any:
    """Return a part that is not streamsgd's, which a file cannot bring with it; else None."""
    return None if type(part) in PARTS[kind].values() else part
