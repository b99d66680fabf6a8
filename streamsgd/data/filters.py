"""The filter expression: text in Python's syntax becomes a pyarrow expression.

The text is parsed, never evaluated. A comparison with null is null, and a row whose condition is null is left
out, as in SQL.
"""

import ast
import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from functools import partial
from operator import and_, eq, ge, gt, le, lt, ne, or_
from typing import Any, NoReturn

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from streamsgd.data.comparisons import LITERALS, check_range, compare, in_common, is_in, is_number
from streamsgd.data.filter_faults import ALLOWED, in_quotes, syntax_fault, unknown_column
from streamsgd.data.filter_literals import as_decimal, is_literal, is_whole, value_of
from streamsgd.data.stores.filesystems import first_line
from streamsgd.errors import DataError, SettingsError

__all__ = ["ALLOWED", "ARROW_ERRORS", "RowFilter", "filter_columns", "parse_filter", "row_filter"]


ARROW_ERRORS = (pa.ArrowException, TypeError, ValueError, KeyError, OverflowError)


LONGEST = 100_000  # characters

MOST_DIGITS = 76
"""Of a decimal of Arrow's."""

_TOKEN = re.compile(r"'(?:\\.|[^'\\])*'|\"(?:\\.|[^\"\\])*\"|`([^`]+)`")


@dataclass(frozen=True)
class RowFilter:
    """A condition on rows, which means the same whatever types a file holds its columns in."""

    text: str
    columns: tuple[str, ...]
    """Columns that it needs."""
    flag: str = "--filter"
    """What messages call it."""
    _expressions: dict[Any, Any] = field(default_factory=dict, compare=False, repr=False)

    def __str__(self) -> str:
        return self.text

    def __getstate__(self) -> dict[str, Any]:
        return {"text": self.text, "columns": self.columns, "flag": self.flag, "_expressions": {}}

    def expression(self, schema: Any) -> Any:
        """Return the pyarrow expression for columns of these types."""
        if schema not in self._expressions:
            self._expressions[schema] = parse_filter(self.text, schema)
        return self._expressions[schema]

    def keep(self, columns: dict[str, Any], where: str) -> Any:
        """Return which rows fulfil it, a NumPy array of bool.

        Raises
        ------
        DataError
            It cannot be worked out for some value, as where a product is too large.

        """
        table = pa.table({name: columns[name] for name in self.columns})
        n_rows = len(next(iter(columns.values())))
        rows = pa.table({"__row__": np.arange(n_rows)} | {name: table.column(name) for name in self.columns})
        try:
            kept = rows.filter(self.expression(table.schema))["__row__"].to_numpy()
        except ARROW_ERRORS as error:
            raise DataError(f"{where}: {self.flag} {self.text!r} cannot be worked out: {first_line(error)}") from error
        wanted = np.zeros(n_rows, np.bool_)
        wanted[kept] = True
        return wanted


def row_filter(text: str, schema: Any, flag: str = "--filter") -> RowFilter:
    """Return the condition on the columns of `schema`. Raises as `parse_filter` does, in the words of the flag."""
    word = flag.removeprefix("--") if flag == "--filter" else flag
    made = RowFilter(text, filter_columns(text, schema, word), flag)
    parse_filter(text, schema, word)
    return made


def parse_filter(text: str, schema: Any, word: str = "filter") -> Any:
    """Return the pyarrow expression of a condition on the columns of `schema`.

    Text that is compared with a date or timestamp column is read as ISO 8601, in the column's time zone. Messages call the
    condition `word`.
    Raises `SettingsError` saying what is not allowed and where, or which column is unknown.
    """
    tree, parser = _parse(text, schema, word)
    try:
        expression = parser.condition(tree)
        parser.type(expression)  # what cannot be compared is found by Arrow
    except RecursionError:
        raise SettingsError(f"{word} {text[:60]!r}...: is nested too deeply; simplify it") from None
    except ARROW_ERRORS as error:
        raise SettingsError(f"{word} {text!r}: {first_line(error)}") from error
    return expression


def filter_columns(text: str, schema: Any, word: str = "filter") -> tuple[str, ...]:
    """Return the columns that a condition needs, in order of appearance. Raises as `parse_filter` does."""
    tree, parser = _parse(text, schema, word)
    names = [node for node in ast.walk(tree) if isinstance(node, ast.Name)]
    names.sort(key=lambda node: (node.lineno, node.col_offset))
    return tuple(dict.fromkeys(parser.column(node) for node in names))


