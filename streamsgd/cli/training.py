"""What train and sample do: a run that learns, its lines for people, and its result."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from streamsgd.cli.common import print_json, saved_so_far
from streamsgd.errors import Stopped

if TYPE_CHECKING:
    from streamsgd.settings.fields import Settings
    from streamsgd.show.reporters import Reporter


def run_training(
    command: str, data: Any, out: str, settings: Settings, reporter: Reporter, *, callbacks: Any = ()
) -> dict[str, Any]:
    """Run, tell of it, and return the result for the last line."""
    from streamsgd.data.stores.output import local_path  # noqa: PLC0415
    from streamsgd.show.summary import describe_report, where_time_went, workers_of  # noqa: PLC0415
    from streamsgd.training.together.going_on import train  # noqa: PLC0415

    path = local_path(out)
    new = path is not None and not os.path.lexists(path.parent)
    try:
        model, report = train(
            data,
            settings,
            out=out,
            emit=reporter.event,
            footers=reporter.footers,
            shuffled=lambda rows, total: reporter.scored(rows, total, "shuffling"),
            on_job=reporter.job,
            callbacks=callbacks,
        )
    except Stopped as stop:
        result = {"command": command, "status": "stopped", **saved_so_far(settings.checkpoint or f"{out}.ckpt")}
        print_json({**result, "message": str(stop)})
        raise
    for line in describe_report(report, settings, reporter.memory.bytes):
        reporter.line(line)
    reporter.line(f"saved {out}{', in a folder that was made for it' if new else ''}")
    return {
        "command": command,
        "status": "done",
        "model": out,
        "rows": report.rows,
        "epochs": report.epochs,
        "steps": report.steps,
        "metrics": model.metrics,
        "counts": model.provenance["counts"],
        "shuffle": model.provenance["shuffle"],
        "order": report.order,
        **({} if report.pilot is None else {"pilot": report.pilot}),
        "resumed_from": report.resumed_from,
        "seconds": report.seconds,
        "rows_per_second": report.rows_now / max(report.seconds, 1e-9),
        "bytes": report.bytes,
        "time": where_time_went(report),
        "workers": workers_of(report),
        "peak_memory_bytes": reporter.memory.bytes,
    }
