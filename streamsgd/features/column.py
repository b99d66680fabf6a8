"""What one file says of one kind of column: the protocols behind which kinds decide, encode, check and explain.

The chooser (`choose.py`), the encoder (`encoder.py`), the checks of data and the pages of `inspect` and `show` are loops over
kinds. By kind and not by column, because rows are written by one call of a kernel per kind: 14 ns a row of 28 columns, against
105 with a call per column.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, Self

import numpy as np

from streamsgd.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from streamsgd.features.hashing import Hashed
    from streamsgd.kernels.structs.block import Block
    from streamsgd.settings.fields import Settings


class NoValuesError(DataError):
    """A column holds no value in any row, so that nothing can be learned from it."""

    def __init__(self, name: str) -> None:
        super().__init__(f"feature {name!r} has no value in any row; leave it out with --exclude '{name}'")
        self.name = name


class Limits(NamedTuple):
    """How much of each piece of the sample a profile may keep."""

    rows: int | None
    """Rows in which values are counted; None for all of them."""
    values: int
    """Values of a column of numbers that are kept, for quantiles."""


class Profile(Protocol):
    """What a sample says of a column; profiles of its pieces are joined in their order."""

    def join(self, other: Self) -> None:
        """Take in what another piece of the sample says."""


@dataclass(frozen=True)
class Candidate:
    """A column that a kind is asked about."""

    name: str
    type: Any
    """Its Arrow type."""
    settings: Settings
    asked: str | None = None
    """The kind that the settings name for it."""
    whole: bool = True
    """Whether the sample is all of the data."""
    mixed: bool = False
    """Whether rows are lists of entries anyway, because of other columns."""
    features: frozenset[str] = frozenset()
    """Names of all features."""
    sentinels: bool = False
    """Whether some of its numbers stand for missing, which says more than nothing: it gets an indicator."""
    scan: Callable[[], Iterator[Any]] = lambda: iter(())
    """Reads the column over all of the data, as Arrow columns one after another."""


def check_has_values(column: Candidate, profile: Any) -> None:
    """Refuse a column of which every row of the look is null, if all others are, too.

    Raises
    ------
    NoValuesError
        It holds no value.

    """
    if profile.nulls < profile.rows or (not column.whole and any(len(some) > some.null_count for some in column.scan())):
        return
    raise NoValuesError(column.name)


class Number(NamedTuple):
    """One number per row of a block, and how to say its weight in units of its column."""

    name: str
    type: str
    shift: float | None = None
    """The number is (value - shift) * scale; None if it is none of a column's values ..."""
    scale: float | None = None
    fill: float | None = None
    """... and this where the value is missing."""

    @property
    def imputed(self) -> float | None:
        """What a missing value counts as, in units of the column."""
        if self.fill is None:
            return None
        return self.fill / (1.0 if self.scale is None else self.scale) + (self.shift or 0.0)


class Needs(NamedTuple):
    """What the columns of one kind take of a row, and of the weights."""

    numbers: tuple[Number, ...] = ()
    slots: tuple[str, ...] = ()
    """Coordinates that lie in the row: of each the name of the number that multiplies it, or ''."""
    n_hashed: int = 0
    """How many of the slots point into the hashed space."""
    weights: int = 0
    """Weights of their own, beside those of numbers and of the hashed space."""
    ragged: int = 0
    """Columns whose entries lie elsewhere, all of them hashed, ..."""
    entries: float = 0.0
    """... and how many entries they have per row."""


class Places(NamedTuple):
    """Where the columns of one kind begin."""

    number: int
    """Column of a block with the first number; its coordinate too."""
    slot: int
    """Column of a block with the first slot."""
    weight: int
    """Coordinate of the first weight of their own."""
    ragged: int
    """Number of the first ragged column."""
    width: int
    """Numbers per row, of all kinds; after them come the target and the row's weight."""
    space: Hashed | None
    """The hashed space, if there is one."""

    @property
    def hashed(self) -> Hashed:
        """The hashed space.

        Raises
        ------
        DataError
            There is none.

        """
        if self.space is None:
            raise DataError("columns are hashed but the model has no hashed space")
        return self.space


class Destination(NamedTuple):
    """Where rows go."""

    dest: np.ndarray
    """int32 (n_rows,): the row of the block for each row, -1 for a dropped one."""
    block: Block
    y: np.ndarray | None = None
    """float64 (n_rows,): targets, or None to leave them 0."""
    weight: np.ndarray | None = None
    """float64 (n_rows,): weights, or None to leave them 1."""


def _no_counts() -> np.ndarray:
    return np.zeros(0, np.int64)


