"""Settings: every choice there is, its default, its range and its help text, in one place.

The command line makes a flag of each field, the environment a STREAMSGD_* variable, a TOML file a key.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
from msgspec import Meta, inspect

from streamsgd.errors import SettingsError
from streamsgd.policies import POLICIES, check_policies
from streamsgd.sizes import parse_bytes
from streamsgd.words import nearest

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Mapping

Names = tuple[str, ...]
Count = Annotated[int, Meta(ge=1)]
Share = Annotated[float, Meta(ge=0.0, lt=1.0)]
Positive = Annotated[float, Meta(gt=0.0)]


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What to learn from which columns, how, and within what limits."""

    target: Annotated[str, Meta(description="Column to predict.")]
    weight: Annotated[str | None, Meta(description="Column of row weights: each row's gradient is multiplied by it.")] = None
    features: Annotated[Names, Meta(description="Columns to learn from, names or globs; all that have no other role.")] = ()
    exclude: Annotated[Names, Meta(description="Columns to leave out, names or globs.")] = ()
    id: Annotated[Names, Meta(description="Columns that identify a row: never learned from, copied to predictions.")] = ()
    filter: Annotated[str | None, Meta(description='Rows to use, e.g. "year >= 2020 and fare > 0".')] = None

    task: Annotated[
        Literal["auto", "regression", "binary", "multiclass", "poisson"],
        Meta(description="Kind of target; auto looks at its type and values."),
    ] = "auto"
    classes: Annotated[Names, Meta(description="Classes of the target, so that the data is not scanned for them.")] = ()
    loss: Annotated[str, Meta(description="Loss, e.g. huber:delta=2; auto follows the task.")] = "auto"
    penalty: Annotated[str, Meta(description="Penalty, e.g. l2:l2=1e-4; the intercept is free.")] = "none"
    optimizer: Annotated[
        str,
        Meta(
            description="Optimizer, e.g. adam:beta1=0.8; auto is race in one pass and where there are categories or text, "
            "else adam."
        ),
    ] = "auto"
    learning_rate: Annotated[
        Positive | None, Meta(description="Learning rate; each optimizer has its own default, svrg one by the data.")
    ] = None
    schedule: Annotated[
        str,
        Meta(
            description="How the learning rate changes, e.g. cosine:warmup=100; auto is constant row by row, else cosine; "
            "ftrl and coin take none."
        ),
    ] = "auto"
    batch_size: Annotated[
        Count | Literal["full", "auto"],
        Meta(
            description="Rows per update: 1 is pure SGD, full is one update per epoch, auto is 64, 8 for svrg, or 1 row by row."
        ),
    ] = "auto"
    rate_scaling: Annotated[
        Literal["none", "auto", "linear", "sqrt"],
        Meta(description="How the rate, which is for batches of 64, follows --batch-size; auto is the optimizer's own rule."),
    ] = "none"
    clip_norm: Annotated[
        Positive | None, Meta(description="Scale the mean gradient of a batch down to this length; not the penalty's.")
    ] = None
    clip_value: Annotated[Positive | None, Meta(description="Clip every coordinate of it to this size, after --clip-norm.")] = (
        None
    )
    epochs: Annotated[
        Count | Literal["auto"],
        Meta(
            description="Passes over the data; auto makes at least a million row visits, in at most 10, or 3 row by row, or 20 "
            "of svrg, which measures in every other one."
        ),
    ] = "auto"
    average: Annotated[
        Annotated[float, Meta(ge=0.0)] | Literal["none", "auto"],
        Meta(
            description="Average the weights after every step from here on, in epochs, e.g. 0.05; auto is a tenth of the run."
        ),
    ] = "none"
    polish: Annotated[
        int,
        Meta(
            ge=0,
            description="Most passes of L-BFGS after the epochs, to the minimum of loss and penalty; 0 is none.",
        ),
    ] = 0
    standard_errors: Annotated[
        bool,
        Meta(
            description="Work out standard errors of the weights in one more pass, by the sandwich estimator; with --polish or "
            "--average."
        ),
    ] = False
    categorical: Annotated[Names, Meta(description="Columns of integers or others to take as categories, as strings are.")] = ()
    text: Annotated[Names, Meta(description="String columns to cut into words; sentences are found without this.")] = ()
    ngrams: Annotated[int, Meta(ge=1, le=8, description="Longest sequences of words of a text that count as features.")] = 1
    time_parts: Annotated[
        Names,
        Meta(description="Timestamps whose hour, weekday and month are categories too; ts.hour is for one part of ts alone."),
    ] = ()
    cross: Annotated[
        Names, Meta(description="Combinations that get weights, e.g. site*device; at most one member may be a number.")
    ] = ()
    bits: Annotated[
        Annotated[int, Meta(ge=8, le=30)] | Literal["auto"],
        Meta(description="Hashed values share 2^bits weights; auto follows the distinct values in the first look."),
    ] = "auto"
    scale: Annotated[
        Names,
        Meta(
            description="standard (the default), none, max-abs or robust, or COLUMN=one: what numbers and regression targets "
            "are centred and divided by."
        ),
    ] = ()
    transform: Annotated[
        Names,
        Meta(description="auto (the default), none, log1p or bins, or COLUMN=one: what is done to numbers before scaling."),
    ] = ()
    missing: Annotated[
        Names,
        Meta(
            description="mean (the default), median, zero, indicator or error, or COLUMN=one: what a null or NaN feature "
            "becomes; indicator is mean and a feature that is 1 there."
        ),
    ] = ()
    infinite: Annotated[Literal["error", "missing"], Meta(description="What an infinite feature value is.")] = "error"
    bad_rows: Annotated[
        Literal["error", "skip"], Meta(description="Rows whose target or weight is null, NaN or out of range.")
    ] = "error"
    unreadable: Annotated[Literal["error", "skip"], Meta(description="Row groups that cannot be read.")] = "error"
    precision: Annotated[Literal["float32", "float64"], Meta(description="Of rows and weights.")] = "float32"

    seed: Annotated[int, Meta(ge=0, description="Of all randomness.")] = 0
    shuffle: Annotated[str, Meta(description="Sampler: corgi, none, block or full-chunk.")] = "corgi"
    memory: Annotated[
        str | None, Meta(description="Bound on the resident memory of all processes, e.g. 4GB; default: half of the machine's.")
    ] = None
    chunk_rows: Annotated[Count | None, Meta(description="Rows mixed together; default: from the memory budget.")] = None

    validation: Annotated[Share, Meta(description="Share of rows held out by a stable hash and scored as they stream by.")] = (
        0.0
    )
    valid: Annotated[str | None, Meta(description="Data set to evaluate after every epoch.")] = None
    validate_every: Annotated[Count | None, Meta(description="Also evaluate after about this many rows.")] = None
    patience: Annotated[
        Count | None, Meta(description="Stop after this many evaluations without improvement and keep the best weights.")
    ] = None
    min_improvement: Annotated[float, Meta(ge=0.0, description="Relative improvement that counts, for --patience.")] = 1e-4

    checkpoint: Annotated[str | None, Meta(description="Folder of checkpoints; default: beside the model.")] = None
    checkpoint_every: Annotated[Positive, Meta(description="Seconds between checkpoints.")] = 60.0
    checkpoint_chunks: Annotated[Count | None, Meta(description="Chunks between checkpoints, beside the seconds.")] = None
    checkpoint_keep: Annotated[Count, Meta(description="Checkpoints kept.")] = 2
    resume: Annotated[
        Literal["auto", "never", "always"],
        Meta(description="Go on from a checkpoint: if there is one, never, or refuse to start without."),
    ] = "auto"
    time_limit: Annotated[Positive | None, Meta(description="Seconds after which to save a checkpoint and exit with 75.")] = (
        None
    )

    lanes: Annotated[
        Count | Literal["auto"],
        Meta(description="Streams of chunks that are learned apart and merged; auto is one per 4 GiB of rows, up to 64."),
    ] = "auto"
    combine: Annotated[
        Literal["auto", "average", "sync"],
        Meta(
            description="How lanes become one model: average after every chunk, or sync gradients in every step; auto is sync "
            "for batches of 4096 rows and more."
        ),
    ] = "auto"
    workers: Annotated[
        Count | None, Meta(description="Worker processes on this machine, each with --memory for itself; default: none.")
    ] = None
    scheduler: Annotated[
        str | None, Meta(description="Address of a Dask scheduler whose workers to use, e.g. tcp://10.0.0.1:8786.")
    ] = None
    straggler: Annotated[
        str,
        Meta(
            description="What is done about a lane that is late: again (done twice beyond 3 times the median, or again:TIMES), "
            "wait, or lose its rows: drop:LANES, deadline:SECONDS."
        ),
    ] = "again"
    threads: Annotated[Count | None, Meta(description="Reading threads; default: the CPU quota.")] = None
    executor: Annotated[
        Literal["dask", "inline"], Meta(description="Who reads: Dask in this process, or the calling thread.")
    ] = "dask"


