"""A report of a pilot as one HTML file: the loss against one over the size of the batch, and the time to the same loss."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from streamsgd.data.stores.output import check_file
from streamsgd.show.pilot import pilot_text
from streamsgd.show.report import Section, page_template, write_sections
from streamsgd.show.svg import Axis, Line, chart

if TYPE_CHECKING:
    import os

MICRO = 1e6
"""Microseconds of a second."""


class PilotReport:
    """Writes a report of a pilot.

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

    def write(self, found: dict[str, Any], target: str) -> None:
        """Write it."""
        charts = [("Loss after the same steps", line_picture(found)), ("Time to the same loss", time_picture(found))]
        what = Section("Sizes", charts=[one for one in charts if one[1]], texts=["\n".join(pilot_text(found))])
        write_sections(self.out, f"batch sizes for {target}", f"{len(found['seeds'])} seeds of each size", [what])


def line_picture(found: dict[str, Any]) -> str:
    """Return the losses of branches after the same steps against one over their size, and the line through them."""
    fit, branches = found["fit"], list[dict[str, Any]]()
    for size in dict.fromkeys(line["batch_size"] for line in found["branches"]):
        of_size = [line for line in found["branches"] if line["comparison"] == "steps" and line["batch_size"] == size]
        branches.append(min(of_size, key=lambda line: line["loss"]))
    x = np.array([1.0 / line["batch_size"] for line in branches])
    lines = [
        Line(f"{fit['a']:.4g} + {fit['c']:.3g} / rows", [0.0, x.max()], [fit["a"], fit["a"] + fit["c"] * x.max()]),
        Line("a branch each", np.repeat(x, len(found["seeds"])), np.concatenate([b["losses"] for b in branches]), "points"),
    ]
    y = Axis(f"loss after {found['steps']:,} steps")
    return chart(lines, Axis("1 / rows of a batch"), y, "The loss after the same steps against 1 over the rows of a batch")


def time_picture(found: dict[str, Any]) -> str:
    """Return the time to the same loss against the size, as measured and by the law of steps; nothing where it is unknown."""
    same, per_step = found["same_loss"], found["seconds_per_step"]
    if same is None:
        return ""
    sizes = np.array(sorted({line["batch_size"] for line in found["branches"]}), float)
    x = np.geomspace(sizes[0], sizes[-1], 60)
    law = (per_step["alpha"] + per_step["beta"] * x) * (same["least_steps"] + same["least_rows"] / x)
    lines = [
        Line("steps and seconds as fitted", x, law * MICRO),
        Line("steps as measured", sizes, np.array(same["seconds"]) * MICRO, "points"),
    ]
    y = Axis(f"microseconds to a loss of {same['loss']:.4g}", log=True)
    return chart(lines, Axis("rows of a batch", log=True), y, "The time to the same loss against the rows of a batch")