def _parse(text: str, schema: Any, word: str) -> tuple[ast.expr, "_Parser"]:
    if len(text) > LONGEST:
        raise SettingsError(f"{word}: has {len(text):,} characters, more than {LONGEST:,}; simplify it")
    text = text.strip()
    if not text:
        raise SettingsError(f"{word}: is empty; {ALLOWED}")
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
        raise SettingsError(f"{word} {text!r}: {syntax_fault(text, error)}; {ALLOWED}") from None
    except (ValueError, RecursionError, MemoryError) as error:
        raise SettingsError(f"{word} {text[:60]!r}: cannot be parsed: {first_line(error)}") from None
    return tree, _Parser(text, schema, plain, quoted, word=word)


@dataclass(frozen=True)
class _Parser:
    text: str  # as the user wrote it
    schema: Any
    plain: str  # what Python parsed
    quoted: dict[str, str]
    negated: bool = False
    """Whether what is built now is under a `not`."""
    word: str = "filter"

    def build(self, node: ast.expr) -> Any:
        rule = _RULES.get(type(node))
        return rule(self, node) if rule else self.refuse(node, "is not allowed")

    def condition(self, node: ast.expr) -> Any:
        """Return what stands where a condition is wanted: a column without a type is null there."""
        value = self.build(node)
        if isinstance(node, ast.Compare | ast.BoolOp) or isinstance(getattr(node, "op", None), ast.Not):
            return value
        kind = self.type(value)
        if pa.types.is_null(kind):
            return value.cast(pa.bool_())
        return (
            value
            if pa.types.is_boolean(kind)
            else self.refuse(node, f"is {kind} and not a condition; compare it with something")
        )

    def refuse(self, node: ast.expr, why: str) -> NoReturn:
        piece = ast.get_source_segment(self.plain, node) or ""
        for name, original in self.quoted.items():
            piece = piece.replace(name, f"`{original}`")
        start = len(self.plain.encode()[: node.col_offset].decode()) + 1
        raise SettingsError(f"{self.word} {self.text!r}: {piece!r} at character {start} {why}{in_quotes(piece)}; {ALLOWED}")

    def column(self, node: ast.Name) -> str:
        name = self.quoted.get(node.id, node.id)
        if name not in self.schema.names:
            self.refuse(node, unknown_column(name, self.schema.names))
        return name

    def type(self, expression: Any) -> Any:
        """Return the type of an expression, from binding it to no rows."""
        import pyarrow.dataset as pads  # noqa: PLC0415  it loads pandas where there is one, a quarter of a second

        scanner = pads.dataset(self.schema.empty_table()).scanner(columns={"value": expression})
        return scanner.projected_schema.field("value").type


def _name(parser: _Parser, node: ast.Name) -> Any:
    return pc.field(parser.column(node))


def _constant(parser: _Parser, node: ast.expr) -> Any:
    value = value_of(node)
    if value is None:
        parser.refuse(node, "can only be used as `is None` or `is not None`")
    if type(value) not in LITERALS:
        parser.refuse(node, "is not allowed")
    check_range(value, partial(parser.refuse, node))
    return pc.scalar(pa.scalar(value, LITERALS[type(value)]))


def _boolean(parser: _Parser, node: ast.BoolOp) -> Any:
    return _balanced(and_ if isinstance(node.op, ast.And) else or_, [parser.condition(v) for v in node.values])


def _balanced(join: Callable[[Any, Any], Any], parts: Sequence[Any]) -> Any:
    """Join as a tree and not as a chain: Arrow walks it recursively, and a long chain overflows the stack."""
    if len(parts) == 1:
        return parts[0]
    half = len(parts) // 2
    return join(_balanced(join, parts[:half]), _balanced(join, parts[half:]))


def _unary(parser: _Parser, node: ast.UnaryOp) -> Any:
    if is_literal(node):
        return _constant(parser, node)
    if isinstance(node.op, ast.Not):
        return ~replace(parser, negated=True).condition(node.operand)
    if isinstance(node.op, ast.USub):
        value = _number(parser, node.operand)
        return pc.scalar(_zero(parser.type(value))) - value
    return parser.build(node.operand) if isinstance(node.op, ast.UAdd) else parser.refuse(node, "is not allowed")


def _arithmetic(parser: _Parser, node: ast.BinOp) -> Any:
    rule = _ARITHMETIC.get(type(node.op))
    if rule is None:
        hint = {ast.BitAnd: " (write and)", ast.BitOr: " (write or)"}.get(type(node.op), "")
        parser.refuse(node, "is not allowed" + hint)
    left, right = _operands(parser, node, rule)
    if isinstance(node.op, ast.Mod):
        if not is_literal(node.right) or value_of(node.right) == 0:
            parser.refuse(node.right, "after % must be a number other than 0")
        return _modulo(left, right, pa.types.is_integer(parser.type(left - right)))
    return rule(left, right)


