"""Commands about rows that a model scored: two models side by side, and scores explained."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from streamsgd.cli.common import account_of, given_settings, one_or_list, open_reporter, print_json, written_line
from streamsgd.cli.flags import (
    DATA,
    EVALUATED,
    MODEL,
    OWN_LOSS,
    SCORED,
    complete_path,
    measured_flags,
    output_flags,
    settings_flags,
)
from streamsgd.cli.pages import Sectioned

if TYPE_CHECKING:
    from streamsgd.show.reporters import Reporter


def judged(
    command: str, model: str, also: tuple[str, ...], data: tuple[str, ...], *, reporter: Reporter, given: dict[str, Any]
) -> dict[str, Any]:
    """Measure a model, with others beside it if there are any; show it, and return the result for the last line."""
    from streamsgd import evaluate as run  # noqa: PLC0415
    from streamsgd.model.compare import compare as run_all  # noqa: PLC0415
    from streamsgd.show.compare import comparison_text  # noqa: PLC0415
    from streamsgd.stream.stats import Account  # noqa: PLC0415

    account = Account(on_chunk=lambda now: reporter.scored(now.rows, now.total_rows))
    given = {**given, "account": account}
    found = run_all(model, also, one_or_list(data), **given) if also else {"metrics": run(model, one_or_list(data), **given)}
    for line in comparison_text(found, model):
        reporter.line(line)
    return {
        "command": command,
        "model": model,
        **found,
        "rows": account.rows,
        "counts": {"filtered": account.filtered, "skipped": account.skipped, "unseen": account.unseen},
        **account_of(account, reporter),
    }


@click.command(cls=Sectioned, section="Use a model", examples=("old.sgd new.sgd holdout/",))
@MODEL
@click.argument("other", shell_complete=complete_path)
@DATA
@OWN_LOSS
@measured_flags
@output_flags
@settings_flags(EVALUATED)
def compare(
    model: str,
    other: str,
    data: tuple[str, ...],
    *,
    as_json: bool,
    quiet: bool,
    verbose: bool,
    config: str | None,
    **flags: Any,
) -> None:
    """Measure OTHER beside MODEL on the same rows of DATA, and say how surely their losses differ.

    The difference is that of OTHER less that of MODEL: negative where OTHER is better. It is evaluate MODEL DATA --also OTHER.
    """
    with open_reporter(as_json, quiet, verbose) as reporter:
        given = {**pop_measures(flags), **given_settings(flags, config)}
        result = judged("compare", model, (other,), data, reporter=reporter, given=given)
    print_json(result)


def pop_measures(flags: dict[str, Any]) -> dict[str, Any]:
    """Take the flags out that say what is measured, which are no settings."""
    return {name: flags.pop(name) for name in ("threshold", "confusion", "at_precision", "top")}


@click.command(cls=Sectioned, section="Use a model", examples=("late.sgd flights/ -o why/ --id flight_id",))
@MODEL
@DATA
@click.option("-o", "--out", required=True, metavar="PATH", help="Folder, or a file name.parquet for one file.")
@OWN_LOSS
@output_flags
@settings_flags(("id", *SCORED))
def explain(
    model: str,
    data: tuple[str, ...],
    *,
    out: str,
    as_json: bool,
    quiet: bool,
    verbose: bool,
    config: str | None,
    **flags: Any,
) -> None:
    """Write what each column of every row of DATA adds to its score by MODEL, as Parquet.

    Intercept and contributions add up to the score. The same command goes on where a killed one was.
    """
    with open_reporter(as_json, quiet, verbose) as reporter:
        given = given_settings(flags, config)
        from streamsgd.model.compare import explain as run  # noqa: PLC0415
        from streamsgd.stream.stats import Account  # noqa: PLC0415

        account = Account(on_chunk=lambda now: reporter.scored(now.rows, now.total_rows))
        done = run(model, one_or_list(data), out, account=account, **given)
        reporter.line(written_line(done, out))
        result = {
            "command": "explain",
            "model": model,
            "out": out,
            "rows": done.rows,
            "files": done.files,
            "files_already_there": done.already_there,
            "counts": {"filtered": account.filtered, "skipped": account.skipped},
            **account_of(account, reporter),
        }
    print_json(result)


@click.command(cls=Sectioned, section="Look", examples=("late.sgd holdout/", "late.sgd holdout/ --rows 20000 --repeats 10"))
@MODEL
@DATA
@click.option("--rows", type=int, default=None, metavar="N", help="Score N rows of the data, 4096 if nobody says.")
@click.option("--repeats", type=int, default=None, metavar="N", help="Shuffle each column N times, 5 if nobody says.")
@OWN_LOSS
@output_flags
@settings_flags(("filter", "seed", "column_kind", "infinite", "unreadable", "io_timeout"))
def importance(
    model: str,
    data: tuple[str, ...],
    *,
    rows: int | None,
    repeats: int | None,
    as_json: bool,
    quiet: bool,
    verbose: bool,
    config: str | None,
    **flags: Any,
) -> None:
    """Say by how much the loss of MODEL grows when each column of DATA is shuffled, on a sample of rows.

    It works for every model; of a linear one, show and explain say more.
    """
    with open_reporter(as_json, quiet, verbose) as reporter:
        given = given_settings(flags, config)
        from streamsgd.model.explaining.importance import importance as run  # noqa: PLC0415
        from streamsgd.show.importance import importance_text  # noqa: PLC0415

        asked: dict[str, Any] = {name: value for name, value in (("rows", rows), ("repeats", repeats)) if value is not None}
        found = run(model, one_or_list(data), **asked, **given)
        for line in importance_text(found):
            reporter.line(line)
    print_json({"command": "importance", "model": model, **found._asdict()})


ROWS = (compare, explain, importance)
