"""Forms of files that are given in the place of a model: what each is, and who reads it."""

from __future__ import annotations

PARQUET = "is Parquet, which holds rows"

_ONNX = "is a graph of ONNX, which ONNX Runtime scores"

_EXPORT = "which streamsgd.serving.load scores"

_TAGS = frozenset(b"\x12\x1a\x22\x28\x32\x3a\x42")
"""Of the fields of an ONNX model behind its version, which comes first."""


def export_form(data: bytes) -> str:
    """Return what a file is that another program than `streamsgd` scores, or `streamsgd.serving` alone; empty for others."""
    if data[:1] == b"\x08" and len(data) > 2 and data[1] < 32 and data[2] in _TAGS and data[8:9] != b"{":
        return _ONNX
    if data[:1] == b"{" and all(f'"{name}"'.encode() in data for name in ("encoding", "loss", "weights")):
        return f"is the export of a model as JSON, {_EXPORT}"
    if data[:2] == b"PK" and b"header.npy" in data and b"weights.npy" in data:
        return f"is the export of a model for NumPy, {_EXPORT}"
    return ""


def other_form(data: bytes) -> str:
    """Return what a file is that is none of a model itself, if that is known; else empty."""
    return PARQUET if data[:4] == b"PAR1" else export_form(data)
