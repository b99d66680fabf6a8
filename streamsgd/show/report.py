"""A report of a run, or of a model on data: one HTML file with its pictures in it, which needs nothing from elsewhere."""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from streamsgd.compute.executors import Inline
from streamsgd.data.stores.filesystems import IO_TIMEOUT, set_io_timeout
from streamsgd.data.stores.output import check_file, check_no_input, check_no_model, reserved
from streamsgd.errors import SettingsError
from streamsgd.messages import extra, format_bytes
from streamsgd.model import store
from streamsgd.model.compare import loaded
from streamsgd.model.evaluate import Evaluator
from streamsgd.model.explaining.effects import numeric_effects
from streamsgd.model.options import ScoringOptions
from streamsgd.model.sampled import sample_scores
from streamsgd.model.score_stream import scoring_block_bytes
from streamsgd.redact import redact
from streamsgd.settings.words import speaks_python
from streamsgd.show.curves import judged
from streamsgd.show.model import model_summary, model_text
from streamsgd.show.summary import where_time_went
from streamsgd.show.svg import Axis, Line, bars, chart
from streamsgd.show.tables import duration, number
from streamsgd.training.validation import evaluator_for
from streamsgd.version import __version__

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from streamsgd.model.model import Model
    from streamsgd.model.sampled import Sampled
    from streamsgd.training.events import Event, Report
    from streamsgd.training.job import Job

HEAVIEST = 25
"""Weights in a picture."""


@dataclass
class Table:
    """A table."""

    header: Sequence[str]
    rows: Sequence[Sequence[Any]]


