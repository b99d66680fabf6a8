"""Help pages: what matters first, the rest by name, everything with --help-all."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from streamsgd.cli.stdout import SafeHelp, echo

if TYPE_CHECKING:
    from collections.abc import Sequence

SHORT_PAGE = 24
"""Options up to which a page shows them all."""

MARGIN = 28
"""Letters before the names of options that are only listed."""


class Sectioned(SafeHelp):
    """A command whose help page groups its options.

    Parameters
    ----------
    args, settings
        As click has them.
    first
        Names of the options that matter first, in their order. Without any, all are shown.
    examples
        Command lines, without the name of the program.
    section
        Heading of the command on the page of the program.

    """

    def __init__(
        self, *args: Any, first: Sequence[str] = (), examples: Sequence[str] = (), section: str = "", **settings: Any
    ) -> None:
        self._given: list[Any] = []
        self._made = False
        super().__init__(*args, **settings)
        self.first, self.examples, self.section = first, examples, section

    @property
    def params(self) -> list[click.Parameter]:
        """The options and arguments. Those that are made by a function are made now: nobody reads those of other commands."""
        if not self._made:
            self._made = True
            self._given = [one for given in self._given for one in ([given] if isinstance(given, click.Parameter) else given())]
            self._given.append(_help_all())
        return self._given

    @params.setter
    def params(self, given: list[Any]) -> None:
        self._given, self._made = given, False

    def format_options(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        """Write examples, then the options: the first ones, or all under their headings."""
        write_examples(formatter, [f"{context.command_path} {example}" for example in self.examples])
        sections: dict[str, list[Any]] = {}
        for option in self.get_params(context):
            if isinstance(option, click.Option) and option.get_help_record(context) is not None:
                sections.setdefault(getattr(option, "section", ""), []).append(option)
        others = sections.pop("", [])
        if not self.first or len(self.params) <= SHORT_PAGE or context.meta.get("streamsgd.all"):
            for heading, options in sections.items():
                _write(heading, options, context, formatter)
            _write("Options", others, context, formatter)
            return
        every = [option for options in [others, *sections.values()] for option in options]
        first = [option for name in self.first for option in every if option.name == name]
        _write("What matters first", first, context, formatter)
        with formatter.section("The rest by name, which --help-all explains"):
            for heading, options in sections.items():
                _write_names(heading, [option.opts[0] for option in options if option not in first], formatter)
        _write("Options", [option for option in others if option not in first], context, formatter)


def _help_all() -> click.Option:
    show = "Show every option with what it does, and exit."
    return click.Option(["--help-all"], is_flag=True, is_eager=True, expose_value=False, help=show, callback=_show_all)


def _write(heading: str, options: Sequence[Any], context: click.Context, formatter: click.HelpFormatter) -> None:
    with formatter.section(heading):
        formatter.write_dl([option.get_help_record(context) for option in options])


def _write_names(heading: str, names: Sequence[str], formatter: click.HelpFormatter) -> None:
    from textwrap import wrap  # noqa: PLC0415

    room = max(40, formatter.width - MARGIN)
    for k, line in enumerate(wrap(" ".join(names), room, break_on_hyphens=False)):
        formatter.write(f"{'' if k else '  ' + heading:{MARGIN}}{line}\n")


def _show_all(context: click.Context, _option: click.Parameter, wanted: bool) -> None:
    if wanted:
        context.meta["streamsgd.all"] = True
        echo(context.get_help())
        context.exit()


def write_examples(formatter: click.HelpFormatter, examples: Sequence[str]) -> None:
    """Write command lines under a heading."""
    if examples:
        with formatter.section("Examples" if len(examples) > 1 else "Example"):
            for example in examples:
                formatter.write(f"{'':{formatter.current_indent}}{example}\n")


class Program(SafeHelp, click.Group):
    """The program: its page groups commands by what they are for."""

    examples: Sequence[str] = ()
    sections: Sequence[str] = ()
    """Headings, in their order."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """Return the names of the commands, in the order in which they were added."""
        return list(self.commands)

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands under their headings."""
        write_examples(formatter, self.examples)
        commands = [(name, self.commands[name]) for name in self.list_commands(context)]
        limit = formatter.width - 6 - max(len(name) for name, _ in commands)
        for heading in self.sections:
            rows = [(n, c.get_short_help_str(limit)) for n, c in commands if self._heading(c) == heading]
            if rows:
                with formatter.section(heading):
                    formatter.write_dl(rows)

    def _heading(self, command: click.Command) -> str:
        section = getattr(command, "section", "")
        return section if section in self.sections else self.sections[-1]
