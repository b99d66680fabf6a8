"""What a run says of itself: events on the way, and a report at the end. Neither enters the model."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from streamsgd.data.timings import Timings

if TYPE_CHECKING:
    from streamsgd.training.backends.base import WorkerStats


@dataclass
class Report:
    """What a run did: sizes, losses, and where the time went. Times and memory never enter the model."""

    rows: int = 0
    """Rows learned, each as often as it was, also before a resumption."""
    rows_now: int = 0
    """Of these, by this process: what `seconds` is for."""
    epochs: int = 0
    steps: int = 0
    seconds: float = 0.0
    fit_seconds: float = 0.0
    learn_seconds: float = 0.0
    """Of a processor, in steps alone: without scores of held-out rows, and without waiting for other runs."""
    wait_seconds: float = 0.0
    compile_seconds: float = 0.0
    spent: Timings = field(default_factory=Timings)
    resumed_from: tuple[int, int] | None = None
    best_constant_loss: float | None = None
    """Mean loss of the best constant prediction, to compare the progressive loss with; None where it is not known."""
    losses: dict[str, float | None] = field(default_factory=dict)
    """`progressive_loss` of rows when they were new, and `training_loss` of the last pass over rows that were known."""
    rows_met: int = 0
    """Rows of the chunks that came by: whose reading `spent` is for."""
    bytes: int = 0
    """Decoded bytes of the columns of the rows that came by."""
    order: dict[str, Any] | None = None
    """What a look at the target found about the order of the rows."""
    workers: dict[str, WorkerStats] = field(default_factory=dict)
    """What each worker of a cluster did, by address."""
    ledger: dict[str, Any] | None = None
    """What steps decided, where they decide something: rows of each, evidence, and what the test made of it."""
    pilot: dict[str, Any] | None = None
    """By what the size of batches was found, where a pilot found it."""
    phases: dict[str, dict[str, Any]] = field(default_factory=dict)
    """What each phase has to say of itself, by its name: passes, objective, gradient, why it ended ..."""


@dataclass
class Event:
    """An event: the state of a run after some rows."""

    rows: int
    total_rows: int
    epoch: float
    loss: float
    """Average progressive loss so far."""
    recent: float
    """Average progressive loss since the last event."""
    seconds: float
    rows_per_second: float
    bytes: int = 0
    """Decoded bytes of the columns of the rows so far, in this process."""
    kind: str = "progress"
    """`progress` at 1024, 2048, 4096 ... rows, `evaluation`, `resumed`, `polish` after every pass of it, `snapshot` after every
    pass of svrg that measures, or `chunk` after every other chunk."""
    note: str = ""
    metrics: dict[str, float] = field(default_factory=dict)
    """Of an evaluation, or a pass that measures."""


def flat_metrics(event: Event) -> dict[str, float]:
    """Return the numbers of an event by flat names: `loss`, `recent_loss`, and of an evaluation `valid.log_loss` and so on."""
    found = {"loss": event.loss, "recent_loss": event.recent, "epoch": event.epoch, "rows_per_second": event.rows_per_second}
    prefix = "valid" if event.kind == "evaluation" else event.kind
    return found | {f"{prefix}.{name}": float(value) for name, value in event.metrics.items() if isinstance(value, int | float)}
