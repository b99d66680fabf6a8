"""Text for people: what `plan`, `inspect`, `show` and `parts` print, from the values that --json prints."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from streamsgd.sizes import format_bytes
from streamsgd.words import counted, few

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from streamsgd.inspection import Inspection, Spread
    from streamsgd.order import OrderRisk, TargetMix

MOST_ROWS = 40
"""Lines of a table about columns before the rest is counted."""


MEMORY_PARTS = {
    "interpreter": "interpreter and libraries",
    "footers": "footers of open files",
    "decode": "decoding in flight",
    "blocks": "blocks",
    "model": "model, optimizer, checkpoint",
    "reserve": "reserve for what allocators keep",
}


def table(header: Sequence[str], rows: Iterable[Sequence[Any]], left: int = 1) -> list[str]:
    """Return lines of columns, the first `left` aligned left, the others right."""
    cells = [[str(cell) for cell in row] for row in [header, *rows]]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return [
        "  ".join(
            cell.ljust(w) if k < left else cell.rjust(w) for k, (cell, w) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in cells
    ]


def number(value: Any) -> str:
    """Return a number with six digits, and what is no number as it is."""
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def duration(seconds: float) -> str:
    """Return seconds as people say them."""
    if seconds < 90:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _bytes(value: int | None) -> str:
    return "?" if value is None else format_bytes(value)


def _cut(rows: list[Any], what: str, most: int = MOST_ROWS) -> tuple[list[Any], list[str]]:
    return (rows, []) if len(rows) <= most else (rows[:most], [f"... and {len(rows) - most:,} more {what}; --json has all"])


# --- plan


def plan_text(plan: dict[str, Any]) -> list[str]:
    """Return the lines of `plan` from what `outlook` found."""
    memory, guess = plan["memory"], plan["estimate"]
    shown, more = _cut(plan["columns"], "columns")
    header = ("column", "role", "type", "decoded", "encoded")
    keys = ("decoded_bytes", "encoded_bytes")
    rows = [(c["name"], c["role"], short(c["type"]), *(_bytes(c[key]) for key in keys)) for c in shown]
    parts = [f"{'' if k else 'parts':9} {kind} {spec}" for k, (kind, spec) in enumerate(plan["parts"].items())]
    peak, limit = format_bytes(memory["projected"]), format_bytes(memory["limit"])
    return [
        _sizes(plan["data"]),
        "",
        *table(header, rows, left=3),
        *more,
        "(encoded: compressed, from the footers of some files)",
        "",
        f"target    {plan['target']['name']}, {plan['target']['task']}",
        *parts,
        f"shuffle   {plan['shuffle']}, seed {plan['seed']}",
        (
            f"chunks    {plan['chunks_per_epoch']:,} per epoch of up to {plan['rows_per_chunk']:,} rows, "
            f"from {counted(plan['units_of_reading'], 'unit')} of reading; "
            f"tiles of {plan['rows_per_tile']:,} rows"
        ),
        *([f"          {plan['streamed_in_slices']:,} of the units in slices"] if plan["streamed_in_slices"] else []),
        f"epochs    {plan['epochs']:,}, batch size {plan['batch_size']}, {plan['steps']:,} steps",
        f"lanes     {plan['lanes']['number']}, {plan['lanes']['combine']}: {plan['lanes']['why']}",
        *([f"          {plan['measuring']:,} of the epochs measure the gradient of all rows"] if plan["measuring"] else []),
        *([] if plan["average_from"] is None else [f"average   of the weights from epoch {plan['average_from']:g} on"]),
        *([f"polish    at most {plan['polish']:,} passes more"] if plan["polish"] else []),
        *(["errors    one pass more"] if plan["standard_errors"] else []),
        "",
        f"memory    {peak} projected peak of {limit}, {counted(plan['threads'], 'reading thread')}",
        *(f"          {format_bytes(size):>8}  {MEMORY_PARTS.get(name, name)}" for name, size in memory["parts"].items()),
        "",
        f"time      about {duration(guess['seconds'])}, decoding alone {duration(guess['read_seconds'])};",
        (
            f"          an estimate, from decoding {guess['rows_decoded_to_estimate']:,} rows at "
            f"{guess['rows_per_second_and_thread']:,.0f} rows/s on one thread"
        ),
    ]


def _sizes(data: dict[str, Any]) -> str:
    files, groups = counted(data["files"], "file"), counted(data["row_groups"], "row group")
    return f"{files}, {groups}, {data['rows']:,} rows, {format_bytes(data['file_bytes'])}"


# --- inspect


def inspection_text(found: Inspection) -> list[str]:
    """Return the lines of `inspect`."""
    lines = [_sizes(found.to_dict())]
    if found.empty_files:
        lines.append(f"{counted(found.empty_files, 'file')} without a row")
    lines += _spread_text("rows per row group", found.rows_per_group, "{:,}".format)
    lines += _spread_text("encoded bytes per row group", found.bytes_per_group, format_bytes)
    if found.partition_columns:
        lines.append(f"partition columns: {', '.join(found.partition_columns)}")
    lines += ["", *_columns_text(found)]
    if found.target is not None:
        lines += ["", *_target_text(found.target)]
    if found.order is not None:
        lines += ["", *_order_text(found.order)]
    return [*lines, *(f"problem: {problem}" for problem in found.problems)]


def _spread_text(name: str, spread: Spread | None, text: Callable[[int], str]) -> list[str]:
    if spread is None:
        return []
    return [f"{name}: {text(spread.min)} min, {text(spread.median)} median, {text(spread.max)} max"]


def _columns_text(found: Inspection) -> list[str]:
    shown, more = _cut(found.columns, "columns")
    header = ("column", "type", "encoded", "null", "NaN", "min", "max", "mean", "std")
    rows = []
    for c in shown:
        counts = (f"{c.nulls:,}", f"{c.nans + c.infinite:,}")
        values = map(number, (c.min, c.max, c.mean, c.std))
        rows.append((c.name, short(c.type), _bytes(c.encoded_bytes), *counts, *values))
    strings = [c for c in found.columns if c.distinct is not None]
    return [
        f"columns, in the sample of {found.sample_rows:,} rows (NaN counts infinite values too)",
        *table(header, rows, left=2),
        *more,
        *(f"{c.name}: {c.distinct:,} distinct strings in the sample" for c in strings[:MOST_ROWS]),
        *_choices_text(found),
        *(f"{c.name}: {c.problem}" for c in found.columns if c.problem),
    ]


def _choices_text(found: Inspection) -> list[str]:
    """Return what training would make of the columns, and why."""
    chosen = [c for c in found.columns if c.taken_as]
    if not chosen:
        return []
    shown, more = _cut(chosen, "columns")
    lines = ["", "in training with these settings"]
    for c in shown:
        lines += [f"  {c.name}: {'; '.join(c.taken_as)}"]
        lines += [f"      {c.why}"] if c.why else []
    return [*lines, *more]


def _target_text(target: TargetMix) -> list[str]:
    kinds = f", {len(target.classes):,} classes: {few(target.classes)}" if target.classes else ""
    lines = [f"target {target.name}: {target.type}, taken as {target.task}{kinds}"]
    if target.unusable:
        all_rows = target.rows + target.unusable
        lines.append(f"  {target.unusable:,} of {all_rows:,} rows have a null, NaN or unknown target")
    if target.mean is not None:
        means = sorted(group.mean for group in target.row_groups if group.mean is not None)
        least, middle, most = (number(means[k]) for k in (0, len(means) // 2, -1))
        groups = f"by row group {least} min, {middle} median, {most} max over {len(means):,}"
        return [*lines, f"  mean {number(target.mean)}; {groups}"]
    header = ("  class", "share", "least in a row group", "most in a row group")
    rows = []
    for k, (name, share) in enumerate(zip(target.classes[:MOST_ROWS], target.shares, strict=False)):
        of_groups = [group.shares[k] for group in target.row_groups]
        rows.append((f"  {name}", f"{share:.4f}", f"{min(of_groups):.4f}", f"{max(of_groups):.4f}"))
    return [*lines, *table(header, rows)]


def _order_text(order: OrderRisk) -> list[str]:
    usual, per_unit = 1.0 / order.rows_per_unit, f"{order.rows_per_unit:,.0f} rows"
    alike = "" if order.neighbours is None else f"; correlation of neighbours {order.neighbours:.2f}"
    return [
        f"order: {order.summary}",
        (
            f"  {order.units_read:,} of {counted(order.units, 'unit')} of {per_unit} read; between units "
            f"{order.between_units:.3g} of the target's variance (random order: {usual:.2g}){alike}"
        ),
        (
            f"  at this memory budget a chunk mixes {order.units_per_chunk:,.1f} units, "
            f"{order.rows_per_chunk:,} rows; in batches of {order.rows_averaged}:"
        ),
        *(f"  --shuffle {name:6} {words}" for name, words in order.verdict.items()),
    ]


def short(text: str, most: int = 40) -> str:
    """Return a text, or its beginning."""
    return text if len(text) <= most else f"{text[: most - 3]}..."


# --- parts


def list_parts() -> dict[str, dict[str, dict[str, Any]]]:
    """Return every loss, penalty, optimizer, schedule and sampler: title, fields with defaults, source."""
    from streamsgd.registry import PARTS  # noqa: PLC0415

    return {
        kind: {
            name: {
                "title": (part.__doc__ or "").split("\n")[0],
                "fields": dict(part._field_defaults),
                "source": part.source,
            }
            for name, part in parts.items()
        }
        for kind, parts in PARTS.items()
    }


def parts_text(parts: dict[str, dict[str, dict[str, Any]]]) -> list[str]:
    """Return the lines of `parts`."""
    lines: list[str] = []
    for kind, named in parts.items():
        lines += [f"--{kind}"]
        for name, part in named.items():
            fields = ",".join(f"{key}={value:g}" for key, value in part["fields"].items())
            lines.append(f"  {name}{':' if fields else ''}{fields}")
            lines.append(f"      {part['title']}")
            if part["source"]:
                lines.append(f"      {part['source']}")
        lines.append("")
    return lines[:-1]
