"""The filter expression: text in Python's syntax becomes a pyarrow expression.

The text is parsed, never evaluated. A comparison with null is null, and a row whose condition is null is left
out, as in SQL.
"""

import ast
import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from difflib import get_close_matches
from operator import and_, eq, ge, gt, le, lt, ne, or_
from typing import Any, NoReturn

import pyarrow as pa
import pyarrow.compute as pc

from streamsgd.data.filesystems import first_line
from streamsgd.data.pruning import ARROW_ERRORS
from streamsgd.errors import SettingsError

__all__ = ["ALLOWED", "filter_columns", "parse_filter"]


ALLOWED = (
    "allowed are comparisons (== != < <= > >=), and, or, not, in [...], is None, + - * / %, parentheses, "
    "numbers, 'text', True, False, and columns (`in backticks` if not a plain name)"
)

LONGEST = 100_000  # characters

_TOKEN = re.compile(r"'(?:\\.|[^'\\])*'|\"(?:\\.|[^\"\\])*\"|`([^`]+)`")


def parse_filter(text: str, schema: Any) -> Any:
    """Return the pyarrow expression of a condition on the columns of `schema`.

    Text that is compared with a date or timestamp column is read as ISO 8601, in the column's time zone.
    Raises `SettingsError` saying what is not allowed and where, or which column is unknown.
    """
    tree, parser = _parse(text, schema)
    try:
        expression = parser.build(tree)
        kind = parser.type(expression)
    except RecursionError:
        raise SettingsError(f"filter {text[:60]!r}...: is nested too deeply; simplify it") from None
    except ARROW_ERRORS as error:
        raise SettingsError(f"filter {text!r}: {first_line(error)}") from error
    if not pa.types.is_boolean(kind):
        raise SettingsError(f"filter {text!r}: is {kind} and not a condition; compare it with something")
    return expression


def filter_columns(text: str, schema: Any) -> tuple[str, ...]:
    """Return the columns that a condition needs, in order of appearance. Raises as `parse_filter` does."""
    tree, parser = _parse(text, schema)
    names = [node for node in ast.walk(tree) if isinstance(node, ast.Name)]
    names.sort(key=lambda node: (node.lineno, node.col_offset))
    return tuple(dict.fromkeys(parser.column(node) for node in names))


def _parse(text: str, schema: Any) -> tuple[ast.expr, "_Parser"]:
    if len(text) > LONGEST:
        raise SettingsError(f"filter: has {len(text):,} characters, more than {LONGEST:,}; simplify it")
    text = text.strip()
    if not text:
        raise SettingsError(f"filter: is empty; {ALLOWED}")
    quoted: dict[str, str] = {}

    def hide(match: re.Match[str]) -> str:
        """Put a name of the same length in place of a column in backticks, so that positions stay."""
        if match[1] is None:
            return match[0]
        name = chr(0x20000 + len(quoted)) * len(match[0])
        quoted[name] = match[1]
        return name

    try:
        plain = _TOKEN.sub(hide, text)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Python's advice on its own syntax, such as "is" with a number
            tree = ast.parse(plain, mode="eval").body
    except SyntaxError as error:
        raise SettingsError(f"filter {text!r}: {error.msg} at character {error.offset}; {ALLOWED}") from None
    except (ValueError, RecursionError, MemoryError) as error:
        raise SettingsError(f"filter {text[:60]!r}: cannot be parsed: {first_line(error)}") from None
    return tree, _Parser(text, schema, plain, quoted)


@dataclass(frozen=True)
class _Parser:
    text: str  # as the user wrote it
    schema: Any
    plain: str  # what Python parsed
    quoted: dict[str, str]

    def build(self, node: ast.expr) -> Any:
        rule = _RULES.get(type(node))
        return rule(self, node) if rule else self.refuse(node, "is not allowed")

    def refuse(self, node: ast.expr, why: str) -> NoReturn:
        piece = ast.get_source_segment(self.plain, node) or ""
        for name, original in self.quoted.items():
            piece = piece.replace(name, f"`{original}`")
        start = len(self.plain.encode()[: node.col_offset].decode()) + 1
        raise SettingsError(f"filter {self.text!r}: {piece!r} at character {start} {why}; {ALLOWED}")

    def column(self, node: ast.Name) -> str:
        name = self.quoted.get(node.id, node.id)
        if name not in self.schema.names:
            close = get_close_matches(name, [*self.schema.names, "None", "True", "False"], 1, 0.5)
            self.refuse(node, "is not a column" + (f" (did you mean {close[0]!r}?)" if close else ""))
        return name

    def type(self, expression: Any) -> Any:
        """Return the type of an expression, from binding it to no rows."""
        import pyarrow.dataset as pads  # noqa: PLC0415  it loads pandas where there is one, a quarter of a second

        scanner = pads.dataset(self.schema.empty_table()).scanner(columns={"value": expression})
        return scanner.projected_schema.field("value").type


