"""Categories that are whole numbers, and floats in other data: from 2^53 on a float does not say which number it is."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from streamsgd.errors import DataError
from streamsgd.serving.exact import TOLD, least_untold, number_type


def exact_ids(name: str, trained: str, values: Any) -> Any:
    """Return numbers that are categories as training took them: NaN in the place of an integer is null.

    Parameters
    ----------
    name
        The column, for the message.
    trained
        Its type in training, as Arrow writes it; of lists and maps that of the whole column.
    values
        Arrow array.

    Raises
    ------
    DataError
        There are floats in the place of whole numbers, or the reverse, that do not say which number they are.

    """
    kind = values.type
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)):
        return values
    least = least_untold(number_type(trained), str(kind))
    if least is None:
        return values
    if str(kind) in TOLD:
        values = pc.if_else(pc.is_nan(values), pa.scalar(None, kind), values)
    ends = pc.min_max(values).as_py()
    if ends["min"] is None or -least < ends["min"] <= ends["max"] < least:
        return values
    large = [value for value in values.drop_null().to_pylist() if least <= abs(value) < float("inf")]
    if not large:
        return values
    shown = f"{large[0]:.17g}" if str(kind) in TOLD else f"{large[0]}"
    raise DataError(
        f"category {name!r} is of type {kind} here and was {trained} in training, and holds {len(large):,} numbers "
        f"such as {shown}: from {least:,} on, one float stands for several whole numbers, so nobody can tell which is which. "
        "Write the column as integers, or as strings, in all data"
    )
