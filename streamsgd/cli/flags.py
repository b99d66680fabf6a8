"""The flags of the command line, made from the settings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from streamsgd.cli.given import check_data
from streamsgd.settings.describe import Setting, describe
from streamsgd.settings.gather import split_list

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from click.shell_completion import CompletionItem


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
    *("batch_size", "memory", "chunk_rows", "threads", "io_timeout", "unreadable"),
)

MEASURED = (
    *INSPECTED,
    *("weight", "model", "loss", "optimizer", "shuffle", "values", "missing_columns", "infinite", "bad_rows"),
    *("time_limit", "lanes", "workers", "scheduler", "straggler", "executor", "cpu"),
)
"""Settings that evaluate (and predict), inspect, and noise take."""

PILOTED = (
    *(
        name
        for name in MEASURED
        if name not in ("model", "batch_size", "time_limit", "lanes", "workers", "scheduler", "straggler")
    ),
    *("penalty", "schedule", "rate_scaling", "steps", "clip_norm", "clip_value", "validation"),
)
"""Settings that pilot takes, beside those that it varies."""

TUNABLE = tuple(
    setting.name
    for setting in describe()
    if setting.name
    not in {
        *("workers", "scheduler", "straggler", "lanes", "combine", "valid", "valid_filter", "start", "polish"),
        *(
            "standard_errors",
            "noise",
            "rare",
            "conformal",
            "recalibrate",
            "phases",
            "method",
            "prior",
            "temperature",
            "chains",
            "draws",
        ),
    }
)
"""Settings that tune takes: of runs in this process, in epochs alone."""

WARMED = (
    *(
        "task",
        "model",
        "loss",
        "rare",
        "penalty",
        "optimizer",
        "learning_rate",
        "schedule",
        "batch_size",
        "clip_norm",
        "clip_value",
    ),
    *(
        "average",
        "polish",
        "standard_errors",
        "noise",
        "conformal",
        "ngrams",
        "bits",
        "scale",
        "transform",
        "precision",
        "shuffle",
    ),
    *("memory", "validation", "lanes", "combine", "scheduler", "threads", "cpu", "executor"),
)
"""Settings that warmup takes: those that kernels may depend on, and that need no data."""

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
            shell_complete=completer(setting),
        )
        self.section = section


def completer(setting: Setting) -> Callable[[click.Context, click.Parameter, str], list[str]] | None:
    """Return what completes the values of a setting in a shell: those that have names."""
    if setting.choices:
        return lambda _context, _option, begun: [choice for choice in setting.choices if choice.startswith(begun)]
    if setting.name not in ("model", "loss", "penalty", "optimizer", "schedule", "shuffle"):
        return None

    def parts(_context: click.Context, _option: click.Parameter, begun: str) -> list[str]:
        from streamsgd.settings.registry import PARTS  # noqa: PLC0415  what --help need not pay

        auto = () if setting.name == "model" else ("auto",)
        return [name for name in (*auto, *PARTS[setting.name]) if name.startswith(begun)]

    return parts


def _default(setting: Setting) -> str:
    if setting.default is None or setting.default == ():
        return ""
    return f"  [default: {str(setting.default).lower() if setting.metavar == '' else setting.default}]"


def _split(_context: click.Context, _option: click.Parameter, texts: Sequence[str]) -> tuple[str, ...] | None:
    return tuple(part for text in texts for part in split_list(text)) or None


def settings_flags(names: Sequence[str] = ()) -> Callable[[Any], Any]:
    """Add the flags of these settings, or of all, and --config; `pages.Sectioned` makes them when they are asked for."""

    def add(function: Any) -> Any:
        function = click.option("--config", metavar="FILE", help="TOML file of settings, keys as the flags with _ for -.")(
            function
        )
        function.__click_params__.append(lambda: made_flags(names))
        return function

    return add


def made_flags(names: Sequence[str] = ()) -> list[Flag]:
    """Return the flags of these settings, or of all, in the order of `Settings`."""
    section, flags = "", []
    for setting in describe():
        section = SECTIONS.get(setting.name, section)
        if not names or setting.name in names:
            flags.append(Flag(setting, section))
    return flags


def output_flags(function: Any) -> Any:
    """Add the flags of what is shown, and how, which every command has."""
    function = click.option("--verbose", is_flag=True, help="Show also what is logged at levels INFO and DEBUG.")(function)
    function = click.option("--quiet", is_flag=True, help="Show nothing on stderr but errors.")(function)
    return click.option(
        "--json",
        "as_json",
        is_flag=True,
        help="Print JSON on stdout, and progress on stderr as JSON lines with time and level.",
    )(function)


def complete_path(_context: click.Context, _parameter: click.Parameter, begun: str) -> list[CompletionItem]:
    """Let the shell complete paths."""
    from click.shell_completion import CompletionItem  # noqa: PLC0415  only where a shell asks

    return [CompletionItem(begun, type="file")]


DATA = click.argument("data", nargs=-1, required=True, metavar="DATA...", shell_complete=complete_path, callback=check_data)

MODEL = click.argument("model", shell_complete=complete_path)

ALSO = click.option(
    "--also",
    multiple=True,
    metavar="MODEL",
    shell_complete=complete_path,
    help="Another model for the same rows, from one decode; what is said of it goes by the name of its file.",
)

THRESHOLD = click.option(
    "--threshold",
    type=click.FloatRange(0.0, 1.0),
    metavar="NUMBER",
    help="Of two classes: the probability from which on a row counts as of the second; adds precision, recall and the like.",
)

CONFUSION = click.option("--confusion", is_flag=True, help="Add which classes are taken for which.")

AT_PRECISION = ("0.5,0.9", "Precisions whose largest recall to tell, of a binary target.")

TOP = ("0.001,0.01,0.1", "Highest scores to look at: shares of the rows, or numbers of rows.")


def measured_flags(function: Any) -> Any:
    """Add the flags of what is measured beside the metrics of training, whether of one model or of several."""
    function = NUMBERS("--top", default=TOP[0], help=TOP[1])(function)
    function = NUMBERS("--at-precision", default=AT_PRECISION[0], help=AT_PRECISION[1])(function)
    return THRESHOLD(CONFUSION(function))


OWN_LOSS = click.option(
    "--loss", metavar="TEXT", help="Where the loss of MODEL is, if it is one of your own: package.module:Class."
)

OWN_KINDS = click.option(
    "--column-kind",
    multiple=True,
    metavar="TEXT",
    help="Where kinds of columns of MODEL are, if they are of your own: package.module:Class.",
)


def NUMBERS(flag: str, *, default: str, help: str) -> Callable[[Any], Any]:  # noqa: A002, N802  as click has it, and as its neighbours
    """Return an option of numbers, split at commas."""
    return click.option(
        flag, default=default, metavar="NUMBER,...", help=f"{help}  [default: {default}]", callback=_numbers, show_default=False
    )


def _numbers(_context: click.Context, option: click.Parameter, text: str) -> tuple[float, ...]:
    try:
        return tuple(map(float, split_list(text)))
    except ValueError:
        raise click.BadParameter(f"{text!r} is not a list of numbers, such as 0.5,0.9", param=option) from None
