"""What a checkpoint says, checked before a run goes on from it: a checksum does not say who wrote it."""

from __future__ import annotations

import hashlib
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from msgspec import Meta

from streamsgd.errors import ModelError, StreamSGDError
from streamsgd.model.validate import check_arrays, check_values, converted, read_encoding, read_target, refuse, spec_like
from streamsgd.settings.registry import PARTS
from streamsgd.training.classes.rare import KINDS, Thinner

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import numpy as np

    from streamsgd.data.stores.files import FileRef
    from streamsgd.planning.chunks import Plan
    from streamsgd.settings.fields import Settings

MOST_EPOCHS = 10**6
"""Beyond the epochs of the settings: passes of phases count as epochs of the cursor."""

MOST_ROWS = 2.0**62
"""Of any data."""


COUNTS = frozenset(
    [
        *("lost", "chunk", "rows", "passes", "first_epoch", "pairs", "newest", "trials", "stale", "misses", "judged_rows"),
        *("snapshots", "refused", "_bent", "recorded", "batch", "burn_in", "every", "sides", "steps", "thin", "pass"),
        *("place", "since"),
    ]
)
"""Fields of phases that hold whole numbers, wherever they are ..."""

NUMBERS = frozenset(
    [
        *("rate", "mixture", "at_most_above_best", "best_constant", "value", "stride", "largest", "least", "off", "drift"),
        *("friction", "scale", "step", "share", "sampled", "best_loss", "latest", "shrunk", "ridge"),
    ]
)
"""... any numbers, or nothing ..."""

SERIES = frozenset(["rates", "losses", "history"])
"""... numbers one after another ..."""

FLAGS = frozenset(["found", "anew"])
"""... what is so or not ..."""

TEXTS = frozenset(["stopped", "stage", "choice"])
"""... and texts."""


DIGITS = 12
"""Of the digest of a path: a million files with another million share one by chance in a run of 300."""


Measured = float | None | list[Any]
"""A metric; of several classes there may be a list."""


class TotalsHeader(msgspec.Struct):
    """What a run has counted."""

    counts: dict[str, int]
    problems: list[str]
    common: dict[str, list[tuple[str, int]]]


class ThinnerHeader(msgspec.Struct):
    """How a run thins its rows."""

    spec: str
    negatives: Annotated[float, Meta(ge=0.0, le=MOST_ROWS)]
    positives: Annotated[float, Meta(ge=0.0, le=MOST_ROWS)]


class ValidationHeader(msgspec.Struct):
    """What held-out rows said so far; nothing in a checkpoint of many runs, each of which has its own."""

    best_loss: float | None = None
    misses: int = 0
    judged_rows: int = 0
    history: list[float | None] = []
    last: dict[str, Measured] = {}
    best: dict[str, Measured] = {}


class CheckpointHeader(msgspec.Struct):
    """What every checkpoint says, whatever phases it is of."""

    settings: dict[str, Any]
    fingerprint: str
    encoding: dict[str, Any]
    target: dict[str, Any]
    chunk_rows: Annotated[int, Meta(ge=1)]
    optimizer: str
    cursor: tuple[Annotated[int, Meta(ge=0)], Annotated[int, Meta(ge=0)]]
    phases: dict[str, dict[str, Any]]
    totals: TotalsHeader
    poisoned: list[int]
    validation: ValidationHeader
    stamps: list[str] = []
    paths: str = ""
    order: dict[str, Any] | None = None
    external: bool = False
    class_weights: list[Annotated[float, Meta(gt=0.0)]] = []
    log_odds: Annotated[float, Meta(ge=-50.0, le=50.0)] = 0.0
    rare: ThinnerHeader | None = None
    pilot: dict[str, Any] | None = None
    rival: str | None = None
    rates: Annotated[list[Annotated[float, Meta(gt=0.0)]], Meta(max_length=16)] = []
    penalty: str = ""


def paths_of(files: Sequence[FileRef]) -> str:
    """Return digests of the paths of files, one behind the other, in order; of what has no path nothing."""
    return "".join(sorted(_digest_of(ref.path) for ref in files if ref.path))


def shares_none(files: Sequence[FileRef], paths: str) -> bool:
    """Whether a checkpoint was of files, and none of these is one of them."""
    known = {paths[k : k + DIGITS] for k in range(0, len(paths), DIGITS)}
    now = {_digest_of(ref.path) for ref in files if ref.path}
    return bool(known and now) and known.isdisjoint(now)


def _digest_of(path: str) -> str:
    return hashlib.sha256(path.encode("utf-8", "surrogateescape")).hexdigest()[:DIGITS]


def checked(header: Any, name: str) -> CheckpointHeader:
    """Return what a checkpoint says, every field of its type.

    Raises
    ------
    ModelError
        A field is missing, of another type or out of range.

    """
    check_values(header, name)
    found = converted(header, CheckpointHeader, name, "")
    for phase, said in found.phases.items():
        _check_fields(said, name, f"phases.{phase}")
    return found


