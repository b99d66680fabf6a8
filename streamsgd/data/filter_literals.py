"""Values that stand in a condition as they are: numbers, which may have a sign, texts, True, False and None."""

import ast
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc


def is_literal(node: ast.expr) -> bool:
    """Whether a node is a value, or a number with a sign."""
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
        return isinstance(node.operand, ast.Constant) and type(node.operand.value) in (int, float)
    return isinstance(node, ast.Constant)


def value_of(node: Any) -> Any:
    """Return the value of a literal."""
    if isinstance(node, ast.Constant):
        return node.value
    return -node.operand.value if isinstance(node.op, ast.USub) else node.operand.value


def is_whole(node: ast.expr) -> bool:
    """Whether a node is a whole number."""
    return is_literal(node) and type(value_of(node)) is int


def as_decimal(node: ast.expr) -> Any:
    """Return a whole number as an Arrow expression: a decimal of as many digits as it has."""
    value = Decimal(value_of(node))
    return pc.scalar(pa.scalar(value, pa.decimal128(len(value.as_tuple().digits), 0)))
