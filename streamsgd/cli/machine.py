"""Commands about the machine: is it fit, and does its shell know us."""

from __future__ import annotations

from typing import Any

import click

from streamsgd.cli.common import given_settings, open_reporter, print_found
from streamsgd.cli.flags import WARMED, complete_path, output_flags, settings_flags
from streamsgd.cli.given import check_data
from streamsgd.cli.pages import Sectioned
from streamsgd.settings.gather import split_list

HERE = "This machine"

WHERE = {
    "bash": 'eval "$(streamsgd completion bash)"  in ~/.bashrc',
    "zsh": 'eval "$(streamsgd completion zsh)"  in ~/.zshrc',
    "fish": "streamsgd completion fish > ~/.config/fish/completions/streamsgd.fish",
}
"""How a shell learns of completions."""


@click.command(cls=Sectioned, section=HERE, examples=("", "s3://bucket/data/"))
@click.argument("data", nargs=-1, metavar="[DATA]...", shell_complete=complete_path, callback=check_data)
@click.option(
    "--io-timeout",
    type=click.FloatRange(min=10.0),
    default=60.0,
    metavar="NUMBER",
    help="Seconds of silence after which a storage is given up.  [default: 60]",
)
@output_flags
def doctor(data: tuple[str, ...], *, io_timeout: float, as_json: bool, quiet: bool, verbose: bool) -> None:
    """Check this machine: versions, processors, memory, the cache of kernels, room on disk, and whether DATA can be reached.

    The exit code is 2 where something is wrong.
    """
    with open_reporter(as_json, quiet, verbose):
        from streamsgd.data.stores.filesystems import set_io_timeout  # noqa: PLC0415
        from streamsgd.show.machine import examine, machine_text  # noqa: PLC0415

        set_io_timeout(io_timeout)
        found = examine(data)
        print_found(found, machine_text, as_json)
    if found["problems"]:
        click.get_current_context().exit(2)


@click.command(cls=Sectioned, section=HERE, examples=("bash",))
@click.argument("shell", type=click.Choice(list(WHERE)))
@output_flags
def completion(shell: str, *, as_json: bool, quiet: bool, verbose: bool) -> None:  # noqa: ARG001  it says nothing else
    """Print what makes SHELL complete commands, flags and their values.

    For bash put this line in ~/.bashrc: eval "$(streamsgd completion bash)"
    """
    from click.shell_completion import get_completion_class  # noqa: PLC0415

    program = click.get_current_context().find_root().command
    kind = get_completion_class(shell)
    assert kind is not None, "click knows these three"  # noqa: S101  for the type checker
    script = kind(program, {}, "streamsgd", "_STREAMSGD_COMPLETE").source()
    print_found({"shell": shell, "use": WHERE[shell], "script": script}, lambda found: [found["script"]], as_json)


@click.command(
    cls=Sectioned,
    section=HERE,
    first=("columns", "task", "loss", "optimizer", "penalty", "validation", "precision", "memory", "scheduler", "cpu"),
    examples=("--cpu portable", "--columns values --task binary --validation 0.1", "--scheduler tcp://10.0.0.1:8786"),
)
@click.option(
    "--columns",
    multiple=True,
    metavar="KIND,...",
    help="Tables that are to come: numbers for numbers alone, values for those with categories or texts.  [default: both]",
)
@output_flags
@settings_flags(WARMED)
def warmup(*, columns: tuple[str, ...], as_json: bool, quiet: bool, verbose: bool, config: str | None, **flags: Any) -> None:
    """Compile the kernels that later commands of these settings need, in an image or on a cluster, so that none of them waits.

    They are kept where `doctor` says, which NUMBA_CACHE_DIR decides; with --cpu portable for any x86-64 machine, of which later
    commands are told by --cpu portable or STREAMSGD_CPU=portable.
    """
    with open_reporter(as_json, quiet, verbose):
        given = given_settings(flags, config)
        from streamsgd.show.machine import warmed_text  # noqa: PLC0415
        from streamsgd.training.warmup import COLUMNS, warm_up  # noqa: PLC0415

        kinds = tuple(part for text in columns for part in split_list(text)) or COLUMNS
        print_found(warm_up(kinds, given).to_dict(), warmed_text, as_json)


MACHINE = (doctor, warmup, completion)
