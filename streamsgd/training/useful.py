"""Whether a run came to anything: a model of some rows that weigh something, which predicts better than a constant."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from streamsgd.errors import DataError, DivergedError
from streamsgd.kernels.parts.traits import judges
from streamsgd.model.baseline import constant_loss_of_rows

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np

    from streamsgd.kernels.structs.block import Parts
    from streamsgd.settings.fields import Settings

log = logging.getLogger("streamsgd")


LEAST_JUDGES = 1000
"""Rows held out from which on a loss that is no better than a constant one is said: the constant knows these rows."""


def check_learned(provenance: Mapping[str, Any]) -> None:
    """Refuse a model of no row.

    Raises
    ------
    DataError
        Every row was left out; the message says how many for which reason, and the first problem.

    """
    if provenance["rows_learned"]:
        return
    names = {
        "filtered": "filtered",
        "skipped": "skipped",
        "held": "held out",
        "lost": "lost with their workers or in a later pass",
    }
    fates = [f"{n:,} were {name}" for key, name in names.items() if (n := provenance["counts"][key])]
    problems = provenance["left_out"]
    raise DataError(
        f"of {provenance['rows']:,} rows none is left to learn from: {', '.join(fates) or 'all weights are 0'}"
        + (f"; the first problem: {problems[0]}" if problems else "")
    )


def check_weighed(targets: np.ndarray, classes: Sequence[Any], settings: Settings) -> None:
    """Refuse a model of rows that all weigh nothing; `targets` are their sums, as `target_sums` makes them.

    Raises
    ------
    DataError
        They do.

    """
    if settings.weight is not None and not (targets.sum() if classes else targets[0]) > 0.0:
        raise DataError(
            f"--weight {settings.weight}: the weights of all rows that were learned are 0, so that nothing was learned; "
            "give a column that is above 0 in some rows, or leave --weight out"
        )


def check_useful(metrics: Mapping[str, Any], rows: int, parts: Parts, *, strict: bool) -> None:
    """Say, or where that is `strict` raise, that a run ended above the best constant prediction: by 1 %, more of few rows.

    What is no better on held-out rows, by less, is said in any case, and no error.

    Judged by held-out rows and the best constant of these, else by the last pass and that of its rows; not where a later
    phase (`--polish`) went on from there, nor by the rows on which an optimizer judges its steps: few of them are many steps,
    so that the first ones, far away, weigh as much as all that come after.

    Raises
    ------
    DivergedError
        It did.

    """
    held = metrics.get("held_out") or {}
    if held.get("loss") is not None:
        what, found, best, rows = "held-out", held["loss"], constant_loss_of_rows(parts.loss, held), held["rows"]
    else:
        what = "training" if metrics.get("training_loss") is not None else "progressive"
        found, best = metrics[f"{what}_loss"], metrics.get("best_constant_loss")
    if best is None or found is None or "polish" in metrics or (what != "held-out" and judges(parts.optimizer)):
        return
    if found <= best + abs(best) * (0.01 + 10.0 / max(rows, 1)):
        if what == "held-out" and rows >= LEAST_JUDGES and found >= best:
            log.warning(
                "the held-out loss of %.6g is no better than %.6g, that of the best constant prediction of these rows: what "
                "was learned says nothing of them. See which columns there are by streamsgd inspect, and whether rows held out "
                "are like those that are learned",
                *(found, best),
            )
        return
    message = (
        f"the run ended at a {what} loss of {found:.6g}, above {best:.6g} of the best constant prediction of these rows: this "
        "model is worse than none. Lower --learning-rate, look for columns with extreme values (streamsgd inspect; "
        "--transform, --scale), or pass --polish 50"
    )
    if strict:
        raise DivergedError(f"{message}; nothing was saved, as --strict asks")
    log.warning(message)
