"""The flags of the command line, made from the settings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from streamsgd.settings.describe import Setting, describe
from streamsgd.settings.gather import split_list

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


SECTIONS = {
    "target": "Columns and rows",
    "task": "Learning",
    "seed": "Shuffle and memory",
    "validation": "Validation",
    "checkpoint": "Checkpoints and stopping",
    "lanes": "Execution",
}
"""Headings of the help pages, by the first setting under each."""

SCORED = (
    *("column_kind", "filter", "infinite", "unreadable"),
    *("memory", "threads", "executor", "workers", "scheduler", "io_timeout"),
)

CALIBRATED = ("bad_rows", *(name for name in SCORED if name not in ("workers", "scheduler")))
"""Settings that calibrate takes."""

EVALUATED = ("weight", "bad_rows", *SCORED)

INSPECTED = (
    *("target", "features", "exclude", "id", "filter", "task", "classes", "seed", "precision"),
    *("categorical", "text", "ngrams", "column_kind", "time_parts", "cross", "bits", "scale", "transform", "missing"),
    *("batch_size", "memory", "chunk_rows", "threads", "io_timeout"),
)

MEASURED = (
    *INSPECTED,
    *("weight", "loss", "optimizer", "shuffle", "values", "missing_columns", "infinite", "bad_rows", "unreadable"),
    *("time_limit", "lanes", "workers", "scheduler", "straggler", "executor", "cpu"),
)
"""Settings that evaluate (and predict), inspect, and noise take."""

SHUFFLED = ("seed", "memory", "io_timeout")
"""Settings that shuffle takes."""


class Flag(click.Option):
    """An option made from a setting; its section is a heading of the help page."""

    def __init__(self, setting: Setting, section: str) -> None:
        switch = setting.metavar == ""
        name, plain = setting.flag, f"--{setting.name.replace('_', '-')}"
        plain = f"{plain}/--no-{plain[2:]}" if switch else plain
        super().__init__(
            [*dict.fromkeys((f"{name}/--no-{name[2:]}" if switch else name, plain)), setting.name],
            type=bool if switch else str,
            default=None,
            multiple=setting.is_list,
            metavar=None if switch else setting.metavar,
            help=setting.description + _default(setting),
            callback=_split if setting.is_list else None,
        )
        self.section = section


def _default(setting: Setting) -> str:
    if setting.default is None or setting.default == ():
        return ""
    return f"  [default: {str(setting.default).lower() if setting.metavar == '' else setting.default}]"


def _split(_context: click.Context, _option: click.Parameter, texts: Sequence[str]) -> tuple[str, ...] | None:
    return tuple(part for text in texts for part in split_list(text)) or None


class Sectioned(click.Command):
    """A command whose help page groups its options."""

    def format_options(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options under their headings."""
        sections: dict[str, list[tuple[str, str]]] = {"Options": []}
        for option in self.get_params(context):
            if (record := option.get_help_record(context)) is not None:
                sections.setdefault(getattr(option, "section", "Options"), []).append(record)
        sections["Options"] = sections.pop("Options")
        for heading, records in sections.items():
            with formatter.section(heading):
                formatter.write_dl(records)


def settings_flags(names: Sequence[str] = ()) -> Callable[[Any], Any]:
    """Add the flags of these settings, or of all, and --config."""

    def add(function: Any) -> Any:
        function = click.option("--config", metavar="FILE", help="TOML file of settings, keys as the flags with _ for -.")(
            function
        )
        section, flags = "", []
        for setting in describe():
            section = SECTIONS.get(setting.name, section)
            if not names or setting.name in names:
                flags.append((setting, section))
        for setting, heading in reversed(flags):
            function.__click_params__.append(Flag(setting, heading))
        return function

    return add


def output_flags(function: Any) -> Any:
    """Add the flags of what is shown meanwhile."""
    function = click.option("--verbose", is_flag=True, help="Show also what is logged at levels INFO and DEBUG.")(function)
    function = click.option("--quiet", is_flag=True, help="Show nothing on stderr but errors.")(function)
    return click.option("--json", "as_json", is_flag=True, help="Progress on stderr as JSON lines.")(function)


DATA = click.argument("data", nargs=-1, required=True, metavar="DATA...")

OWN_LOSS = click.option(
    "--loss", metavar="TEXT", help="Where the loss of MODEL is, if it is one of your own: package.module:Class."
)

OWN_KINDS = click.option(
    "--column-kind",
    multiple=True,
    metavar="TEXT",
    help="Where kinds of columns of MODEL are, if they are of your own: package.module:Class.",
)

AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
