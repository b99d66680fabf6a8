"""Commands about uncertainty: draws from a posterior, and calibration."""

from __future__ import annotations

from typing import Any

import click

from streamsgd.cli.common import (
    account_of,
    all_settings,
    given_settings,
    one_or_list,
    open_reporter,
    print_json,
    watch_checkpoints,
)
from streamsgd.cli.flags import CALIBRATED, DATA, MODEL, OWN_LOSS, output_flags, settings_flags
from streamsgd.cli.pages import Sectioned
from streamsgd.messages import counted
from streamsgd.settings.scope import SAMPLED


@click.command(
    cls=Sectioned,
    section="Learn",
    first=("target", "out", "prior", "method", "exclude", "filter", "memory", "chains", "draws", "workers"),
    examples=("flights/ --target late --prior normal:sd=1 -o posterior.sgd",),
)
@DATA
@click.option("-o", "--out", required=True, metavar="FILE", help="Where to save the model.")
@output_flags
@settings_flags()
def sample(
    data: tuple[str, ...], *, out: str, as_json: bool, quiet: bool, verbose: bool, config: str | None, **flags: Any
) -> None:
    """Draw the weights of a model of DATA from their posterior, and save it.

    Training goes first, then the way to the mode, then the draws, by --method. The same command goes on where a
    killed or stopped one was.
    """
    with open_reporter(as_json, quiet, verbose) as reporter:
        settings = all_settings(flags, config, SAMPLED)
        watch_checkpoints(settings.checkpoint or f"{out}.ckpt")
        from streamsgd.cli.training import run_training  # noqa: PLC0415

        result = run_training("sample", one_or_list(data), out, settings, reporter)
    print_json(result)


@click.command(cls=Sectioned, section="Use a model", examples=("late.sgd flights-2024/",))
@MODEL
@DATA
@click.option("-o", "--out", metavar="FILE", help="Where to save the calibrated model.  [default: MODEL itself]")
@OWN_LOSS
@output_flags
@settings_flags(CALIBRATED)
def calibrate(
    model: str,
    data: tuple[str, ...],
    *,
    out: str | None,
    as_json: bool,
    quiet: bool,
    verbose: bool,
    config: str | None,
    **flags: Any,
) -> None:
    """Keep in MODEL how far its predictions are off on DATA, rows that it has not learned from.

    predict --intervals then holds outcomes with the chance that is asked for.
    """
    with open_reporter(as_json, quiet, verbose) as reporter:
        given = given_settings(flags, config)
        from streamsgd.model.probability.calibrate import calibrate as run  # noqa: PLC0415
        from streamsgd.stream.stats import Account  # noqa: PLC0415

        account = Account(on_chunk=lambda now: reporter.scored(now.rows, now.total_rows))
        made = run(model, one_or_list(data), out=out or model, account=account, **given)
        found = made.metrics["calibration"]
        reporter.line(
            f"calibrated on {counted(found['rows'], 'row')}, rank error {found['rank_error']:.2%}; saved {out or model}"
        )
        result = {"command": "calibrate", "model": out or model, **found, **account_of(account, reporter)}
    print_json(result)


UNCERTAIN = (sample, calibrate)
