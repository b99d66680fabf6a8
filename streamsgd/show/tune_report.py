"""A report of tuning: what each setting came to, and the best model, as one HTML file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from streamsgd.data.stores.output import check_file
from streamsgd.show.report import Section, Table, page_template, sections_of, write_page
from streamsgd.show.svg import Axis, Line, bars, chart
from streamsgd.show.tables import number

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from streamsgd.training.together.tuning import Tuned

CROWD = 200
"""Configurations in the table, the best first."""

WIDE = 10.0
"""Times the least of its values that the largest must be for a setting to stand on a logarithmic axis."""

WORDS = {"done": "to the end", "halved": "dropped on the way"}
"""What lines of the table are called in a picture, by their status."""


class TuneReport:
    """Writes a report of tuning.

    Parameters
    ----------
    out
        Path or URL of the HTML file.

    Raises
    ------
    SettingsError
        Jinja2 is not installed, or no file can be written there.

    """

    def __init__(self, out: str | os.PathLike[str]) -> None:
        page_template()
        check_file("--report", out)
        self.out = out

    def write(self, tuned: Tuned) -> None:
        """Write it."""
        write_page(self.out, tuned.model, [configurations(tuned), *sections_of(tuned.model, None, "")])


def configurations(tuned: Tuned) -> Section:
    """Return the configurations: a picture for each setting that was tried in several values, and the table, best first."""
    names = list(tuned.settings)
    ranked = sorted(tuned.table, key=lambda line: (line["status"] != "done", line["loss"] is None, line["loss"] or 0.0))
    pictures = [
        (f"Loss by {name}", _picture(name, tuned.table)) for name in names if len({_word(one[name]) for one in ranked}) > 1
    ]
    rows = [[one["configuration"], *(_word(one[name]) for name in names), number(one["loss"]), one["status"]] for one in ranked]
    note = "Those that were dropped on the way were compared by fewer rows; their losses are not those of the end."
    return Section(
        "Configurations",
        note if any(one["status"] == "halved" for one in ranked) else "",
        [(caption, picture) for caption, picture in pictures if picture],
        [Table(("", *names, "loss", ""), rows[:CROWD])],
    )


def _picture(name: str, lines: Sequence[dict[str, Any]]) -> str:
    """Return points of loss by a number, or bars of the least loss by a name."""
    known = [line for line in lines if line["loss"] is not None]
    values = [line[name] for line in known]
    if not all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        return _best_of(name, known)
    clouds = [
        Line(words, [line[name] for line in some], [line["loss"] for line in some], "points")
        for status, words in WORDS.items()
        if (some := [line for line in known if line["status"] == status])
    ]
    log = bool(values) and min(values) > 0 and max(values) >= WIDE * min(values)
    return chart(clouds, Axis(name, log=log), Axis("loss"), f"Loss by {name}")


def _best_of(name: str, known: Sequence[dict[str, Any]]) -> str:
    """Return bars of how much more than the best of all the best of each value lost."""
    best: dict[str, float] = {}
    for line in (line for line in known if line["status"] == "done"):
        word = _word(line[name])
        best[word] = min(line["loss"], best.get(word, line["loss"]))
    if not best:
        return ""
    least = min(best.values())
    ordered = sorted(best, key=best.__getitem__)
    return bars(ordered, [best[word] - least for word in ordered], f"Loss above the best by {name}")


def _word(value: Any) -> str:
    return "" if value is None else f"{value}"
