"""Commands about the machine: is it fit, and does its shell know us."""

from __future__ import annotations

import click

from streamsgd.cli.common import open_reporter, print_found
from streamsgd.cli.flags import complete_path, output_flags
from streamsgd.cli.pages import Sectioned

HERE = "This machine"

WHERE = {
    "bash": 'eval "$(streamsgd completion bash)"  in ~/.bashrc',
    "zsh": 'eval "$(streamsgd completion zsh)"  in ~/.zshrc',
    "fish": "streamsgd completion fish > ~/.config/fish/completions/streamsgd.fish",
}
"""How a shell learns of completions."""


@click.command(cls=Sectioned, section=HERE, examples=("", "s3://bucket/data/"))
@click.argument("data", nargs=-1, metavar="[DATA]...", shell_complete=complete_path)
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
        from streamsgd.data.filesystems import set_io_timeout  # noqa: PLC0415
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


MACHINE = (doctor, completion)