def _operands(parser: _Parser, node: ast.BinOp, rule: Callable[[Any, Any], Any]) -> list[Any]:
    """Return both sides, whole numbers beside decimals as those: Arrow would take 19 digits for each."""
    sides = [node.left, node.right]
    values = [_number(parser, side) for side in sides]
    if not any(pa.types.is_decimal(parser.type(value)) for value in values):
        return values
    values = [as_decimal(side) if is_whole(side) else value for side, value in zip(sides, values, strict=True)]
    try:
        parser.type(rule(*values))
    except ARROW_ERRORS:
        parser.refuse(
            node,
            f"needs more than the {MOST_DIGITS} digits of decimals: divide a column by 1, which calculates in floating point",
        )
    return values


def _zero(kind: Any) -> Any:
    return pa.scalar(Decimal(0), pa.decimal128(1, 0)) if pa.types.is_decimal(kind) else pa.scalar(0, pa.int64())


def _number(parser: _Parser, node: ast.expr) -> Any:
    """Return an operand in 64 bits, or more: Arrow calculates in the narrowest type, where int8 * 100 overflows."""
    value = parser.build(node)
    kind = parser.type(value)
    if pa.types.is_null(kind):
        return value.cast(pa.float64())
    if pa.types.is_decimal(kind):
        return value.cast(pa.decimal256(kind.precision, kind.scale))
    if not is_number(kind):
        parser.refuse(node, f"is {kind}, with which one cannot calculate")
    if is_literal(node) or kind == pa.uint64():
        return value
    return value.cast(pa.float64() if pa.types.is_floating(kind) else pa.int64())


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
    if is_literal(right) and not is_literal(left):
        return _compare_literal(parser, left, _COMPARISONS[type(op)], right)
    if is_literal(left) and not is_literal(right):
        return _compare_literal(parser, right, _MIRRORED[type(op)], left)
    values = [parser.build(left), parser.build(right)]
    kinds = [parser.type(value) for value in values]
    found = _COMPARISONS[type(op)](*in_common(values[0], kinds[0], values[1], kinds[1]))
    try:
        parser.type(found)
    except ARROW_ERRORS:
        parser.refuse(right, f"is {kinds[1]}, which cannot be compared with {kinds[0]}")
    return found


def _compare_literal(parser: _Parser, side: ast.expr, operator: Any, literal: ast.expr) -> Any:
    value = parser.build(side)
    return compare(operator, value, _bare(parser.type(value)), _checked(parser, literal), partial(parser.refuse, literal))


def _checked(parser: _Parser, node: ast.expr) -> Any:
    """Return the value of a literal that can be compared."""
    value = value_of(node)
    if value is None:
        parser.refuse(node, "cannot be compared; write `is None` or `is not None`")
    return value if type(value) in LITERALS else parser.refuse(node, "is not allowed")


def _bare(kind: Any) -> Any:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _is_in(parser: _Parser, left: ast.expr, right: ast.expr, *, negated: bool) -> Any:
    if not isinstance(right, ast.List | ast.Tuple | ast.Set) or not all(map(is_literal, right.elts)):
        parser.refuse(right, "after `in` must be a list of values")
    value = parser.build(left)
    refuses = [partial(parser.refuse, item) for item in right.elts]
    found = is_in(value, _bare(parser.type(value)), [_checked(parser, item) for item in right.elts], refuses)
    if parser.negated:
        # A null is in no list; that this is unknown matters only under a `not`, and hides the list from the statistics.
        found = pc.if_else(value.is_valid(), found, pc.scalar(pa.scalar(None, pa.bool_())))
        return ~found if negated else found
    return ~found & value.is_valid() if negated else found


_COMPARISONS: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Eq: eq,
    ast.NotEq: ne,
    ast.Lt: lt,
    ast.LtE: le,
    ast.Gt: gt,
    ast.GtE: ge,
}

_MIRRORED: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Eq: eq,
    ast.NotEq: ne,
    ast.Lt: gt,
    ast.LtE: ge,
    ast.Gt: lt,
    ast.GtE: le,
}

_RULES: dict[type[ast.expr], Callable[[_Parser, Any], Any]] = {
    ast.Name: _name,
    ast.Constant: _constant,
    ast.BoolOp: _boolean,
    ast.UnaryOp: _unary,
    ast.BinOp: _arithmetic,
    ast.Compare: _compare,
}
