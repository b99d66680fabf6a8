"""Structs of a Parquet footer as dictionaries: the compact protocol of Thrift, read with every length checked.

https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md. For few structs; `kernels.thrift` skips many.
"""

from __future__ import annotations

from typing import Any

from streamsgd.kernels.thrift import BINARY, BYTE, DEEPEST, DOUBLE, FALSE, I16, I64, LIST, SET, STOP, STRUCT


def read_struct(data: bytes, start: int, stop: int) -> dict[int, Any]:
    """Return the fields of the struct that begins at byte `start` of the data and ends before `stop`, by number.

    Integers are int, strings bytes, lists lists, structs dictionaries; float64 is left as bytes.

    Raises
    ------
    ValueError
        There is no such struct.

    """
    reader = _Reader(data, start, stop)
    return reader.struct(DEEPEST)


class _Reader:
    """A place in bytes that moves on."""

    def __init__(self, data: bytes, at: int, stop: int) -> None:
        self.data, self.at, self.stop = data, at, min(stop, len(data))

    def byte(self) -> int:
        if self.at >= self.stop:
            raise ValueError("the footer ends within a struct")
        self.at += 1
        return self.data[self.at - 1]

    def varint(self) -> int:
        value = shift = 0
        while shift < 64:
            byte = self.byte()
            value |= (byte & 127) << shift
            if byte < 128:
                return value
            shift += 7
        raise ValueError("a number of the footer is longer than 64 bits")

    def number(self) -> int:
        value = self.varint()
        return (value >> 1) ^ -(value & 1)

    def bytes(self, size: int) -> bytes:
        if size > self.stop - self.at:
            raise ValueError("the footer ends within a string")
        self.at += size
        return self.data[self.at - size : self.at]

    def struct(self, deepest: int) -> dict[int, Any]:
        fields: dict[int, Any] = {}
        field = 0
        while (header := self.byte()) & 15 != STOP:
            kind = header & 15
            field = field + (header >> 4) if header >> 4 else self.number()
            fields[field] = kind < FALSE if kind <= FALSE else self.value(kind, deepest)
        return fields

    def list(self, deepest: int) -> list[Any]:
        header = self.byte()
        size = header >> 4 if header >> 4 < 15 else self.varint()
        if size > self.stop - self.at:
            raise ValueError("a list of the footer is longer than the footer")
        return [self.value(header & 15, deepest) for _ in range(size)]

    def value(self, kind: int, deepest: int) -> Any:
        if kind <= BYTE:
            return self.byte()
        if I16 <= kind <= I64:
            return self.number()
        if kind == DOUBLE:
            return self.bytes(8)
        if kind == BINARY:
            return self.bytes(self.varint())
        if kind in (LIST, SET) and deepest:
            return self.list(deepest - 1)
        if kind == STRUCT and deepest:
            return self.struct(deepest - 1)
        raise ValueError(f"the footer holds a value of the unknown kind {kind}")
