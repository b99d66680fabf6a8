"""A run that goes on from the model of an earlier one: its columns, settings, weights and what its optimizer remembers."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from streamsgd.errors import ModelError, SettingsError
from streamsgd.model.read import load
from streamsgd.model.structure import need_linear
from streamsgd.settings.fields import Settings
from streamsgd.settings.flags import as_flag, with_flag
from streamsgd.settings.registry import ALIASES, PARTS
from streamsgd.settings.scope import RUN_ONLY
from streamsgd.training.resuming.saved import check_optimizer

if TYPE_CHECKING:
    import os

    from streamsgd.model.memory import Memory
    from streamsgd.model.model import Model
    from streamsgd.training.job import Job

log = logging.getLogger("streamsgd")

OF_THE_RUN = frozenset([*RUN_ONLY, *("start", "keep_memory", "target", "filter", "seed", "shuffle", "epochs", "id")]) | {
    *("validation", "validation_group", "valid", "valid_filter", "validate_every", "patience", "min_improvement", "weight"),
    *("bad_rows", "unreadable", "infinite", "missing_columns", "chunk_rows", "lanes", "combine", "phases"),
}
"""Settings that are each run's own; the others are those of the model that it goes on from."""


class Start(NamedTuple):
    """Where a run starts."""

    model: Model
    memory: Memory
    spec: str
    """The optimizer."""

    def frozen(self, settings: Settings) -> dict[str, Any]:
        """Return what `prepare` takes instead of a first look."""
        return {
            "goes_on": True,
            "encoding": self.model.encoding,
            "target": self.model.target,
            "chunk_rows": settings.chunk_rows,
            "optimizer": self.spec,
            "poisoned": (),
            "class_weights": tuple(self.model.provenance.get("class_weights", ())),
            "log_odds": self.model.provenance.get("log_odds", 0.0),
            "penalty": self.model.provenance["parts"]["penalty"] if settings.penalty == "none" else "",
        }

    @property
    def race(self) -> dict[str, Any] | None:
        """What the race of the first run came to, if there was one."""
        found: dict[str, Any] | None = self.model.provenance.get("race")
        return found

    @property
    def lineage(self) -> list[dict[str, Any]]:
        """What was learned before, run by run, the first one first."""
        return lineage_of(self.model)


def lineage_of(model: Model) -> list[dict[str, Any]]:
    """Return what a model was learned from, run by run, the first one first."""
    origin = model.provenance
    now = {key: origin.get(key) for key in ("fingerprint", "files", "rows", "rows_learned", "epochs")}
    now |= {key: origin[key] for key in ("version", "data") if key in origin}
    now |= {"filter": chosen} if (chosen := model.settings.get("filter")) else {}
    return [*origin.get("lineage", []), now]


def say_learned_before(job: Job, start: Start) -> None:
    """Warn of data that one of the runs before learned already, by the same filter, as their fingerprints tell.

    Only files have a fingerprint of their own: tables of one schema and length share theirs.
    """
    source, runs = job.data.source, start.lineage
    if not all(ref.path for ref in source.files):
        return
    now = (source.fingerprint, job.settings.filter)
    same = [k for k, run in enumerate(runs, 1) if (run["fingerprint"], run.get("filter")) == now]
    if same:
        log.warning(
            "the model that this run goes on from learned this data already, in run %d of %d (files, sizes and footers are the "
            "same), and now learns it again: go on from a model of before with --from; on the command line --skip-if-done "
            "passes over a job that is started twice",
            *(same[-1], len(runs)),
        )


def read_start(path: str | os.PathLike[str], settings: Settings) -> tuple[Settings, Start]:
    """Return the settings of a run that goes on from a model, and where it starts.

    What `settings` leaves open is as the model was trained.

    Raises
    ------
    ModelError
        There is no such model, or it was not trained with --keep-memory.
    SettingsError
        The settings ask for another target, or for other columns, losses or rules than the model's.

    """
    own_loss = settings.loss if _is_own("loss", settings.loss) else None
    return start_from(load(path, loss=own_loss, column_kind=settings.column_kind), settings, str(path))


def start_from(model: Model, settings: Settings, path: str) -> tuple[Settings, Start]:
    """Return the settings of a run that goes on from a model, which messages call `path`, and where it starts.

    Raises
    ------
    ModelError, SettingsError
        As `read_start`.

    """
    need_linear(model.structure, "memory of its optimizer", "train anew, with all rows")
    if model.memory is None:
        raise ModelError(f"{path}: does not hold what its optimizer remembers: train it with --keep-memory to go on from it")
    before = _settings_of(model, path)
    if settings.target != before.target:
        raise SettingsError(f"--from {path}: that model predicts {before.target!r}, and this run {settings.target!r}")
    _check_imports(before, settings, path)
    default, taken = Settings(target=""), {}
    for name in Settings.__struct_fields__:
        asked, was = getattr(settings, name), getattr(before, name)
        if name in OF_THE_RUN or asked == was:
            continue
        if asked != getattr(default, name):
            was_made = f"the model {path}, from which this run goes on, was trained {with_flag(name, was)}"
            raise SettingsError(f"{as_flag(name, asked)}: {was_made}; leave it out")
        taken[name] = was
    parts, race = model.provenance["parts"], model.provenance.get("race")
    spec = "race" if race and before.optimizer == "auto" else before.optimizer if race else parts["optimizer"]
    check_optimizer(spec, settings, path)
    made = msgspec.structs.replace(settings, **taken, keep_memory=True)
    return made, Start(model, model.memory, spec)


def _settings_of(model: Model, path: str) -> Settings:
    try:
        return msgspec.convert({**model.settings, "valid": None, "start": None}, Settings, strict=False)
    except msgspec.ValidationError as error:
        raise ModelError(f"{path}: its settings are none of this version: {error}") from error


def _is_own(kind: str, spec: str) -> bool:
    """Whether a part is not one of streamsgd's."""
    return spec not in ("auto", "none") and spec.partition(":")[0] not in {**PARTS[kind], **ALIASES.get(kind, {})}


def _check_imports(before: Settings, asked: Settings, path: str) -> None:
    """Refuse parts that would be imported because a file names them.

    Raises
    ------
    ModelError
        There is one that the settings do not name too.

    """
    for kind in ("loss", "penalty", "optimizer", "schedule"):
        spec = getattr(before, kind)
        if _is_own(kind, spec) and getattr(asked, kind) != spec:
            raise ModelError(f"{path}: its {kind} is {spec}, and no file makes us import code: pass --{kind} {spec}")
    if before.column_kind and asked.column_kind != before.column_kind:
        kinds = ",".join(before.column_kind)
        raise ModelError(
            f"{path}: has columns of the kind {kinds}, and no file makes us import code: pass --column-kind {kinds}"
        )


def check_keeps(settings: Settings) -> None:
    """Refuse to keep what a run does not have at its end.

    Raises
    ------
    SettingsError
        The weights are polished, averaged or reduced afterwards, or are those of lanes.

    """
    if not settings.keep_memory:
        return
    wrong = "--polish" if settings.polish else "--average" if settings.average != "none" else ""
    wrong = "--optimizer svrg" if settings.optimizer.partition(":")[0] == "svrg" else wrong
    if wrong:
        raise SettingsError(f"{wrong} ends with other weights than its optimizer remembers: leave it out, or --keep-memory")
