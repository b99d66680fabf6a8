"""The variance of gradients of chunks that hold some of the row groups."""

from __future__ import annotations


def between_chunks(between: float, units: float, per_chunk: float) -> float:
    """Return V_c / sigma^2, the variance of the means of chunks of `per_chunk` units drawn without replacement."""
    per_chunk = min(max(1.0, per_chunk), units)
    return (1.0 - per_chunk / units) * between / per_chunk


def design_effect(between: float, units: float, per_chunk: float, rows: float, batch: int) -> float:
    """Return Var / (sigma^2 / b) of the corgi sampler, with `between` = S^2 / sigma^2; see the module."""
    per_chunk = min(max(1.0, per_chunk), units)
    buffer = max(2.0, per_chunk * rows)
    b = min(float(batch), buffer)
    of_chunks = between_chunks(between, units, per_chunk)
    return b * (of_chunks + (1.0 / b - 1.0 / buffer) * buffer / (buffer - 1.0) * (1.0 - of_chunks))