def _name(parser: _Parser, node: ast.Name) -> Any:
    return pc.field(parser.column(node))


def _constant(parser: _Parser, node: ast.Constant) -> Any:
    if node.value is None:
        parser.refuse(node, "can only be used as `is None` or `is not None`")
    return pc.scalar(_scalar(parser, node, None))


def _boolean(parser: _Parser, node: ast.BoolOp) -> Any:
    return _balanced(and_ if isinstance(node.op, ast.And) else or_, [parser.build(v) for v in node.values])


def _balanced(join: Callable[[Any, Any], Any], parts: Sequence[Any]) -> Any:
    """Join as a tree and not as a chain: Arrow walks it recursively, and a long chain overflows the stack."""
    if len(parts) == 1:
        return parts[0]
    half = len(parts) // 2
    return join(_balanced(join, parts[:half]), _balanced(join, parts[half:]))


def _unary(parser: _Parser, node: ast.UnaryOp) -> Any:
    if _is_literal(node):
        return pc.scalar(_scalar(parser, node, None))
    if isinstance(node.op, ast.Not):
        return ~parser.build(node.operand)
    if isinstance(node.op, ast.USub):
        return pc.scalar(pa.scalar(0, pa.int64())) - _number(parser, node.operand)
    return parser.build(node.operand) if isinstance(node.op, ast.UAdd) else parser.refuse(node, "is not allowed")


def _arithmetic(parser: _Parser, node: ast.BinOp) -> Any:
    rule = _ARITHMETIC.get(type(node.op))
    if rule is None:
        hint = {ast.BitAnd: " (write and)", ast.BitOr: " (write or)"}.get(type(node.op), "")
        parser.refuse(node, "is not allowed" + hint)
    left, right = _number(parser, node.left), _number(parser, node.right)
    if isinstance(node.op, ast.Mod):
        if not _is_literal(node.right) or _value(node.right) == 0:
            parser.refuse(node.right, "after % must be a number other than 0")
        return _modulo(left, right, pa.types.is_integer(parser.type(left - right)))
    return rule(left, right)


def _number(parser: _Parser, node: ast.expr) -> Any:
    """Return an operand in 64 bits: Arrow calculates in the narrowest type, where int8 * 100 overflows."""
    value = parser.build(node)
    kind = parser.type(value)
    if not _is_number(kind):
        parser.refuse(node, f"is {kind}, with which one cannot calculate")
    if _is_literal(node) or pa.types.is_decimal(kind) or kind == pa.uint64():
        return value
    return value.cast(pa.float64() if pa.types.is_floating(kind) else pa.int64())


def _is_number(kind: Any) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind))


def _modulo(left: Any, right: Any, whole: bool) -> Any:
    """Return left - right floor(left / right), as Python has it: the sign is that of `right`."""
    if not whole:
        return left - right * pc.floor(_divide(left, right))
    rest = left - right * pc.divide(left, right)  # Arrow rounds the quotient of integers towards 0
    return (rest + right) - right * pc.divide(rest + right, right)


def _divide(left: Any, right: Any) -> Any:
    return pc.divide(left.cast(pa.float64()), right.cast(pa.float64()))


_ARITHMETIC: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: lambda a, b: a + b,
    ast.Sub: lambda a, b: a - b,
    ast.Mult: lambda a, b: a * b,
    ast.Div: _divide,
    ast.Mod: _divide,
}


def _compare(parser: _Parser, node: ast.Compare) -> Any:
    sides = [node.left, *node.comparators]
    pairs = zip(sides, node.ops, sides[1:], strict=False)
    return _balanced(and_, [_compare_two(parser, *pair) for pair in pairs])


def _compare_two(parser: _Parser, left: ast.expr, op: ast.cmpop, right: ast.expr) -> Any:
    if isinstance(op, ast.In | ast.NotIn):
        return _is_in(parser, left, right, negated=isinstance(op, ast.NotIn))
    if isinstance(op, ast.Is | ast.IsNot):
        if not isinstance(right, ast.Constant) or right.value is not None:
            parser.refuse(right, "after `is` must be None; write == for values")
        value = parser.build(left)
        return value.is_null() if isinstance(op, ast.Is) else value.is_valid()
    compare = _COMPARISONS[type(op)]
    if _is_literal(right) and not _is_literal(left):
        value = parser.build(left)
        return compare(value, pc.scalar(_scalar(parser, right, parser.type(value))))
    if _is_literal(left) and not _is_literal(right):
        value = parser.build(right)
        return compare(pc.scalar(_scalar(parser, left, parser.type(value))), value)
    return compare(parser.build(left), parser.build(right))