RUN_ONLY = frozenset(
    [
        *("memory", "threads", "executor", "workers", "scheduler", "straggler", "resume", "time_limit"),
        *("checkpoint", "checkpoint_every", "checkpoint_chunks", "checkpoint_keep"),
    ]
)
"""Settings that may change between a run and its resumption: they do not touch the model."""


PREFIX = "STREAMSGD_"
"""Of environment variables: STREAMSGD_BATCH_SIZE is batch_size."""


@dataclass(frozen=True, slots=True)
class Setting:
    """One field of `Settings`, as help pages and error messages need it."""

    name: str
    description: str
    default: Any
    """None also where there is no default."""
    takes: str
    """What values there are, in words."""
    metavar: str
    """The same as command lines write it; empty for a switch."""
    choices: tuple[str, ...] = ()
    is_list: bool = False

    @property
    def flag(self) -> str:
        """Its flag on the command line."""
        return f"--{self.name.replace('_', '-')}"

    @property
    def variable(self) -> str:
        """Its environment variable."""
        return PREFIX + self.name.upper()


def describe() -> tuple[Setting, ...]:
    """Return every setting in the order of `Settings`."""
    return tuple(map(_setting, inspect.type_info(Settings).fields))  # type: ignore[attr-defined]


def _setting(field: Any) -> Setting:
    kinds = _kinds(field.type)
    takes, metavars = zip(*(_words(kind) for kind in kinds), strict=True)
    return Setting(
        field.name,
        field.type.extra_json_schema["description"],
        None if field.default is msgspec.NODEFAULT else field.default,
        " or ".join(takes),
        "|".join(filter(None, metavars)),
        tuple(str(value) for kind in kinds if isinstance(kind, inspect.LiteralType) for value in kind.values),
        isinstance(kinds[0], inspect.VarTupleType),
    )


