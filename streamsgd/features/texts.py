"""Texts as bytes, in small letters."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from streamsgd.data.types import is_text
from streamsgd.features.arrow import as_bytes


def prepare_texts(texts: Any, *, fold: bool) -> Any:
    """Return an Arrow array of texts as bytes, null as no text, in small letters if `fold`."""
    texts = as_bytes(pc.fill_null(texts, "") if is_text(texts.type) and texts.null_count else texts)
    if not fold:
        return texts
    wide = pa.types.is_large_binary(texts.type)
    kind = pa.large_string() if wide else pa.string()
    try:
        folded = pc.utf8_lower(texts.cast(kind))
    except pa.ArrowInvalid:
        folded = _folded_apart(texts, kind)
    return folded.cast(pa.large_binary() if wide else pa.binary())


def _folded_apart(texts: Any, kind: Any) -> Any:
    """Fold texts of which some are not UTF-8: of those only what is ASCII."""
    valid = np.array([_is_utf8(text) for text in texts.to_pylist()], np.bool_)
    order = np.argsort(np.concatenate([np.flatnonzero(valid), np.flatnonzero(~valid)]), kind="stable")
    good = pc.utf8_lower(texts.filter(pa.array(valid)).cast(kind))
    bad = texts.filter(pa.array(~valid))
    bad = pa.array([text.lower() for text in bad.to_pylist()], texts.type)
    return pa.concat_arrays([good.cast(texts.type), bad]).take(pa.array(order))


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True
