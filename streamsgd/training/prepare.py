"""From data and settings to a job: the dry half of training, which `plan` prints."""

from __future__ import annotations

import logging
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from streamsgd.compute.memory import parse_limit
from streamsgd.data.dataset import Dataset, require
from streamsgd.data.shuffled.shuffle_layout import layout_of
from streamsgd.data.sizes import whole_bytes
from streamsgd.data.types import is_number
from streamsgd.errors import BudgetError, SchemaError, SettingsError
from streamsgd.features.encoding import Encoding
from streamsgd.features.look.bins_pay import tries_bins
from streamsgd.features.look.crosses_pay import tries_crosses
from streamsgd.features.look.shrink import tries_ridges
from streamsgd.features.names import expand
from streamsgd.features.numbers import NumberColumn
from streamsgd.features.unset import leaves_open
from streamsgd.kernels.models.machines import is_linear
from streamsgd.kernels.parts.traits import is_race, is_sequential, judges, reduces
from streamsgd.messages import counted, verb
from streamsgd.planning import budget as budgets
from streamsgd.planning.chunks import Plan, make_plan
from streamsgd.planning.samplers import has_strata, repeated, replaces
from streamsgd.settings.batches import adaptive, check_known
from streamsgd.settings.registry import make
from streamsgd.stream.held import held_out
from streamsgd.stream.loader import Loader
from streamsgd.training.averaging import check_average, check_race_ends
from streamsgd.training.caching import with_cache
from streamsgd.training.classes.logit_adjustment import with_log_odds
from streamsgd.training.classes.neyman import with_measured_share
from streamsgd.training.classes.rare import choose_thinner, with_offsets
from streamsgd.training.classes.strata import with_batch
from streamsgd.training.defaults import (
    check_lanes,
    check_steps,
    choose_lanes,
    choose_parts,
    decided_by_memory,
    task_of,
)
from streamsgd.training.forgetting import check_forget
from streamsgd.training.holding import choose_passes
from streamsgd.training.job import Job, batch_size
from streamsgd.training.judged.refusals import check_judged
from streamsgd.training.look import Look, look_at
from streamsgd.training.memory import size_budget
from streamsgd.training.noise.growing import check_growing
from streamsgd.training.ordering import Order, choose_order
from streamsgd.training.outline import Outline
from streamsgd.training.phases import wanted
from streamsgd.training.rates import scale_rate
from streamsgd.training.rivals.choose_rival import Beside, beside_of, choose_beside, wants_rival, with_room
from streamsgd.training.structure import check_structure

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from streamsgd.features.target import Target
    from streamsgd.kernels.structs.block import Parts
    from streamsgd.planning.lanes import Lanes
    from streamsgd.settings.fields import Settings

log = logging.getLogger("streamsgd")


def prepare(
    data: Any,
    settings: Settings,
    *,
    frozen: dict[str, Any] | None = None,
    progress: Callable[[int, int], None] | None = None,
    constant: bool = False,
    rivals: bool = False,
) -> Job:
    """Decide everything: columns, encoding, parts, budget, plan.

    Parameters
    ----------
    data
        Paths or URLs of Parquet.
    settings
        As checked.
    frozen
        `encoding`, `target`, `chunk_rows` and `optimizer` of a run to be resumed, instead of a new look.
    progress
        Called with (footers read, footers in all).
    constant
        Whether the target need not vary, since nothing is learned.
    rivals
        Whether a machine may learn beside the linear model.

    Raises
    ------
    DataError, SettingsError, BudgetError
        The job cannot be done; nothing was started.

    """
    check_known(settings)
    look = look_at(data, settings, frozen=frozen, progress=progress, constant=constant)
    parts, thinner = _parts(look, settings, frozen)
    if look.sample:
        look.sample.release()
    try:
        return with_cache(with_measured_share(_job(look, settings, parts, thinner, frozen, rivals=rivals)))
    except BudgetError as error:
        raise _that_is_accepted(error, look, settings, parts, frozen) from None


def _that_is_accepted(error: BudgetError, look: Look, settings: Settings, parts: Parts, frozen: Any) -> BudgetError:
    """Return a refusal whose budget is accepted when given: memory chooses what learns, which may need more than that."""
    richer = msgspec.structs.replace(settings, memory=str(error.least))
    others, thinner = _parts(look, richer, frozen)
    if type(others.optimizer) is type(parts.optimizer):
        return error
    try:
        _job(look, richer, others, thinner, frozen)
    except BudgetError as larger:
        said, words, _ = str(error).partition("The smallest budget that can")
        error = BudgetError(said + words + str(larger).partition(words)[2])
        error.least = larger.least
    return error