def _kinds(kind: Any) -> list[Any]:
    if isinstance(kind, inspect.Metadata):
        return _kinds(kind.type)
    if isinstance(kind, inspect.UnionType):
        return [one for member in kind.types for one in _kinds(member)]
    return [] if isinstance(kind, inspect.NoneType) else [kind]


def _words(kind: Any) -> tuple[str, str]:
    words: dict[Any, Callable[[], tuple[str, str]]] = {
        inspect.StrType: lambda: ("text", "TEXT"),
        inspect.VarTupleType: lambda: ("a list of texts", "TEXT,..."),
        inspect.BoolType: lambda: ("true or false", ""),
        inspect.LiteralType: lambda: (" or ".join(kind.values), "|".join(kind.values)),
        inspect.IntType: lambda: (f"a whole number{_range(kind)}", "INTEGER"),
        inspect.FloatType: lambda: (f"a number{_range(kind)}", "NUMBER"),
    }
    return words[type(kind)]()


def _range(kind: Any) -> str:
    words = {"ge": "of at least", "gt": "above", "le": "of at most", "lt": "below"}
    limits = [f"{word} {getattr(kind, key):g}" for key, word in words.items() if getattr(kind, key) is not None]
    return f" {' and '.join(limits)}" if limits else ""


def make_settings(values: Mapping[str, Any], origins: Mapping[str, str] | None = None) -> Settings:
    """Check values of any origin (flags and variables are text) and fill in the defaults.

    Parameters
    ----------
    values
        By field of `Settings`; None counts as not given.
    origins
        Where each value came from, for messages, as of `gather`.

    Raises
    ------
    SettingsError
        A key is unknown (naming the nearest one) or a value is out of range.

    """
    known = Settings.__struct_fields__
    for key in values:
        if key not in known:
            raise SettingsError(f"unknown setting {key!r}{nearest(key, known)}")
    lists = {setting.name for setting in describe() if setting.is_list}
    given = {
        key: [str(value)] if key in lists and not isinstance(value, list | tuple) else value
        for key, value in values.items()
        if value is not None
    }
    if "classes" in given:
        given["classes"] = [str(value) for value in given["classes"]]
    try:
        settings = msgspec.convert(given, Settings, strict=False)
    except msgspec.ValidationError as error:
        if "missing required field" in str(error):
            raise SettingsError("no target: say which column to predict with --target") from None
        place = re.search(r"at `\$\.(\w+)", str(error))
        raise SettingsError(_refusal(place[1], given, origins or {}) if place else str(error)) from None
    _check_words(settings, origins or {})
    if settings.workers is not None and settings.scheduler is not None:
        raise SettingsError("--workers starts worker processes here, --scheduler has some elsewhere: pass one of them")
    return settings


