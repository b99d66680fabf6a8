"""An inspection as text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from streamsgd.messages import counted, few, format_bytes
from streamsgd.show.tables import MOST_ROWS, cut, number, short, size, sizes, table

if TYPE_CHECKING:
    from collections.abc import Callable

    from streamsgd.inspection.order import OrderRisk, TargetMix
    from streamsgd.inspection.summary import Inspection, Spread


def inspection_text(found: Inspection) -> list[str]:
    """Return the lines of `inspect`."""
    lines = [sizes(found.to_dict())]
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
    shown, more = cut(found.columns, "column")
    header = ("column", "type", "encoded", "null", "NaN", "min", "max", "mean", "std")
    rows = []
    for c in shown:
        counts = (f"{c.nulls:,}", f"{c.nans + c.infinite:,}")
        values = map(number, (c.min, c.max, c.mean, c.std))
        rows.append((c.name, short(c.type), size(c.encoded_bytes), *counts, *values))
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
    shown, more = cut(chosen, "column")
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
        "  train would shuffle all rows on disk first (--shuffle external), unless --shuffle says otherwise"
        if order.on_disk
        else "  train would learn from chunks as they are (--shuffle corgi): no shuffle on disk",
    ]
