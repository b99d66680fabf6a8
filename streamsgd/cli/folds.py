"""What `train --folds` does: a model without each fold, the one of all rows, and how the folds differ."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from streamsgd.cli.common import print_json, saved_so_far
from streamsgd.errors import Stopped

if TYPE_CHECKING:
    from collections.abc import Mapping

    from streamsgd.show.reporters import Reporter


def run_cross_validation(
    data: Any, out: str, folds: int, reporter: Reporter, *, given: Mapping[str, Any], origins: Mapping[str, str]
) -> dict[str, Any]:
    """Run, tell of it, and return the result for the last line."""
    from streamsgd.show.folds import folds_line, folds_text  # noqa: PLC0415
    from streamsgd.training.together.crossvalidation import as_plain, run_folds  # noqa: PLC0415

    began = time.monotonic()
    try:
        found = run_folds(
            data,
            given,
            folds,
            out=out,
            origins=origins,
            told=lambda progress: reporter.line(folds_line(progress)),
            footers=reporter.footers,
        )
    except Stopped as stop:
        saved = saved_so_far(given.get("checkpoint") or f"{out}.ckpt")
        print_json({"command": "train", "status": "stopped", **saved, "message": str(stop)})
        raise
    for line in [*folds_text(found), f"saved {out}, learned on all rows"]:
        reporter.line(line)
    return {
        "command": "train",
        "status": "done",
        "model": out,
        "rows": found.model.provenance["rows_learned"],
        "folds": folds,
        "cross_validation": as_plain(found),
        "metrics": found.model.metrics,
        "counts": found.model.provenance["counts"],
        "seconds": time.monotonic() - began,
        "peak_memory_bytes": reporter.memory.bytes,
    }
