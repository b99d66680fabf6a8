"""A plan as text."""

from __future__ import annotations

from typing import Any

from streamsgd.messages import counted, format_bytes
from streamsgd.show.tables import cut, duration, short, size, sizes, table

MEMORY_PARTS = {
    "interpreter": "interpreter and libraries",
    "footers": "footers of open files",
    "decode": "decoding in flight",
    "blocks": "blocks",
    "model": "model, optimizer, checkpoint",
    "cache": "encoded rows for later passes",
    "reserve": "reserve for what allocators keep",
}


def plan_text(plan: dict[str, Any]) -> list[str]:
    """Return the lines of `plan` from what `outlook` found."""
    memory, guess = plan["memory"], plan["estimate"]
    shown, more = cut(plan["columns"], "column")
    header = ("column", "role", "type", "decoded", "encoded")
    keys = ("decoded_bytes", "encoded_bytes")
    rows = [(c["name"], c["role"], short(c["type"]), *(size(c[key]) for key in keys)) for c in shown]
    parts = [f"{'' if k else 'parts':9} {kind} {spec}" for k, (kind, spec) in enumerate(plan["parts"].items())]
    peak, limit = format_bytes(memory["projected"]), format_bytes(memory["limit"])
    return [
        sizes(plan["data"]),
        "",
        *table(header, rows, left=3),
        *more,
        "(encoded: compressed, from the footers of some files)",
        "",
        f"target    {plan['target']['name']}, {plan['target']['task']}",
        *parts,
        f"shuffle   {plan['shuffle']}, seed {plan['seed']}",
        *_order_text(plan),
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
        *([plan["rare_in_words"].replace("rare: ", "rare      ")] if "rare" in plan else []),
        *(f"encoding  {line}" for line in plan["chosen"].splitlines()),
        *([plan["held_out"].replace("held out: ", "held out  ")] if plan["held_out"] else []),
        *([f"polish    at most {plan['polish']:,} passes more"] if plan["polish"] else []),
        *(["errors    one pass more"] if plan["standard_errors"] else []),
        *([f"draws     by {plan['method']}, in about three passes more"] if plan["method"] else []),
        "",
        f"memory    {peak} projected peak of {limit}, {counted(plan['threads'], 'reading thread')}",
        *(f"          {format_bytes(size):>8}  {MEMORY_PARTS.get(name, name)}" for name, size in memory["parts"].items()),
        *(f"          {line}" for line in memory["decides"]),
        *_cache_text(plan["cache"]),
        "",
        f"time      about {duration(guess['seconds'])}, decoding alone {duration(guess['read_seconds'])};",
        (
            f"          an estimate, from decoding {guess['rows_decoded_to_estimate']:,} rows at "
            f"{guess['rows_per_second_and_thread']:,.0f} rows/s on one thread"
        ),
    ]


def _cache_text(cache: dict[str, Any] | None) -> list[str]:
    """Return how much of the encoded rows is kept for later passes, and where."""
    if cache is None:
        return []
    whole, share = format_bytes(cache["encoded_bytes"]), cache["in_memory"]
    words = f"{share:.0%} of {whole} of encoded rows in memory"
    if cache["on_disk"]:
        place = cache["folder"] or "a temporary folder"
        most = "" if cache["most_on_disk"] is None else f", at most {format_bytes(cache['most_on_disk'])}"
        words += f", the rest in {place}{most}" if share < 1.0 else ""
        words += f", all of them in {place}" if cache["kept"] and share >= 1.0 else ""
        words += ", for later runs too" if cache["kept"] else ""
    elif share < 1.0:
        words += ", the rest is read again in every pass"
    return [f"cache     {words}"]


def _order_text(plan: dict[str, Any]) -> list[str]:
    """Return what the look at the target found."""
    order, on_disk = plan["order"], plan["shuffled_on_disk_bytes"]
    lines = (
        [f"          on disk first, in about {format_bytes(on_disk)}; chunks are those of the rows there"] if on_disk else []
    )
    if order is None:
        return lines
    words = (
        f"order     {order['between_chunks']:.2%} of the target's variance between chunks of {order['units_per_chunk']:.1f} of "
        f"{order['units']:,} units, batches {order['batch_noise']:.1f} times as noisy as of shuffled rows"
    )
    risk = ": a risk" if order["risk"] and not on_disk else ": no risk" if not order["risk"] else ", before the shuffle"
    return [*lines, words + risk]
