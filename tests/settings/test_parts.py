"""Fields of parts: each number has a range, which holds its default and refuses what is outside."""

import math
import typing

import pytest

from streamsgd.errors import SettingsError
from streamsgd.kernels.parts.ranges import Range
from streamsgd.settings.registry import BY_ROWS, PARTS, make

OWN_WORDS = {"batch_size", "shuffle"}
"""Kinds whose settings check their fields together, with words of their own."""

CLASSES = [(kind, name, cls) for kind, parts in PARTS.items() if kind not in OWN_WORDS for name, cls in parts.items()]
CLASSES += [("optimizer", name, cls) for name, cls in BY_ROWS.items()]

NUMBERS = [
    (kind, name, cls, field, hint)
    for kind, name, cls in CLASSES
    for field, hint in typing.get_type_hints(cls, include_extras=True).items()
    if field in cls._fields and getattr(hint, "__origin__", hint) in (int, float)
]


@pytest.mark.parametrize(
    ("kind", "name", "cls", "field", "hint"), NUMBERS, ids=[f"{n[1]}-{n[3]}-{n[2].__name__}" for n in NUMBERS]
)
def test_a_field_is_checked_against_its_range(kind: str, name: str, cls: typing.Any, field: str, hint: typing.Any) -> None:
    assert hasattr(hint, "__metadata__"), "a field without a range: see streamsgd.kernels.parts.ranges"
    [allowed] = [extra for extra in hint.__metadata__ if isinstance(extra, Range)]
    default = cls._field_defaults[field]
    assert allowed.holds(default)
    assert getattr(make(kind, f"{name}:{field}={default!r}"), field) == default
    step = 1 if hint.__origin__ is int else 1e-3
    outside = [allowed.low - step, *([] if allowed.with_low else [allowed.low])]
    if math.isfinite(allowed.high):
        outside += [allowed.high + step, *([] if allowed.with_high else [allowed.high])]
    if hint.__origin__ is float:
        outside += [math.nan, math.inf, -math.inf]
    for value in map(hint.__origin__, outside):
        with pytest.raises(
            SettingsError, match=rf"{kind} '{name}': {field}={value} must be (a finite number )?(above|at least) "
        ):
            make(kind, f"{name}:{field}={value}")


def test_a_range_says_what_it_holds() -> None:
    assert str(Range(0.0)) == "above 0"
    assert str(Range(0.0, 1.0, with_low=True)) == "at least 0 and below 1"
    assert str(Range(0.0, 1.0, with_high=True)) == "above 0 and at most 1"


@pytest.mark.parametrize(
    ("kind", "spec", "way"),
    [
        ("loss", "huber(delta=2)", "; write it as huber:delta=2"),
        ("loss", "logistic=1", "; write fields by name, e.g. logistic:adjust=1"),
        ("optimizer", "adam,beta1=0.8", "; write it as adam:beta1=0.8"),
        ("penalty", "elastic-net=0.1", "; write fields by name, e.g. elastic-net:l1=0.1"),
        ("penalty", "l3=0.1", "; there are elastic-net, l1, l2, none"),
        ("penalty", "none=1", ", did you mean 'none'?"),
        ("penalty", "l2=", ", did you mean 'l2'?"),
    ],
)
def test_a_part_that_is_written_otherwise_is_shown_as_it_is_written_here(kind: str, spec: str, way: str) -> None:
    with pytest.raises(SettingsError) as refused:
        make(kind, spec)
    assert str(refused.value) == f"unknown {kind} {spec!r}{way}"
