"""Whether a run came to anything: a model of some rows that weigh something, which predicts better than a constant."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from streamsgd.errors import DataError, DivergedError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np

    from streamsgd.settings.fields import Settings

log = logging.getLogger("streamsgd")


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


def check_useful(metrics: Mapping[str, Any], rows: int, *, strict: bool, undone: bool = False) -> None:
    """Say, or where that is `strict` raise, that a run ended above the best constant prediction: by 1 %, more of few rows.

    Judged by held-out rows, else by the last pass; not where a later phase (`--polish`) went on from there. Where weights of
    classes were `undone`, held-out rows are judged without them, as is the constant then.

    Raises
    ------
    DivergedError
        It did.

    """
    best = metrics.get("best_constant_loss")
    held = metrics.get("held_out", {}).get("loss")
    rows = rows if held is None else metrics["held_out"]["rows"]
    if undone and held is not None:
        best = metrics["held_out"].get("best_constant_log_loss")
    found = next(
        (value for value in (held, metrics.get("training_loss"), metrics["progressive_loss"]) if value is not None), None
    )
    if best is None or found is None or "polish" in metrics or found <= best + abs(best) * (0.01 + 10.0 / max(rows, 1)):
        return
    what = "held-out" if held is not None else "training" if "training_loss" in metrics else "progressive"
    message = (
        f"the run ended at a {what} loss of {found:.6g}, above {best:.6g} of the best constant prediction: this model is worse "
        "than none. Lower --learning-rate, look for columns with extreme values (streamsgd inspect; --transform, --scale), "
        "or pass --polish 50"
    )
    if strict:
        raise DivergedError(f"{message}; nothing was saved, as --strict asks")
    log.warning(message)
