"""What an evaluation finds out beyond the metrics of training: calibration, what thresholds bring, and all of it by group.

Everything is a sum of a bounded size that merges: parts of the data may be measured apart, and in any process.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from streamsgd.errors import DataError, SettingsError
from streamsgd.messages import format_bytes
from streamsgd.model.far_moments import FarMoments
from streamsgd.model.metrics import Metrics
from streamsgd.model.packed import Packed, pack, unpack
from streamsgd.model.probability.calibration import Calibration
from streamsgd.model.ranking import at_precision, at_top
from streamsgd.stream.groups import CONTINUOUS, MOST_GROUPS, too_many

if TYPE_CHECKING:
    from streamsgd.features.target import Target
    from streamsgd.kernels.structs.block import Block
    from streamsgd.model.predictor import Predictor
    from streamsgd.stream.chunk import LoadedChunk

LEAST_ROOM = 16 << 20
"""Bytes that the sums by value of a column may always have."""

RESULT_BYTES = 12_000
"""Bytes of the result of a group, beside its sums."""

LABEL_COPIES = 4
"""Times that a value is in memory: as a key of the sums of a range and of the whole, of the result, and in its JSON."""


class Details(NamedTuple):
    """What is measured beyond `Metrics`."""

    at_precision: tuple[float, ...] = (0.5, 0.9)
    """Precisions whose largest recall is wanted."""
    top: tuple[float, ...] = (0.001, 0.01, 0.1)
    """Shares of the weight, or weights from 1 on, of the highest scores whose precision and lift are wanted."""
    by: str | None = None
    """Column whose values are measured apart, too."""
    by_type: str = ""
    """Of that column, in the words of Arrow."""
    room: int = LEAST_ROOM
    """Bytes that there are for the sums of its values."""


NO_DETAILS = Details()
"""What is measured if nobody says."""


def check_details(details: Details) -> Details:
    """Return the details, if they make sense.

    Raises
    ------
    SettingsError
        They do not.

    """
    for level in details.at_precision:
        if not 0.0 < level <= 1.0:
            raise SettingsError(f"--at-precision {level:g}: a precision is above 0 and at most 1")
    for size in details.top:
        if not 0.0 < size < np.inf:
            raise SettingsError(f"--top {size:g}: a share of the rows, such as 0.01, or a number of rows, such as 100")
    return details


class ScoredRows(NamedTuple):
    """Rows with their predictions, in units of the target."""

    y: np.ndarray
    mean: np.ndarray
    score: np.ndarray
    weight: np.ndarray
    loss: np.ndarray

    def some(self, which: np.ndarray) -> ScoredRows:
        """Return those for which `which`, bool (n,), is true."""
        return ScoredRows(*(column[which] for column in self))


def scored_rows(model: Predictor, block: Block, start: int, stop: int) -> ScoredRows:
    """Return rows start to stop of a block, scored by a model."""
    scores, means, losses = model.score_block(block, start, stop)
    return ScoredRows(
        model.in_target_units(block.y[start:stop]),
        _one(model.in_target_units(means)),
        _one(model.in_target_units(scores)),
        block.weight[start:stop],
        losses,
    )


def _one(values: np.ndarray) -> np.ndarray:
    return values[:, 0] if values.shape[1] == 1 else values


def new_metrics(loss: Any, target: Target) -> Metrics:
    """Return empty metrics for a loss and a target."""
    n_outputs = len(target.classes) if target.task == "multiclass" else 1
    return Metrics.for_task(target.task, n_outputs, quantile=getattr(loss, "level", 0.5))


@dataclass
class Evaluation:
    """Everything that is known so far of a model on some rows."""

    loss: Any
    target: Target
    details: Details | None
    """None for the metrics of training alone."""
    metrics: Metrics = field(init=False)
    calibration: Calibration | None = field(init=False)
    groups: dict[str, Packed] = field(init=False, default_factory=dict)
    """By value of the column of `by`."""
    group_bytes: int = field(init=False, default=0)
    far: FarMoments = field(init=False, default_factory=FarMoments)

    def __post_init__(self) -> None:
        self.metrics = new_metrics(self.loss, self.target)
        likely = self.loss.task == "binary" and self.details is not None
        self.calibration = Calibration() if likely else None

    def update_with(self, model: Predictor, filled: LoadedChunk) -> None:
        """Add the rows of a chunk."""
        if self.details is None or self.details.by is None:
            for start, stop in filled.learned_runs():
                self.add(self.seen(model, filled.block, start, stop))
            return
        for piece, loaded in zip(filled.chunk.pieces, filled.pieces, strict=True):
            if not (n := int(loaded.counts.sum())):
                continue
            rows = self.seen(model, filled.block, piece.rows_before, piece.rows_before + n)
            self.add(rows)
            room = self._room()
            for code, label in enumerate(loaded.labels):
                which = loaded.codes == code
                if which.any():
                    room.open(self.groups.get(label)).add(rows.some(which))
                    self._keep(label, room.close())

    def seen(self, model: Predictor, block: Block, start: int, stop: int) -> ScoredRows:
        """Return scored rows, and note what is strange about them; they are still to be added."""
        if self.details is not None:
            self.far.add(model, block, start, stop)
        return scored_rows(model, block, start, stop)

    def add(self, rows: ScoredRows) -> None:
        """Add scored rows."""
        self.metrics.update(*rows)
        if self.calibration is not None:
            self.calibration.update(rows.y, rows.score, rows.weight)

    def _room(self) -> Room:
        assert self.details is not None, "there are groups"  # noqa: S101  for the type checker
        return Room(Evaluation(self.loss, self.target, self.details._replace(by=None)))

    def _keep(self, label: str, sums: Packed) -> None:
        before = self.groups.get(label)
        self.groups[label] = sums
        self.group_bytes += sums.nbytes - before.nbytes if before else sums.nbytes + RESULT_BYTES + LABEL_COPIES * len(label)
        assert self.details is not None, "there are groups"  # noqa: S101  for the type checker
        if len(self.groups) > MOST_GROUPS or self.group_bytes > self.details.room:
            raise _too_many(self.details, len(self.groups), self.group_bytes)

    def merge(self, other: Evaluation) -> None:
        """Add the rows that `other` has counted."""
        self.metrics.merge(other.metrics)
        self.far.merge(other.far)
        if self.calibration is not None and other.calibration is not None:
            self.calibration.merge(other.calibration)
        if not other.groups:
            return
        mine, theirs = self._room(), self._room()
        for label, sums in other.groups.items():
            if label in self.groups:
                mine.open(self.groups[label]).merge(theirs.open(sums))
                theirs.close()
                sums = mine.close()  # noqa: PLW2901
            self._keep(label, sums)

    def result(self) -> dict[str, Any]:
        """Return all metrics that mean something for the loss; margins are not probabilities."""
        found: dict[str, Any] = named(self.metrics, self.loss)
        if self.details is None:
            return found
        if self.loss.task in ("binary", "margin"):
            found |= self._thresholds(self.details, found["weight"])
        if best := found.get("best_constant_log_loss"):
            found["normalized_cross_entropy"] = found["log_loss"] / best
        if self.calibration is not None:
            found |= self.calibration.result()
        if self.details.by is not None:
            found["by"] = self._by()
        return found

    def _by(self) -> dict[str, Any]:
        room, found = self._room(), dict[str, Any]()
        for label in sorted(self.groups):
            found[label] = room.open(self.groups[label]).result()
            room.close()
        return found

    def _thresholds(self, details: Details, weight: float) -> dict[str, float]:
        bins, span = self.metrics.histogram
        found: dict[str, float] = {}
        for level in details.at_precision if weight else ():
            for key, value in at_precision(bins, span, level).items():
                found[_RECALL[key].format(f"{level:g}")] = value
        for size in details.top if weight else ():
            for key, value in at_top(bins, span, size * weight if size < 1.0 else size).items():
                found[_TOP[key].format(f"{size:g}")] = value
        return found


class Room:
    """Where the sums of one group at a time are opened."""

    def __init__(self, inside: Evaluation) -> None:
        self.inside = inside
        self._empty = pack(inside.metrics, inside.calibration)

    def open(self, packed: Packed | None) -> Evaluation:
        """Return an evaluation that goes on from these sums; from none without any."""
        unpack(packed or self._empty, self.inside.metrics, self.inside.calibration)
        return self.inside

    def close(self) -> Packed:
        """Return the sums of what is open, which is empty afterwards."""
        return pack(self.inside.metrics, self.inside.calibration)


def _too_many(details: Details, n_values: int, n_bytes: int) -> DataError:
    """Return why no more values are told apart, and what to do."""
    if n_values > MOST_GROUPS or details.by_type.startswith(CONTINUOUS):
        return too_many(str(details.by), details.by_type, n_values - 1)
    return DataError(
        f"--by {details.by}: the column has more than {n_values - 1:,} values, for whose sums there is no memory: they need "
        f"{format_bytes(n_bytes / n_values)} each, and may have {format_bytes(details.room)}: give more --memory, of which "
        f"they get a sixteenth, and at least {format_bytes(LEAST_ROOM)}, or --filter some of them"
    )


_RECALL = {
    "recall": "recall_at_precision_{}",
    "error": "recall_at_precision_{}_error",
    "threshold": "threshold_at_precision_{}",
}

_TOP = {
    "precision": "precision_at_top_{}",
    "error": "precision_at_top_{}_error",
    "recall": "recall_at_top_{}",
    "lift": "lift_at_top_{}",
}


def named(metrics: Metrics, loss: Any) -> dict[str, float]:
    """Return the metrics that mean something for this loss: margins are not probabilities."""
    found = metrics.result()
    if loss.task == "margin":
        for key in ("log_loss", "best_constant_log_loss"):
            found.pop(key, None)
    return found