def _is_in(parser: _Parser, left: ast.expr, right: ast.expr, *, negated: bool) -> Any:
    if not isinstance(right, ast.List | ast.Tuple | ast.Set) or not all(map(_is_literal, right.elts)):
        parser.refuse(right, "after `in` must be a list of values")
    value = parser.build(left)
    kind = parser.type(value)
    scalars = [_scalar(parser, item, kind) for item in right.elts]
    bare = kind.value_type if pa.types.is_dictionary(kind) else kind
    values = pa.array([scalar.as_py() for scalar in scalars], scalars[0].type if scalars else bare)
    found = value.isin(values)
    return ~found & value.is_valid() if negated else found


_COMPARISONS: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Eq: eq,
    ast.NotEq: ne,
    ast.Lt: lt,
    ast.LtE: le,
    ast.Gt: gt,
    ast.GtE: ge,
}

_RULES: dict[type[ast.expr], Callable[[_Parser, Any], Any]] = {
    ast.Name: _name,
    ast.Constant: _constant,
    ast.BoolOp: _boolean,
    ast.UnaryOp: _unary,
    ast.BinOp: _arithmetic,
    ast.Compare: _compare,
}


def _is_literal(node: ast.expr) -> bool:
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
        return isinstance(node.operand, ast.Constant) and type(node.operand.value) in (int, float)
    return isinstance(node, ast.Constant)


def _value(node: Any) -> Any:
    if isinstance(node, ast.Constant):
        return node.value
    return -node.operand.value if isinstance(node.op, ast.USub) else node.operand.value


def _scalar(parser: _Parser, node: ast.expr, kind: Any) -> Any:
    """Return a literal as the Arrow scalar that compares exactly with type `kind` (None: with any)."""
    value = _value(node)
    if value is None:
        parser.refuse(node, "cannot be compared; write `is None` or `is not None`")
    if type(value) not in _SCALARS:
        parser.refuse(node, "is not allowed")
    if kind is None:
        return pa.scalar(value, _SCALARS[type(value)])
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    if isinstance(value, str):
        return _text(parser, node, value, kind)
    if isinstance(value, bool) or (pa.types.is_boolean(kind) and value in (0, 1)):
        return pa.scalar(bool(value)) if pa.types.is_boolean(kind) else _mismatch(parser, node, kind)
    if not _is_number(kind):
        _mismatch(parser, node, kind)
    if pa.types.is_decimal(kind):
        return pa.scalar(Decimal(repr(value)))
    return _narrow(value, kind)


_SCALARS = {bool: pa.bool_(), int: pa.int64(), float: pa.float64(), str: pa.string()}


def _mismatch(parser: _Parser, node: ast.expr, kind: Any) -> NoReturn:
    parser.refuse(node, f"cannot be compared with {kind}")


def _narrow(value: float, kind: Any) -> Any:
    """Return a number in the column's own integer type if it fits, which is what the statistics are in."""
    if isinstance(value, int) and pa.types.is_integer(kind):
        try:
            return pa.scalar(value, kind)
        except (pa.ArrowInvalid, OverflowError):
            return pa.scalar(value, pa.int64())
    return pa.scalar(value, pa.int64() if isinstance(value, int) else pa.float64())


def _text(parser: _Parser, node: ast.expr, value: str, kind: Any) -> Any:
    if pa.types.is_date(kind) or pa.types.is_timestamp(kind):
        return _moment(parser, node, value, kind)
    texts = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
    return pa.scalar(value) if any(test(kind) for test in texts) else _mismatch(parser, node, kind)


def _moment(parser: _Parser, node: ast.expr, value: str, kind: Any) -> Any:
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        parser.refuse(node, f"is compared with {kind}: write it like 2024-01-31 12:30")
    if pa.types.is_date(kind):
        whole = moment == datetime(moment.year, moment.month, moment.day)  # noqa: DTZ001 - a date has no zone
        return pa.scalar(moment.date()) if whole else parser.refuse(node, "has a time but the column is a date")
    if kind.tz is None:
        if moment.tzinfo is not None:
            parser.refuse(node, "has a time zone but the column has none")
        return pa.scalar(moment, pa.timestamp("us"))
    if moment.tzinfo is not None:
        return pa.scalar(moment, pa.timestamp("us", kind.tz))
    return pc.assume_timezone(pa.scalar(moment, pa.timestamp("us")), kind.tz)
