"""Training from Python that shows itself: the table of losses on stderr, or in a notebook."""

from __future__ import annotations

import sys
from html import escape
from typing import TYPE_CHECKING, Any

from streamsgd.settings.words import own_words
from streamsgd.show.reporters import Plain, reporting
from streamsgd.show.summary import describe_report
from streamsgd.training.callbacks import OnEvent

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import TextIO

    from streamsgd.compute.memory import PeakMemory
    from streamsgd.model.model import Model
    from streamsgd.settings.fields import Settings
    from streamsgd.training.callbacks import Callback
    from streamsgd.training.events import Event, Report


def train_shown(run: Callable[..., tuple[Model, Report]], settings: Settings, callbacks: Sequence[Callback]) -> Model:
    """Train, and show meanwhile what the command line shows.

    Parameters
    ----------
    run
        `train_model` of everything but what it tells.
    settings, callbacks
        As given.

    """
    with reporting(kind=Notebook if in_notebook() else None) as reporter:
        model, report = run(
            callbacks=[OnEvent(reporter.event), *callbacks],
            footers=reporter.footers,
            shuffled=lambda rows, total: reporter.scored(rows, total, "shuffling"),
            on_job=reporter.job,
        )
        for line in describe_report(report, settings, reporter.memory.bytes):
            reporter.line(line)
    return model


def in_notebook() -> bool:
    """Whether this process is the kernel of a notebook, which shows HTML."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    return shell is not None and hasattr(shell, "kernel")


class Notebook(Plain):
    """Shows a bar, and under it the lines, which a notebook draws anew in their place."""

    def __init__(self, stream: TextIO, memory: PeakMemory) -> None:
        super().__init__(stream, memory)
        self._lines: list[str] = []
        self._share, self._what = 0.0, ""
        self._place: Any = None

    def event(self, event: Event) -> None:
        """Write a row of the table and move the bar."""
        self._share, self._what = event.rows / max(event.total_rows, 1), f"{event.rows_per_second:,.0f} rows/s"
        super().event(event)

    def scored(self, rows: int, total: int, what: str = "scoring") -> None:
        """Move the bar of scoring."""
        self._share, self._what = rows / max(total, 1), what
        super().scored(rows, total, what)

    def line(self, text: str, level: str = "info") -> None:
        """Add a line."""
        self._lines.append(own_words(text) if level == "info" else f"{level}: {own_words(text)}")
        self._draw()

    def html(self) -> str:
        """Return what is shown."""
        bar = f"<progress value='{self._share:.4f}' max='1' style='width:30em'></progress> {escape(self._what)}"
        return f"<div>{bar}<pre style='line-height:1.2'>{escape(chr(10).join(self._lines))}</pre></div>"

    def _draw(self) -> None:
        from IPython.display import HTML, display  # noqa: PLC0415  there where this is shown

        if self._place is None:
            self._place = display(HTML(self.html()), display_id=True)
        else:
            self._place.update(HTML(self.html()))
