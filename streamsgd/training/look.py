"""A look at the data: footers, roles of columns, and by some rows how these become numbers; settings may share it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from streamsgd.data.dataset import Dataset, require
from streamsgd.data.open import open_data
from streamsgd.data.schemas import require_filled
from streamsgd.data.stores.filesystems import set_io_timeout
from streamsgd.features.choose import choose_encoding
from streamsgd.features.choose_target import choose_target
from streamsgd.features.conform import conform, with_types
from streamsgd.features.look.advice import Advice, of_unknown
from streamsgd.features.roles import choose_as, not_of_model
from streamsgd.features.sample import Sample
from streamsgd.features.shapes import choose_roles
from streamsgd.features.target import check_weight
from streamsgd.messages import said_once, stage
from streamsgd.training.classes.class_weights import class_weights
from streamsgd.training.defaults import task_of
from streamsgd.training.ordering import OrderLooks

if TYPE_CHECKING:
    from collections.abc import Callable

    from streamsgd.features.encoding import Encoding
    from streamsgd.features.roles import Roles
    from streamsgd.features.target import Target
    from streamsgd.planning.chunks import Plan
    from streamsgd.settings.fields import Settings


def survey(
    data: Any, settings: Settings, progress: Callable[[int, int], None] | None = None, *, moments: bool = True
) -> tuple[Dataset, Roles, Any, tuple[str, ...]]:
    """Read the footers, prune by the filter, and give each column its role.

    Raises
    ------
    DataError
        The data is missing, damaged, empty, or without a column that is needed.

    """
    nulls = settings.missing_columns == "null"
    dataset, expression, columns = open_data(data, settings.filter, progress, nulls=nulls)
    dataset, roles = choose_roles(Sample(dataset, settings, expression, columns), moments=moments)
    _check_columns(dataset, roles, roles.features, nulls=nulls)
    return dataset, roles, expression, columns


def survey_as(
    data: Any, settings: Settings, encoding: Encoding, progress: Callable[[int, int], None] | None = None
) -> tuple[Dataset, Roles, Any, tuple[str, ...]]:
    """Read the footers and prune by the filter, where a model knows the features.

    Raises
    ------
    DataError
        As `survey`; not because of columns that the model does not know, nor of those that the data lacks.

    """
    nulls = settings.missing_columns == "null"
    found = open_data(data, settings.filter, progress, trained=encoding.types, nulls=nulls)
    roles = choose_as(settings, found[0].schema.names, encoding.sources)
    there = tuple(name for name in roles.features if name in found[0].schema.names)
    _check_columns(found[0], roles, there, nulls=nulls)
    return found[0], roles, *found[1:]


def _check_columns(dataset: Dataset, roles: Roles, features: tuple[str, ...], *, nulls: bool) -> None:
    require_filled(dataset, filter(None, (roles.target, roles.weight)))
    require(dataset, [*features, *roles.read[len(roles.features) :]], nulls=features if nulls else ())
    if roles.weight:
        check_weight(roles.weight, dataset.schema.field(roles.weight).type)


class Look(NamedTuple):
    """What a look at the data came to: of all settings that say the same of its columns and rows."""

    dataset: Dataset
    roles: Roles
    expression: Any
    columns: tuple[str, ...]
    """Of the filter."""
    encoding: Encoding
    target: Target
    class_weights: tuple[float, ...]
    sample: Sample | None
    """Rows that were looked at, until they are released; None where a run that is resumed says all."""
    peak_bytes: int
    longest_row: int
    chosen: str
    """What was chosen and is worth a line, and why; of a run that goes on from a model, what it leaves out."""
    penalty: str
    """What shrinks weights, chosen by the look; nothing where it did not."""
    orders: OrderLooks
    plans: dict[tuple[int, int, int], Plan]
    """By the rows of a chunk, bytes of a row, rows of a tile: of very many row groups a plan takes seconds."""


def look_at(
    data: Any,
    settings: Settings,
    *,
    frozen: dict[str, Any] | None = None,
    progress: Callable[[int, int], None] | None = None,
    constant: bool = False,
) -> Look:
    """Read the footers, and decide of the columns and the target by some rows, or as a run that is resumed did.

    Raises
    ------
    DataError, SettingsError
        The data cannot be used as the settings say.

    """
    set_io_timeout(settings.io_timeout)
    if frozen:
        return _look_as(data, settings, frozen, progress)
    dataset, roles, expression, columns = survey(data, settings, progress)
    look = Sample(dataset, settings, expression, columns)
    with stage("looking at some rows of every column"), said_once():  # columns are asked several times
        target = choose_target(look, roles.target, task_of(settings), constant=constant)
        of_classes = class_weights(settings, look, target)
        asked = Advice(look, target)
        encoding, _ = choose_encoding(look, roles, asked)
        penalty = asked.shrinks(encoding)
    encoding = with_types(encoding, dataset, (*encoding.sources, *roles.read[len(roles.features) :]))
    found = (dataset, roles, expression, columns, encoding, target, of_classes)
    return Look(*found, look, look.peak_bytes, look.longest_row, asked.line, penalty, OrderLooks(), {})


def _look_as(data: Any, settings: Settings, frozen: dict[str, Any], progress: Callable[[int, int], None] | None) -> Look:
    """Return the look of a run that was decided before: by its checkpoint, or by the model that it goes on from."""
    encoding, goes_on = frozen["encoding"], frozen.get("goes_on", False)
    found = survey_as(data, settings, encoding, progress) if goes_on else survey(data, settings, progress, moments=False)
    dataset, roles, expression, columns = found
    names, aside = dataset.schema.names, dataset.aside
    said = of_unknown(not_of_model(settings, names, aside, roles)) if goes_on else ""
    dataset = conform(encoding, dataset, nulls=settings.missing_columns == "null", trains=True)
    known = encoding, frozen["target"], tuple(frozen.get("class_weights", ()))
    return Look(dataset, roles, expression, columns, *known, None, 0, 0, said, frozen.get("penalty", ""), OrderLooks(), {})