@dataclass
class Section:
    """A part of a report."""

    title: str
    note: str = ""
    charts: list[tuple[str, str]] = field(default_factory=list)
    """Captions and SVG."""
    tables: list[Table] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to show."""
        return not (self.note or self.charts or self.texts or any(table.rows for table in self.tables))


class HtmlReport:
    """A callback that writes a report of the run.

    Parameters
    ----------
    out
        Path or URL of the HTML file.

    Raises
    ------
    SettingsError
        Jinja2 is not installed, or no file can be written there.

    """

    def __init__(self, out: str | os.PathLike[str]) -> None:
        page_template()
        check_file("--report", out)
        self.out = out
        self.is_written = False
        self._job: Job | None = None

    def on_begin(self, job: Job) -> None:
        """Keep the job, whose data the report must not replace."""
        check_no_input("--report", self.out, (job.original or job.dataset).source)
        self._job = job

    def on_event(self, event: Event) -> None:
        """Do nothing: the model has the history."""

    def on_end(self, report: Report, model: Model) -> None:
        """Write the report; rows that were held out are read once more, some of them."""
        job, rows, of = self._job, None, ""
        assert job is not None, "the run began"  # noqa: S101  for the type checker
        if job.settings.valid is not None:
            rows, of = sample_scores(evaluator_for(job, job.settings.valid, Inline()).recipe, model), "the validation set"
        elif job.recipe.held:
            rows, of = sample_scores(job.recipe, model, held=True), "rows held out"
        sections = [*sections_of(model, rows, of), _resources(report, job), _order(job.order)]
        write_page(self.out, model, sections)
        self.is_written = True


@speaks_python
def report(
    model: Model | str | os.PathLike[str],
    out: str | os.PathLike[str],
    data: Any = None,
    *,
    loss: str | None = None,
    column_kind: Sequence[str] = (),
    filter: str | None = None,  # noqa: A002  the name of the setting
    memory: str | None = None,
    io_timeout: float = IO_TIMEOUT,
    bad_rows: str | None = None,
    unreadable: str | None = None,
    infinite: str | None = None,
) -> None:
    """Write a report of a model, and of how good it is on labelled data, if there is some.

    Parameters
    ----------
    model
        A model or the path of one; one that this process trained has its learning curve too.
    out
        Path or URL of the HTML file.
    data
        As in training; about 50,000 of its rows are read for the pictures, all of them for the metrics.
    loss, column_kind, filter, memory, io_timeout, bad_rows, unreadable, infinite
        As of `streamsgd.evaluate`.

    Raises
    ------
    StreamSGDError
        Jinja2 is not installed, or the data cannot be used.

    """
    set_io_timeout(io_timeout)
    check_no_model("--out", out, model)
    model, rows, metrics = loaded(model, loss, column_kind), None, {}
    with reserved(out, None):
        if data is not None:
            evaluator = Evaluator.for_model(
                model,
                data,
                Inline(),
                block_bytes=scoring_block_bytes(memory),
                options=ScoringOptions(None, bad_rows, unreadable, infinite, filter, memory),
            )
            check_no_input("--out", out, evaluator.recipe.dataset.source)
            metrics = evaluator.evaluate(model)
            rows = sample_scores(evaluator.recipe, model)
        sections = sections_of(model, rows, "the data", metrics)
        write_page(out, model, [*sections, _order(model.provenance.get("order"))])


def page_template() -> Any:
    """Return the template of a page.

    Raises
    ------
    SettingsError
        Jinja2 is not installed.

    """
    try:
        from jinja2 import Environment, StrictUndefined  # noqa: PLC0415  only where a report is wanted
    except ModuleNotFoundError as error:
        raise SettingsError(f"--report needs Jinja2: {extra('report')}") from error
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    return environment.from_string(files("streamsgd.show").joinpath("report.html").read_text(encoding="utf-8"))


def write_page(out: str | os.PathLike[str], model: Model, sections: list[Section]) -> None:
    """Write a page about a model: to a path or URL, with these sections."""
    lines = model_text(model_summary(model, 0))
    write_sections(out, f"{model.target.task} model of {model.target.name}", lines[1 if model.provenance else 0], sections)


def write_sections(out: str | os.PathLike[str], title: str, subtitle: str, sections: list[Section]) -> None:
    """Write a page: to a path or URL, with these sections."""
    page = page_template().render(
        title=title,
        subtitle=redact(subtitle),
        sections=[section for section in sections if not section.is_empty],
        version=__version__,
    )
    store.write(out, page.encode())


# --- sections


def sections_of(model: Model, rows: Sampled | None, of: str, metrics: dict[str, Any] | None = None) -> list[Section]:
    """Return what there is to say of a model, and of `rows` that it predicted, which are some `of` something."""
    return [
        Section("Metrics", tables=[_metrics(model.metrics), _metrics(metrics or {})]),
        _curve(model),
        *([] if rows is None else [_judged(model, rows, of)]),
        _weights(model),
        _effects(model),
        _noise(model.metrics.get("noise") or model.metrics.get("noisy")),
        _settings(model),
    ]


def _metrics(metrics: dict[str, Any]) -> Table:
    rows = [(name, number(value)) for name, value in _flat(metrics) if isinstance(value, int | float)]
    return Table(("metric", "value"), rows)


def _flat(metrics: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for name, value in metrics.items():
        found += _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else [(f"{prefix}{name}", value)]
    return found


def _curve(model: Model) -> Section:
    """Return how the loss fell by rows learned."""
    told = [line for line in model.told if line["kind"] in ("progress", "evaluation")]
    steps = [line for line in told if line["kind"] == "progress"]
    judged_at = [line for line in told if "valid.loss" in line]
    lines = [
        Line("average", [line["rows"] for line in steps], [line["loss"] for line in steps]),
        Line("since last", [line["rows"] for line in steps], [line["recent_loss"] for line in steps]),
        Line("validation", [line["rows"] for line in judged_at], [line["valid.loss"] for line in judged_at]),
    ]
    picture = chart([line for line in lines if len(line.x)], Axis("rows learned", log=True), Axis("loss"), "Learning curve")
    note = "Each row was predicted before it was learned from." if picture else ""
    return Section("Learning curve", note, [("Loss by rows learned", picture)] if picture else [])


def _judged(model: Model, rows: Sampled, of: str) -> Section:
    pictures = judged(model.target.task, model.classes, rows)
    return Section(
        "Predictions", f"On {len(rows.y):,} rows of {of}.", [(name, picture) for name, picture in pictures.items() if picture]
    )


def _weights(model: Model) -> Section:
    """Return the heaviest weights of numbers and of values; of several classes those of the first ones."""
    if not model.is_linear:
        return Section("Weights")
    section = Section("Weights", "Of numbers per standard deviation of the column, of values as they are.")
    outputs = [str(c) for c in model.classes][:4] if model.n_outputs > 1 else [""]
    numbers = model.weights[: model.encoding.width].astype(float)
    values = model.values()
    for k, output in enumerate(outputs):
        named = [(entry.name, float(numbers[j, k])) for j, entry in enumerate(model.encoding.numbers)]
        kept = [(f"{value.column} = {value.value}", float(value.weights[k])) for value in values]
        for what, some in (("Numbers", named), ("Values", kept)):
            top = sorted(some, key=lambda pair: -abs(pair[1]))[:HEAVIEST]
            if top:
                caption = f"{what}{f', class {output}' if output else ''}"
                section.charts.append((caption, bars([n for n, _ in top], [w for _, w in top], f"Weights of {what.lower()}")))
    return section if section.charts else Section("Weights")


def _effects(model: Model) -> Section:
    if not model.is_linear:
        return Section("Effects of numbers")
    names = [str(c) for c in model.classes] if model.n_outputs > 1 else [""]
    pictures = [
        (
            effect.column,
            chart(
                [Line(name, effect.x, effect.score[:, k]) for k, name in enumerate(names[:6])],
                Axis(effect.column),
                Axis("adds to the score"),
                f"Effect of {effect.column}",
            ),
        )
        for effect in numeric_effects(model)
    ]
    note = "What a number adds to the score over its range: weight, logarithm and bins together." if pictures else ""
    return Section("Effects of numbers", note, pictures)


def _noise(noise: dict[str, Any] | None) -> Section:
    """Return what was measured of gradients, if it was."""
    if not noise:
        return Section("Noise of gradients")
    rows = [(name, number(value)) for name, value in _flat(noise) if isinstance(value, int | float)]
    return Section("Noise of gradients", "See docs/noise.md for what these numbers mean.", tables=[Table(("", "value"), rows)])


def _resources(report: Report, job: Job) -> Section:
    """Return where time and memory went."""
    seconds, memory = where_time_went(report), job.budget
    times = [name for name in ("wait", "fit", "other", "compile") if seconds[name]]
    speed = report.rows_now / max(report.seconds, 1e-9)
    note = (
        f"{report.rows_now:,} rows in {duration(report.seconds)}, {speed:,.0f} rows/s; {format_bytes(memory.projected)} of "
        f"memory were planned, within {format_bytes(memory.limit)}."
    )
    threads = (
        f"Reading threads: decode {seconds['decode']:.1f} s, encode {seconds['encode']:.1f} s; compiling is part of the rest."
    )
    return Section(
        "Time and memory", f"{note} {threads}", [("Seconds", bars(times, [seconds[name] for name in times], "Seconds", " s"))]
    )


def _order(order: dict[str, Any] | None) -> Section:
    """Return what the order of the rows was found to be."""
    if not order:
        return Section("Order of the rows")
    rows = [(name.replace("_", " "), number(value)) for name, value in order.items() if isinstance(value, bool | int | float)]
    return Section("Order of the rows", tables=[Table(("", "found"), rows)])


def _settings(model: Model) -> Section:
    """Return settings that can be copied into a file of settings."""
    lines = [f"{name} = {_toml(value)}" for name, value in sorted(model.settings.items()) if value not in (None, (), [])]
    parts = [f"# {kind}: {spec}" for kind, spec in model.provenance.get("parts", {}).items()]
    return Section("Settings", "As --config takes them.", texts=[redact("\n".join([*lines, *parts]))] if lines else [])


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"')
        return f'"{escaped}"'
    return str(value)