@dataclass
class Scattered:
    """What writing rows into a block found."""

    missing: np.ndarray = field(default_factory=_no_counts)
    """int64 (n,): missing values among the rows kept, by number."""
    infinite: np.ndarray = field(default_factory=_no_counts)
    """int64: infinite ones, or rows that have one, one for each name in `KindEncoder.finite`."""
    pools: list[np.ndarray] = field(default_factory=list)
    """Memory that rows point to: to be kept as long as they are."""

    @classmethod
    def joined(cls, parts: Sequence[Scattered]) -> Scattered:
        """Return what several kinds found, in their order."""
        return cls(
            np.concatenate([_no_counts(), *(part.missing for part in parts)]),
            np.concatenate([_no_counts(), *(part.infinite for part in parts)]),
            [pool for part in parts for pool in part.pools],
        )


class Label(NamedTuple):
    """What a weight stands for."""

    column: str
    value: str
    coordinate: int
    rows: int = 0
    """How many of the rows that were counted in training had it; 0 where none were."""


class KindEncoder(Protocol):
    """The columns of one kind made ready: Arrow columns in, rows of a block out."""

    sources: tuple[str, ...]
    """Columns that are read."""
    dictionaries: frozenset[str] = frozenset()
    """Those to read as dictionaries, so that each distinct value is looked at once."""
    finite: tuple[str, ...] = ()
    """Columns that infinite values are counted for."""
    filled: tuple[tuple[str, str], ...] = ()
    """The name and the column of each number that missing values are counted for."""
    counted: frozenset[str] = frozenset()
    """Columns whose most frequent values are wanted, to name weights of the hashed space."""

    def scatter(self, columns: Mapping[str, Any], rows: Destination) -> Scattered:
        """Write rows to their places in a block: all columns of the kind by one call of a kernel."""
        ...

    def count(self, columns: Mapping[str, list[Any]]) -> dict[str, list[tuple[str, int]]]:
        """Return the most frequent values, the first of them first, from the parts of each column of `counted`."""
        return {}

    def labels(self, frequent: Mapping[str, Sequence[tuple[str, int]]]) -> list[Label]:
        """Return what weights stand for, but those of numbers; `frequent` is what `count` returned, over all rows counted."""
        return []


class ColumnKind(Protocol):
    """One kind of column: one file decides, profiles, encodes, checks and explains it.

    What it decides about a column is a `config`: a frozen msgspec struct with a `name` (of the feature) and a `column` (of the
    data), kept in the model as JSON.
    """

    name: str
    config: type[Any]
    what: str
    """What a column of it holds, for messages."""
    dictionaries: bool = False
    """Whether its profile can take strings as dictionaries, which are faster to read."""
    dense: bool = False
    """Whether it becomes numbers only, so that rows need not be lists of entries."""

    def accepts(self, kind: Any, asked: str | None) -> bool:
        """Whether columns of an Arrow type may be of this kind; `asked` is the kind that the settings name, or None."""
        ...

    def profile(self, column: Any, limits: Limits) -> Any:
        """Return what one piece of the sample, an Arrow column, says of a column; see `Profile`."""
        ...

    def choose(self, column: Candidate, profile: Any) -> list[Any]:
        """Return the configs of a column, or none, which is "not for me": then the next kind in `KINDS` is asked.

        Raises
        ------
        DataError, SettingsError
            The column is of this kind and cannot be used; the message says what to do.

        """
        ...

    def combine(self, chosen: Sequence[Any], roles: Any, schema: Any, settings: Settings) -> list[Any]:
        """Return further configs that the settings ask for, given all that were chosen before."""
        return []

    def place(self, configs: Sequence[Any], first: int) -> tuple[Any, ...]:
        """Return the configs with what they keep of where their own weights begin."""
        return tuple(configs)

    def needs(self, configs: Sequence[Any]) -> Needs:
        """Return what these configs take of a row and of the weights."""
        ...

    def distinct(self, configs: Sequence[Any], n_rows: int) -> int:
        """Return about how many distinct values of these configs share the hashed space."""
        return 0

    def encoder(self, configs: Sequence[Any], places: Places) -> KindEncoder:
        """Return the encoder of these configs."""
        ...

    def sources(self, config: Any) -> tuple[str, ...]:
        """Return the columns of the data that a config reads."""
        return (config.column,)

    def check(self, configs: Sequence[Any], schema: Any, data: str) -> None:
        """Refuse data without the columns of these configs, or with columns of another kind.

        Raises
        ------
        DataError
            It does; the message names the column, and the data by `data`.

        """
        for name in dict.fromkeys(name for config in configs for name in self.sources(config)):
            if name not in schema.names:
                raise DataError(f"{data} has no column {name!r}, which the model was trained with")
            found = schema.field(name).type
            if not self.accepts(found, self.name):
                raise DataError(f"column {name!r} of {data} is of type {found}; the model needs {self.what} there")

    def explain(self, config: Any) -> str:
        """Return what a column becomes, in words."""
        ...

    def why(self, profile: Any, *, whole: bool) -> str:
        """Return what a choice rests on, in words; `whole` is whether the profile is of all of the data."""
        return ""