def prepare_many(
    data: Any,
    settings: Sequence[Settings],
    *,
    frozen: Sequence[dict[str, Any]] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[Job]:
    """Return the jobs of settings that say the same of columns and rows, each as `prepare` makes it alone, by one look or two.

    Parameters
    ----------
    data, progress
        As of `prepare`.
    settings
        Of each job; they share what is read. Two looks are for those that leave bins of numbers to the look, and those that
        do not.
    frozen
        Of each, where they are resumed.

    Raises
    ------
    DataError, SettingsError, BudgetError
        One of them cannot be done.

    """
    before: list[dict[str, Any] | None] = list(frozen) if frozen else [None for _ in settings]
    looks: dict[Any, Look] = {}
    for own, then in zip(settings, before, strict=True):
        check_known(own)
        if (key := _alike(own, then)) not in looks:
            looks[key] = look_at(data, own, frozen=then, progress=progress)
            data = looks[key].dataset.source  # a stream is read once
    pairs = [(looks[_alike(own, then)], own, then) for own, then in zip(settings, before, strict=True)]
    decided = [_parts(look, own, then) for look, own, then in pairs]
    for look in looks.values():
        if look.sample:
            look.sample.release()
    made = zip(pairs, decided, strict=True)
    return [_job(look, own, parts, thinner, then, rivals=True) for (look, own, then), (parts, thinner) in made]


def _alike(settings: Settings, frozen: dict[str, Any] | None) -> Any:
    """Return what is the same of settings whose columns and target are encoded alike, where they say the same of columns."""
    if frozen is not None:
        return msgspec.json.encode((frozen["encoding"], frozen["target"]))
    return tries_bins(settings), leaves_open(settings), tries_crosses(settings), tries_ridges(settings), task_of(settings)


def _penalty(look: Look, frozen: dict[str, Any] | None) -> str:
    """Return what shrinks weights where the look, or that of the run that goes on, chose it."""
    return str(frozen.get("penalty", "")) if frozen else look.penalty


def _parts(look: Look, settings: Settings, frozen: dict[str, Any] | None) -> tuple[Parts, Any]:
    """Return what learns, and how rows are thinned if they are."""
    spec = frozen["optimizer"] if frozen else settings.optimizer
    penalty = _penalty(look, frozen)
    chosen = msgspec.structs.replace(settings, optimizer=spec, penalty=penalty or settings.penalty)
    parts = choose_parts(chosen, look.target, look.encoding, look.dataset.n_rows, goes_on=frozen is not None)
    parts = with_log_odds(parts, settings, look.sample, look.target, float((frozen or {}).get("log_odds") or 0.0))
    check_structure(settings, parts, look.encoding)
    thinner = choose_thinner(settings, look.sample, look.target, parts) if look.sample else (frozen or {}).get("rare")
    return with_offsets(parts) if thinner else parts, thinner


def _job(
    look: Look, settings: Settings, parts: Parts, thinner: Any, frozen: dict[str, Any] | None, *, rivals: bool = False
) -> Job:
    """Return the job of a look, without a cache."""
    dataset, encoding, target, of_classes = look.dataset, look.encoding, look.target, look.class_weights
    check_average(settings, parts, encoding.n_coordinates, wide=encoding.is_wide)
    for kind in wanted(settings, parts):
        kind.check(settings, parts, encoding)
    epochs, share = choose_passes(settings, parts, encoding, dataset.n_rows)
    check_race_ends(settings, parts, dataset.n_rows, epochs)
    recipe = _recipe(look, settings, parts, share, frozen)
    # Where blocks of thinned rows change weights, each row must bring its own.
    recipe = replace(recipe, class_weights=(1.0, 1.0) if thinner and thinner.weighs else of_classes)
    lanes = choose_lanes(settings, dataset.n_rows * recipe.row_bytes, _why_alone(settings, parts))
    check_lanes(lanes, settings, parts, encoding)
    _check_steps(settings, parts, lanes, dataset.n_rows)
    if lanes.combine == "sync" and not frozen:
        parts = parts._replace(optimizer=scale_rate(parts.optimizer, settings, lanes.number))
    chunk_rows = frozen["chunk_rows"] if frozen else settings.chunk_rows
    looked = {"looked": look.peak_bytes, "longest": look.longest_row}
    outline = Outline.of(settings, parts, recipe, epochs, thinned=thinner is not None, lanes=lanes.number)
    budget_in = partial(size_budget, outline, dataset, recipe, chunk_rows, lanes=lanes, **looked)
    beside = Beside()
    if rivals and wants_rival(settings, parts, encoding, lanes, epochs):
        beside = choose_beside(settings, parts, look, frozen)
    budget, beside = with_room(budget_in, beside, parts, encoding, settings, must=frozen is not None)
    plan = _known_plan(look, settings, recipe, budget.chunk_rows)
    if frozen and "external" in frozen:
        order = _order_before(settings, recipe, frozen)
    else:
        reference = _known_plan(look, settings, recipe, budget.useful_rows or budget.chunk_rows)
        order = choose_order(settings, recipe, plan, reference, batch_size(settings, parts), looks=look.orders)
    sampler = with_batch(order.sampler, settings, parts, lanes, batch_size(settings, parts))
    if has_strata(sampler):
        # Strata change weights, so that each row must bring its own.
        recipe = replace(recipe, class_weights=recipe.class_weights or (1.0, 1.0))
    plan = replace(plan, sampler=repeated(sampler) if thinner else sampler)
    check_draws(plan)
    if plan.sliced.any() and not order.layout and look.orders.new("slices"):
        log.warning(
            "%s %s larger than a chunk of %s rows and %s streamed in slices, in the order of their file; more --memory, or "
            "smaller row groups, would shuffle better",
            *(counted(n := int(plan.sliced.sum()), "row group"), verb(n), f"{budget.chunk_rows:,}", verb(n)),
        )
    job = Job(
        *(settings, dataset, look.roles, encoding, target, parts, budget, plan, recipe, epochs, lanes, ()),
        order.facts,
        order.layout,
    )
    job = replace(job, class_weights=of_classes, thinner=thinner, chosen=look.chosen)
    job = replace(job, penalty=_penalty(look, frozen))
    job = replace(job, recipe=replace(job.recipe, held_class_weights=() if job.undoes_weights else of_classes))
    job = job if frozen else replace(job, decided_by_memory=decided_by_memory(job))
    return beside.joined(job)


def _recipe(look: Look, settings: Settings, parts: Parts, share: float, frozen: dict[str, Any] | None) -> Loader:
    """Return what reads and encodes the rows, of which a share is held out."""
    recipe = Loader(
        look.dataset,
        look.encoding,
        look.target,
        look.roles.weight,
        look.expression,
        look.columns,
        held=held_out(settings, look.dataset.schema, share),
        skip_bad_rows=settings.bad_rows == "skip",
        skip_unreadable=settings.unreadable == "skip",
        infinite_is_missing=settings.infinite == "missing",
        missing=settings.missing,
        precision=settings.precision,
        names_values=settings.values,
        nulls_for_missing=settings.missing_columns == "null",
        at_once=whole_bytes(parse_limit(settings.memory)),
        by_entries=_by_entries(parts),
        poisoned=frozenset(frozen["poisoned"]) if frozen else frozenset(),
    )
    return replace(recipe, tile_rows=budgets.tile_rows(recipe.row_bytes))


def _by_entries(parts: Parts) -> bool:
    """Whether dense rows become lists too: what they owe to penalties is kept by weight, for which only a race has room."""
    penalised = bool(parts.penalty._fields) and not is_race(parts.optimizer)
    return is_sequential(parts.optimizer) and (penalised or not is_linear(parts.model))


def _known_plan(look: Look, settings: Settings, recipe: Loader, chunk_rows: int) -> Plan:
    """Return the plan in chunks of so many rows, made once."""
    key = (chunk_rows, recipe.row_bytes, recipe.tile_rows)
    if key not in look.plans:
        look.plans[key] = _plan(settings, recipe, chunk_rows)
    return look.plans[key]


def _check_steps(settings: Settings, parts: Parts, lanes: Lanes, n_rows: int) -> None:
    """Refuse steps that cannot be counted, cannot grow or cannot be judged."""
    check_steps(settings, parts, lanes)
    check_growing(settings, parts, lanes.number, n_rows)
    check_judged(settings, parts, lanes.number)
    check_forget(settings, parts, lanes.number)


def _why_alone(settings: Settings, parts: Parts) -> str:
    """Return why there is one lane, if nobody says; '' if there may be several."""
    if settings.average != "none" and settings.combine != "sync":
        return "the mean of the weights is kept in one"
    if adaptive(settings):
        return "batches grow in one"
    if settings.steps or settings.forget:
        return "steps are counted in one"
    if judges(parts.optimizer):
        return "steps are judged in one"
    return "svrg learns in one" if reduces(parts.optimizer) else ""


def check_draws(plan: Plan) -> None:
    """Refuse to draw rows with replacement from what is no single chunk.

    Raises
    ------
    SettingsError
        It is not.

    """
    if replaces(plan.sampler) and plan.n_chunks(0) > 1:
        raise SettingsError(
            f"--shuffle iid draws every row from all {plan.n_rows:,}, and a chunk here holds {plan.chunk_rows:,}: pass "
            f"--chunk-rows {plan.n_rows}, and --memory that holds them, or leave --shuffle out"
        )


def on_disk(job: Job, dataset: Dataset, *, resumed: bool) -> Job:
    """Return a job for the same rows in another place and order: budget and chunks are made anew, and nothing else.

    Raises
    ------
    BudgetError
        The limit cannot hold it.

    """
    recipe = replace(job.recipe, dataset=dataset)
    recipe = replace(recipe, tile_rows=budgets.tile_rows(recipe.row_bytes))
    chunk_rows = job.budget.chunk_rows if resumed else job.settings.chunk_rows
    beside = beside_of(job)
    taken = beside.nbytes(job.parts, job.encoding, job.settings)
    budget = size_budget(job.outline, dataset, recipe, chunk_rows, lanes=job.lanes, beside=taken)
    plan = replace(_plan(job.settings, recipe, budget.chunk_rows), sampler=job.plan.sampler)
    moved = replace(job, dataset=dataset, recipe=recipe, budget=budget, plan=plan, original=job.dataset)
    moved = beside.joined(moved)
    return with_cache(moved if resumed else replace(moved, decided_by_memory=decided_by_memory(moved)))


def _order_before(settings: Settings, recipe: Loader, frozen: dict[str, Any]) -> Order:
    """Return the order of a run that is resumed."""
    auto = "external" if frozen["external"] else "corgi"
    sampler = make("shuffle", auto if settings.shuffle == "auto" else settings.shuffle)
    layout = layout_of(recipe.dataset, recipe.columns, settings.seed) if frozen["external"] else None
    return Order(sampler, frozen["order"], layout)


def _plan(settings: Settings, recipe: Loader, chunk_rows: int) -> Plan:
    return make_plan(
        recipe.dataset.rows,
        recipe.dataset.file,
        row_bytes=recipe.row_bytes,
        chunk_rows=chunk_rows,
        tile_rows=recipe.tile_rows,
        sampler=make("shuffle", "corgi" if settings.shuffle == "auto" else settings.shuffle),
        seed=settings.seed,
    )


def plan_numbers(dataset: Dataset, settings: Settings, target: Target, *, useful: bool = False) -> Plan:
    """Plan a run of all usable columns, as training would if the others were left out.

    Chunks are those of the memory limit, or, if asked for, as large as are `useful`.
    """
    names = list(dict.fromkeys(dataset.schema.names))
    dropped = {settings.target, *expand((*settings.exclude, *settings.id), names)}
    wanted = expand(settings.features, names) if settings.features else tuple(names)
    columns = [NumberColumn(name, "") for name in wanted if name not in dropped and _is_usable(dataset, name)]
    recipe = Loader(dataset, Encoding(tuple(columns)), target, precision=settings.precision)
    parts = choose_parts(settings, target, recipe.encoding, dataset.n_rows)
    epochs, share = choose_passes(settings, parts, recipe.encoding, dataset.n_rows)
    outline = replace(Outline.of(settings, parts, recipe, epochs), held=bool(share))
    budget = size_budget(outline, dataset, recipe, settings.chunk_rows)
    return make_plan(
        dataset.rows,
        dataset.file,
        row_bytes=recipe.row_bytes,
        chunk_rows=(budget.useful_rows if useful else 0) or budget.chunk_rows,
        tile_rows=1,
        sampler=make("shuffle", "corgi"),
        seed=settings.seed,
    )


def _is_usable(dataset: Dataset, name: str) -> bool:
    try:
        require(dataset, [name])
    except SchemaError:
        return False
    return is_number(dataset.schema.field(name).type)
