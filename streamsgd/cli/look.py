"""Commands that look at a model, or at what there is."""

from __future__ import annotations

from typing import Any

import click

from streamsgd.cli.common import given_settings, one_or_list, open_reporter, print_found, print_json
from streamsgd.cli.flags import MODEL, OWN_KINDS, OWN_LOSS, complete_path, output_flags, settings_flags
from streamsgd.cli.given import check_data
from streamsgd.cli.pages import Sectioned


@click.command(cls=Sectioned, section="Look", examples=("late.sgd --top 20",))
@MODEL
@click.option("--lineage", is_flag=True, help="Show only the runs that led to the model, the first one first.")
@click.option("--top", type=click.IntRange(min=0), metavar="N", help="Show the N heaviest columns only.")
@OWN_LOSS
@OWN_KINDS
@output_flags
def show(
    model: str,
    *,
    top: int | None,
    lineage: bool,
    loss: str | None,
    column_kind: tuple[str, ...],
    as_json: bool,
    quiet: bool,
    verbose: bool,
) -> None:
    """Show MODEL: what it was trained on, its metrics, and its weights in the units of the columns."""
    with open_reporter(as_json, quiet, verbose):
        from streamsgd.model.read import load  # noqa: PLC0415
        from streamsgd.show.model import lineage_text, model_summary, model_text  # noqa: PLC0415
        from streamsgd.training.resuming.start import lineage_of  # noqa: PLC0415

        found = load(model, loss=loss, column_kind=column_kind)
        if lineage:
            print_found({"lineage": lineage_of(found)}, lineage_text, as_json)
        else:
            print_found(model_summary(found, top), model_text, as_json)


@click.command(cls=Sectioned, section="Use a model", examples=("late.sgd --to json -o late.json",))
@MODEL
@click.option(
    "--to", required=True, type=click.Choice(["json", "numpy", "onnx"]), help="JSON, arrays of NumPy (.npz), or ONNX."
)
@click.option("-o", "--out", required=True, metavar="FILE", help="Where to write it.")
@output_flags
def export(model: str, *, to: str, out: str, as_json: bool, quiet: bool, verbose: bool) -> None:
    """Write what scoring needs of MODEL for other programs, and for streamsgd.serving."""
    with open_reporter(as_json, quiet, verbose):
        from streamsgd.data.stores.output import check_no_model  # noqa: PLC0415
        from streamsgd.model.exporting.export import export_model  # noqa: PLC0415
        from streamsgd.model.read import load  # noqa: PLC0415

        check_no_model("--out", out, model)
        export_model(load(model), out, to)
        print_json({"command": "export", "model": model, "out": out, "to": to})


@click.command(cls=Sectioned, section="Look")
@output_flags
def parts(*, as_json: bool, quiet: bool, verbose: bool) -> None:  # noqa: ARG001  it has nothing to say beside
    """List every loss, penalty, optimizer, schedule and sampler, with fields, defaults and source.

    A part is written as name:field=value,field=value, and one of your own as
    package.module:Class,field=value.
    """
    from streamsgd.show.parts import list_parts, parts_text  # noqa: PLC0415

    print_found(list_parts(), parts_text, as_json)


@click.command(cls=Sectioned, section="Look", examples=("late.sgd -o late.html", "late.sgd holdout/ -o late.html"))
@MODEL
@click.argument("data", nargs=-1, metavar="[DATA]...", shell_complete=complete_path, callback=check_data)
@click.option("-o", "--out", required=True, metavar="FILE", help="Where to write the HTML file.")
@OWN_LOSS
@output_flags
@settings_flags(("column_kind", "filter", "infinite", "bad_rows", "unreadable", "memory", "io_timeout"))
def report(
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
    """Write a report of MODEL as one HTML file, with its predictions of DATA, if that is given, in pictures."""
    with open_reporter(as_json, quiet, verbose) as reporter:
        given = given_settings(flags, config)
        from streamsgd.show.report import report as run  # noqa: PLC0415

        run(model, out, one_or_list(data) if data else None, **given)
        reporter.line(f"wrote {out}")
    print_json({"command": "report", "model": model, "out": out})


LOOKING = (show, report, export, parts)