def read_frozen(header: Any, settings: Settings, name: str) -> dict[str, Any]:
    """Return what a checkpoint says of encoding, target, chunks and optimizer, for `prepare`; it imports nothing.

    Raises
    ------
    ModelError
        A field is missing, of another type or out of range, or the optimizer is neither one of streamsgd's nor that of the
        settings.

    """
    found = checked(header, name)
    target = read_target(found.target, name)
    if target.name != settings.target:
        refuse(name, "target.name", f"is {target.name[:80]!r}, and --target is {settings.target!r}")
    check_optimizer(found.optimizer, settings, name)
    if found.rival is not None:
        check_optimizer(found.rival, settings, name)
    if found.penalty and found.penalty.partition(":")[0] not in PARTS["penalty"]:
        refuse(name, "penalty", f"is {found.penalty[:80]!r}, none of streamsgd's")
    return {
        "encoding": read_encoding(found.encoding, name, settings.column_kind),
        "target": target,
        "chunk_rows": found.chunk_rows,
        "optimizer": found.optimizer,
        "rival": found.rival,
        "rates": found.rates,
        "raced": any(map(_has_raced, found.phases.values())),
        "poisoned": found.poisoned,
        "order": found.order,
        "external": found.external,
        "class_weights": tuple(found.class_weights),
        "log_odds": found.log_odds,
        "rare": found.rare and _thinner(found.rare, name),
        "penalty": found.penalty,
    }


def _has_raced(said: dict[str, Any]) -> bool:
    """Whether the epochs of a phase were over a race of rates of factors; what it came to is checked where it is restored."""
    learned = said.get("learning")
    race = (learned if isinstance(learned, dict) else said).get("race")  # of a phase around epochs, or of epochs
    return isinstance(race, dict) and bool(race.get("factors"))


def _thinner(said: ThinnerHeader, name: str) -> Thinner:
    if PARTS["rare"].get(said.spec.partition(":")[0]) not in KINDS:
        refuse(name, "rare.spec", f"is {said.spec[:80]!r}, none of streamsgd's")
    return Thinner(said.spec, said.negatives, said.positives)


def _check_fields(said: Any, name: str, field: str) -> None:
    """Refuse fields of another type than the phases have them, wherever they are, and cursors that are no two counts."""
    if isinstance(said, list):
        for k, member in enumerate(said):
            _check_fields(member, name, f"{field}[{k}]")
    if not isinstance(said, dict):
        return
    for key, value in said.items():
        for keys, is_one, what in _TYPES:
            if key in keys and not is_one(value):
                refuse(name, f"{field}.{key}", f"is {str(value)[:40]}, not {what}")
        if key == "cursor":
            converted(value, tuple[Annotated[int, Meta(ge=0)], Annotated[int, Meta(ge=0)]], name, f"{field}.{key}")
        _check_fields(value, name, f"{field}.{key}")


def _is_number(value: Any) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


_TYPES: tuple[tuple[frozenset[str], Callable[[Any], bool], str], ...] = (
    (COUNTS, lambda value: type(value) is int and -1 <= value < 2**53, "a count"),
    (NUMBERS, _is_number, "a number"),
    (SERIES, lambda value: _is_number(value) or (isinstance(value, list) and all(map(_is_number, value))), "numbers"),
    (FLAGS, lambda value: isinstance(value, bool), "true or false"),
    (TEXTS, lambda value: isinstance(value, str), "a text"),
)


def check_optimizer(spec: str, settings: Settings, name: str) -> None:
    """Refuse an optimizer that would be imported because a file says so."""
    known = spec.partition(":")[0] in PARTS["optimizer"]
    if not known and spec.partition(",")[0] != settings.optimizer.partition(",")[0]:
        refuse(name, "optimizer", f"is {spec[:80]!r}, neither one of streamsgd's nor --optimizer; no file makes us import code")


def check_cursor(header: Mapping[str, Any], plan: Plan, name: str) -> None:
    """Refuse a place that the plan does not have.

    Raises
    ------
    ModelError
        It has not.

    """
    epoch, chunk = header["cursor"]
    if epoch > MOST_EPOCHS or chunk > plan.n_chunks(min(epoch, MOST_EPOCHS)):
        refuse(name, "cursor", f"is epoch {epoch}, chunk {chunk}, which this run does not come to")


@contextmanager
def restoring(name: str) -> Iterator[None]:
    """Say of whatever goes wrong within that a file's state does not fit the run.

    Raises
    ------
    ModelError
        Something did.

    """
    try:
        yield
    except ModelError as error:
        raise error if str(error).startswith(name) else ModelError(f"{name}: {error}") from error
    except StreamSGDError:
        raise
    except Exception as error:  # noqa: BLE001  compilers and libraries have errors of their own
        said = (str(error).strip().splitlines() or [""])[0][:200]
        refuse(name, "state", f"does not fit this run ({type(error).__name__}: {said})")


def check_restored(saved: tuple[Any, Mapping[str, np.ndarray]], again: tuple[Any, Mapping[str, np.ndarray]], name: str) -> None:
    """Refuse a state that would be saved otherwise than it was: something of it was not understood, or not of its shape.

    Parameters
    ----------
    saved, again
        Header and arrays as read, and as the restored run would save them now.
    name
        Of the file.

    Raises
    ------
    ModelError
        An array is missing, more than there are, or of another type or shape; or a field differs.

    """
    check_arrays(saved[1], {key: spec_like(array) for key, array in again[1].items()}, name)
    for key, array in again[1].items():
        if array.tobytes() != saved[1][key].tobytes():
            refuse(name, f"array {key!r}", "is not what the restored run has in its place")
    now = msgspec.json.decode(msgspec.json.encode(again[0]))
    for key, value in now.items():
        if key in ("stamps", "paths"):  # of the first a warning was said; files may have been moved
            continue
        if key not in saved[0] or not _same(value, saved[0][key]):
            refuse(name, key, "is not what the restored run has in its place")


def _same(a: Any, b: Any) -> bool:
    """Whether two JSON values are the same; NaN, which JSON has not, may be null."""
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_same(a[key], b[key]) for key in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(_same, a, b))
    return bool(a == b) or a is None
