"""What a person sees while a run goes on: a table of losses at rows 2^k, warnings, and an account at the end.

A reporter is where events go. Every one of them writes to stderr, whose failure never stops a run:

Plain    lines of text, without a control character
Live     the same lines above a progress bar, on a terminal
Lines    one JSON object per line
Quiet    nothing
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import sys
import threading
import time
from typing import TYPE_CHECKING, Any, Protocol, TextIO

from streamsgd.compute.memory import PeakMemory
from streamsgd.messages import STAGES, format_bytes, stamped
from streamsgd.redact import redact
from streamsgd.settings.words import own_words
from streamsgd.show.summary import describe_job

if TYPE_CHECKING:
    from collections.abc import Iterator

    from streamsgd.training.events import Event
    from streamsgd.training.job import Job


_WIDTHS = {"rows": 13, "epoch": 7, "average loss": 13, "since last": 13, "rows/s": 11, "MB/s": 7, "memory": 8}

HEADER = " ".join(name.rjust(width) for name, width in _WIDTHS.items())

UNWRITABLE = (OSError, ValueError, RuntimeError)
"""What a stream raises that is full, closed, or being written to by whom a signal interrupted."""

STAGES_AFTER = 1.0
"""Seconds after which what is going on is worth a line."""

FOOTERS_AFTER = 1.0
"""Seconds after which reading footers is worth a line, and between two such lines."""


class Reporter(Protocol):
    """Takes what happens."""

    memory: PeakMemory

    def footers(self, done: int, total: int) -> None:
        """Take note of footers read."""

    def job(self, job: Job) -> None:
        """Take note of the prepared job."""

    def event(self, event: Event) -> None:
        """Take note of a training event."""

    def scored(self, rows: int, total: int, what: str = "scoring") -> None:
        """Take note of rows scored, evaluated or shuffled so far."""

    def stage(self, what: str, seconds: float | None) -> None:
        """Take note of something that begins, or of the seconds that it took."""

    def line(self, text: str, level: str = "info") -> None:
        """Show a line."""

    def close(self) -> None:
        """Leave the terminal as it was."""


class Plain:
    """Writes lines of text."""

    def __init__(self, stream: TextIO, memory: PeakMemory) -> None:
        self.stream, self.memory = stream, memory
        self._began = self._said = time.monotonic()
        self._headed = False
        self._lock = threading.RLock()  # the handler of a signal writes too, perhaps in the middle of a line
        self._stages: dict[str, threading.Timer] = {}

    def footers(self, done: int, total: int) -> None:
        """Say how many footers are read, when that takes long."""
        now = time.monotonic()
        if now - self._said > FOOTERS_AFTER and done < total:
            self._said = now
            self.line(f"footers: {done:,} of {total:,} files")

    def job(self, job: Job) -> None:
        """Say what will be learned from what."""
        for text in describe_job(job):
            self.line(text)

    def event(self, event: Event) -> None:
        """Write a row of the table, or an evaluation."""
        if event.kind == "chunk":
            return
        if not self._headed:
            self.line(HEADER)
            self._headed = True
        if event.kind not in ("polish", "snapshot"):
            self.line(table_row(event, self.memory.bytes))
        if event.note:
            self.line(f"{'':13} {event.note}")

    def scored(self, rows: int, total: int, what: str = "scoring") -> None:  # noqa: ARG002
        """Say how far scoring is, now and then."""
        now = time.monotonic()
        if now - self._said >= min(60.0, max(FOOTERS_AFTER, (now - self._began) / 10)):
            self._said = now
            speed = rows / max(now - self._began, 1e-9)
            self.line(f"{rows:>13,} of {total:,} rows, {speed:,.0f} rows/s, {format_bytes(self.memory.bytes)}")

    def stage(self, what: str, seconds: float | None) -> None:
        """Say what is going on, if it goes on for longer than a second."""
        if (timer := self._stages.pop(what, None)) is not None:
            timer.cancel()
        if seconds is None:
            timer = threading.Timer(STAGES_AFTER, self.line, (f"{what} ...",))
            timer.daemon = True
            self._stages[what] = timer
            timer.start()

    def line(self, text: str, level: str = "info") -> None:
        """Write a line."""
        shown = own_words(text) if level == "info" else f"{level}: {own_words(text)}"
        with self._lock, contextlib.suppress(*UNWRITABLE):
            self.stream.write(redact(shown).replace("\n", " ") + "\n")
            self.stream.flush()

    def close(self) -> None:
        """Say nothing more."""
        for timer in self._stages.values():
            timer.cancel()


class Quiet(Plain):
    """Writes errors alone."""

    def line(self, text: str, level: str = "info") -> None:
        """Write a line that is an error, drop another."""
        if level in ("error", "critical"):
            super().line(text, level)


class Lines(Plain):
    """Writes JSON objects, each with time and level."""

    def job(self, job: Job) -> None:
        """Write sizes of the job."""
        self._write(
            "job",
            files=job.data.n_files,
            row_groups=job.data.n_row_groups,
            rows=job.dataset.n_rows,
            features=len(job.encoding.columns),
            target=job.target.name,
            task=job.target.task,
            epochs=job.epochs,
            chunk_rows=job.plan.chunk_rows,
            projected_bytes=job.budget.projected,
        )

    def event(self, event: Event) -> None:
        """Write an event."""
        if event.kind == "chunk":
            return
        fields = {key: value for key, value in vars(event).items() if key not in ("kind", "note")}
        self._write(event.kind, **fields, peak_memory_bytes=self.memory.bytes)

    def footers(self, done: int, total: int) -> None:
        """Write how many footers are read, when that takes long."""
        now = time.monotonic()
        if now - self._said > FOOTERS_AFTER and done < total:
            self._said = now
            self._write("footers", done=done, total=total)

    def scored(self, rows: int, total: int, what: str = "scoring") -> None:
        """Write how far scoring is, now and then."""
        now = time.monotonic()
        if now - self._said >= FOOTERS_AFTER:
            self._said = now
            self._write("scored" if what == "scoring" else what, rows=rows, total_rows=total, seconds=now - self._began)

    def stage(self, what: str, seconds: float | None) -> None:
        """Write what begins, and how long it took."""
        self._write("stage", stage=what, state="begins" if seconds is None else "ended", seconds=seconds)

    def line(self, text: str, level: str = "info") -> None:
        """Write a message."""
        self._write("message", level, message=text)

    def _write(self, event: str, level: str = "info", **fields: Any) -> None:
        with self._lock, contextlib.suppress(*UNWRITABLE):
            self.stream.write(to_json(stamped(event, level, **fields)) + "\n")
            self.stream.flush()


class Live(Plain):
    """Writes lines above a bar, on a terminal."""

    def __init__(self, stream: TextIO, memory: PeakMemory) -> None:
        super().__init__(stream, memory)
        from rich.console import Console  # noqa: PLC0415
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn  # noqa: PLC0415

        console = Console(file=stream, highlight=False, soft_wrap=True)
        columns = (
            TextColumn("{task.description}"),
            BarColumn(None),
            TextColumn("{task.percentage:>3.0f} %"),
            TextColumn("{task.fields[speed]}"),
            TimeRemainingColumn(),
        )
        self._bars = Progress(*columns, console=console, transient=True)
        self._bars.start()
        self._tasks: dict[str, Any] = {}

    def footers(self, done: int, total: int) -> None:
        """Move the bar of the footers."""
        self._move("reading footers", done, total, "")

    def event(self, event: Event) -> None:
        """Write a row of the table and move the bar."""
        super().event(event)
        if event.kind == "polish":
            passes = event.metrics["passes"]
            self._move("polishing", int(passes), int(event.metrics["most_passes"]), f"gradient {event.metrics['gradient']:.1g}")
        else:
            self._move("training", event.rows, event.total_rows, f"{event.rows_per_second:,.0f} rows/s")

    def scored(self, rows: int, total: int, what: str = "scoring") -> None:
        """Move the bar of scoring."""
        speed = rows / max(time.monotonic() - self._began, 1e-9)
        self._move(what, rows, total, f"{speed:,.0f} rows/s")

    def stage(self, what: str, seconds: float | None) -> None:
        """Show what is going on as a bar without an end."""
        with contextlib.suppress(OSError, ValueError):
            if seconds is None:
                self._tasks[what] = self._bars.add_task(what, total=None, speed="")
            elif what in self._tasks:
                self._bars.remove_task(self._tasks.pop(what))

    def line(self, text: str, level: str = "info") -> None:
        """Write a line above the bar."""
        style = {"warning": "yellow", "error": "bold red"}.get(level)
        shown = own_words(text) if level == "info" else f"{level}: {own_words(text)}"
        with contextlib.suppress(OSError, ValueError):
            self._bars.console.print(redact(shown), style=style, markup=False)

    def close(self) -> None:
        """Remove the bar."""
        with contextlib.suppress(OSError, ValueError):
            self._bars.stop()

    def _move(self, name: str, done: int, total: int, speed: str) -> None:
        if name not in self._tasks:
            for other in self._tasks.values():
                self._bars.update(other, visible=False)
            self._tasks[name] = self._bars.add_task(name, total=total, speed="")
        self._bars.update(self._tasks[name], completed=done, total=total, speed=speed)


class _ToReporter(logging.Handler):
    """Sends log records to a reporter, one line each."""

    def __init__(self, reporter: Reporter) -> None:
        super().__init__()
        self.reporter = reporter

    def emit(self, record: logging.LogRecord) -> None:
        if record.name == STAGES.name:
            self.reporter.stage(redact(str(vars(record)["stage"])), vars(record)["seconds"])
        else:
            self.reporter.line(record.getMessage(), record.levelname.lower())


@contextlib.contextmanager
def reporting(
    style: str = "auto", *, verbose: bool = False, stream: TextIO | None = None, kind: type[Plain] | None = None
) -> Iterator[Reporter]:
    """Show what happens inside the block on stderr, log records of streamsgd among it.

    Parameters
    ----------
    style
        `auto` (a bar on a terminal, else plain lines), `plain`, `json` or `quiet`.
    verbose
        Whether to show records of level INFO and DEBUG too.
    stream
        Instead of stderr.
    kind
        A reporter of another style.

    """
    stream = sys.stderr if stream is None else stream
    kind = kind or {"auto": Live if _can_move(stream) else Plain, "plain": Plain, "json": Lines, "quiet": Quiet}[style]
    log = logging.getLogger("streamsgd")
    level = log.level
    with PeakMemory() as memory:
        reporter = kind(stream, memory)
        handler = _ToReporter(reporter)
        log.addHandler(handler)
        log.setLevel(logging.DEBUG if verbose else logging.WARNING)
        STAGES.setLevel(logging.INFO)
        try:
            yield reporter
        finally:
            log.removeHandler(handler)
            log.setLevel(level)
            STAGES.setLevel(logging.NOTSET)
            reporter.close()


def _can_move(stream: TextIO) -> bool:
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def table_row(event: Event, memory: int) -> str:
    """Return an event as a row under `HEADER`."""
    speed = event.bytes / max(event.seconds, 1e-9) / 1e6
    return (
        f"{event.rows:>13,} {event.epoch:>7.2f} {event.loss:>13.6f} {event.recent:>13.6f} "
        f"{event.rows_per_second:>11,.0f} {speed:>7.0f} {format_bytes(memory):>8}"
    )


def to_json(value: Any, indent: int | None = None) -> str:
    """Return JSON that any parser takes: numbers that are not finite become null."""
    return json.dumps(_plain(value), indent=indent, ensure_ascii=False)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {redact(str(key)): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, bool | int | str) or value is None:
        return redact(value) if isinstance(value, str) else value
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return str(value)
