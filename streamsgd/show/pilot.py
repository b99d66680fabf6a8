"""What a pilot came to, as text."""

from __future__ import annotations

from typing import Any

from streamsgd.show.tables import table


def pilot_text(found: dict[str, Any]) -> list[str]:
    """Return the lines of `pilot`."""
    fit, lines = found["fit"], list[str]()
    for comparison, what in (("steps", f"{found['steps']:,} steps"), ("rows", f"{found['rows']:,} rows")):
        rows = [
            (
                f"{line['batch_size']:,}",
                "" if line["learning_rate"] is None else f"{line['learning_rate']:g}",
                f"{line['steps']:,}",
                f"{line['loss']:.6g}",
                "" if line["se"] is None else f"{line['se']:.2g}",
            )
            for line in found["branches"]
            if line["comparison"] == comparison
        ]
        lines += [f"after {what}:", *table(("batch", "rate", "steps", "loss", "error"), rows)]
    interval = "" if fit["interval"] is None else " ({:.3g} to {:.3g})".format(*fit["interval"])
    lines.append(f"loss after {found['steps']:,} steps = {fit['a']:.6g} + {fit['c']:.4g}{interval} / batch size")
    if (lack := fit["lack_of_fit"]) is not None and lack["p"] < 0.01:
        lines.append(f"it is no straight line in 1 / batch size (F = {lack['F']:.3g}, p = {lack['p']:.2g}): mind the table")
    lines.append(
        f"recommended: --batch-size {found['recommended']}; twice as much would gain {found['doubling_gain']:.2g} of the loss"
    )
    if found["at_rest"]:
        lines.append(
            "the smallest size had come to rest: at this rate the batch decides the loss, and no further steps lower it"
        )
    if found["least_time"] is not None:
        lines.append(
            f"least time to a loss of {found['same_loss']['loss']:.6g}, to which all sizes come: about "
            f"{found['least_time']:,.0f} rows per step on this machine"
        )
    return lines


def found_by_pilot(found: dict[str, Any]) -> str:
    """Return why a run went on with the size of batches that it has, in a line."""
    fit = found["fit"]
    interval = "" if fit["interval"] is None else " ({:.3g} to {:.3g})".format(*fit["interval"])
    sizes = ", ".join(f"{line['batch_size']:,}" for line in found["branches"])
    return (
        f"pilot: batches of {found['chosen']:,} rows, of {sizes}: the loss after {found['steps']:,} steps is {fit['a']:.6g} + "
        f"{fit['c']:.3g}{interval} / rows, twice as many would gain {found['doubling_gain']:.2g}, and {found['worth']:.2g} is "
        f"worth it; the run goes on from the {found['rows']:,} rows that this branch learned, the others learned "
        f"{found['rows_of_others']:,}"
    )