def _check_words(settings: Settings, origins: Mapping[str, str]) -> None:
    """Refuse parts and sizes that mean nothing, before any file is touched."""
    from streamsgd.registry import PARTS, make  # noqa: PLC0415  what --help need not pay
    from streamsgd.stragglers import parse_straggler  # noqa: PLC0415

    checks: dict[str, Callable[[Any], Any]] = {kind: partial(make, kind) for kind in PARTS}
    checks |= {name: partial(check_policies, name) for name in POLICIES}
    for name, check in [*checks.items(), ("memory", parse_bytes), ("straggler", parse_straggler)]:
        value = getattr(settings, name)
        if value in (None, "auto"):
            continue
        try:
            check(value)
        except SettingsError as error:
            raise SettingsError(f"{origins.get(name, '--' + name)}: {error}") from None


def _refusal(name: str, given: Mapping[str, Any], origins: Mapping[str, str]) -> str:
    setting = next(setting for setting in describe() if setting.name == name)
    hint = nearest(str(given[name]), setting.choices) if setting.choices else ""
    near = hint if "did you mean" in hint else ""
    return f"{origins.get(name, setting.flag)}: {given[name]!r} is not {setting.takes}{near}"


def gather(
    flags: Mapping[str, Any] | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    config: str | os.PathLike[str] | None = None,
) -> tuple[dict[str, Any], dict[str, str]]:
    """Collect settings by precedence: flag over STREAMSGD_* variable over TOML file.

    Parameters
    ----------
    flags
        By field; None or an empty tuple is not given.
    environ
        Environment variables, all of them; default: those of this process.
    config
        TOML file whose keys are the fields; default: the file that STREAMSGD_CONFIG names, if any.

    Returns
    -------
    values, origins
        What to pass to `make_settings`.

    Raises
    ------
    SettingsError
        A variable or key is unknown, or the file is not TOML; the message says where it is.

    """
    import os  # noqa: PLC0415

    environ = os.environ if environ is None else environ
    config = environ.get(f"{PREFIX}CONFIG") if config is None else config
    settings = {setting.name: setting for setting in describe()}
    values, origins = _from_file(config, settings) if config is not None else ({}, {})
    variables = {setting.variable: setting for setting in settings.values()}
    for variable in sorted(key for key in environ if key.startswith(PREFIX) and key != f"{PREFIX}CONFIG"):
        if variable not in variables:
            raise SettingsError(f"environment variable {variable} is not a setting{nearest(variable, variables, most=0)}")
        setting, text = variables[variable], environ[variable]
        values[setting.name] = split_list(text) if setting.is_list else text
        origins[setting.name] = variable
    for name, value in (flags or {}).items():
        if value is not None and value != ():
            values[name], origins[name] = value, settings[name].flag if name in settings else name
    return values, origins


def _from_file(path: str | os.PathLike[str], settings: Mapping[str, Setting]) -> tuple[dict[str, Any], dict[str, str]]:
    import tomllib  # noqa: PLC0415

    try:
        with open(path, "rb") as file:  # noqa: PTH123
            values = tomllib.load(file)
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: is not TOML: {error}") from None
    for key in values:
        if key not in settings:
            raise SettingsError(f"{path}: unknown setting {key!r}{nearest(key, settings, most=0)}")
    return values, {key: f"{path}: {key}" for key in values}


def split_list(text: str) -> tuple[str, ...]:
    """Split at commas; a part in double quotes keeps its own."""
    import csv  # noqa: PLC0415

    return tuple(part for part in next(csv.reader([text], skipinitialspace=True), []) if part)


def identity(settings: Settings) -> dict[str, Any]:
    """Return the settings that decide the model's bits."""
    return {key: value for key, value in msgspec.to_builtins(settings).items() if key not in RUN_ONLY}
