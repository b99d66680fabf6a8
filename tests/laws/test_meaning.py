"""A column means one thing: whatever holds it, its values are the same, or it is refused by name."""

import ast
import datetime as dt
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from wide import encoding_of, random_model

import streamsgd
from streamsgd.data.normalise import plain_type
from streamsgd.data.types import arrow_type, column_type, meaning
from streamsgd.errors import DataError, SettingsError

LOSSY = {f"allow_{what}" for what in ("int_overflow", "time_truncate", "time_overflow", "decimal_truncate", "float_truncate")}
PACKAGE = Path(streamsgd.__file__).parent
DAYS = [dt.datetime(2024, 2, 28), dt.datetime(1969, 12, 31), None, dt.datetime(9999, 12, 31), dt.datetime(1, 1, 1)]  # noqa: DTZ001
NOON = [dt.datetime(2024, 2, 28, 12, 30, 0, 250_000), None, dt.datetime(2023, 1, 1)]  # noqa: DTZ001
ZONED = [None if day is None else day.replace(tzinfo=dt.UTC) for day in NOON]
WORDS = ["a", "", "é", None, "a\0"]
FORMS: dict[str, tuple[list[Any], tuple[Any, ...]]] = {
    "numbers": (
        [0, 1, 7, None, 100],
        (
            pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint8(), pa.uint64(), pa.float16(), pa.float32(), pa.float64(),
            pa.decimal128(5, 1), pa.decimal32(5, 0), pa.decimal256(50, 3), pa.dictionary(pa.int8(), pa.int64()),
        ),
    ),
    "large numbers": ([10**10, 2**53 - 1, None, -(10**12)], (pa.int64(), pa.float64(), pa.decimal128(38, 0))),
    "flags": ([0, 1, None], (pa.bool_(), pa.int8(), pa.float64(), pa.bool8())),
    "days": (DAYS, (pa.date32(), pa.date64(), pa.timestamp("s"), pa.timestamp("ms"), pa.timestamp("us"))),
    "moments": (NOON, (pa.timestamp("ms"), pa.timestamp("us"), pa.timestamp("ns"))),
    "moments of a zone": (ZONED, (pa.timestamp("ms", "UTC"), pa.timestamp("us", "Asia/Tokyo"), pa.timestamp("ns", "UTC"))),
    "times": ([dt.time(1, 2, 3), None, dt.time(0)], (pa.time32("s"), pa.time64("us"), pa.time64("ns"))),
    "durations": ([dt.timedelta(days=2), None], (pa.duration("s"), pa.duration("us"), pa.duration("ns"))),
    "words": (
        WORDS,
        (
            pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int8(), pa.string()),
            pa.dictionary(pa.uint32(), pa.string_view()), pa.json_(), pa.binary(), pa.binary_view(),
        ),
    ),
    "vectors": (
        [[1.0, 2.0], [3.0, None], [0.5, -1.0]],
        (pa.list_(pa.float32()), pa.large_list(pa.float64()), pa.list_(pa.float32(), 2), pa.list_view(pa.float64())),
    ),
    "bags": (
        [["a", "b"], [], None, ["a"]],
        (pa.list_(pa.string()), pa.large_list(pa.string_view()), pa.list_view(pa.string())),
    ),
    "maps": ([[("a", 1.5)], [], None], (pa.map_(pa.string(), pa.float64()), pa.map_(pa.large_string(), pa.float32()))),
}  # fmt: skip


def held(values: list[Any], kind: Any) -> Any:
    """The values as one type holds them."""
    if isinstance(kind, pa.BaseExtensionType):
        return kind.wrap_array(held(values, kind.storage_type))
    if pa.types.is_dictionary(kind):
        plain = pa.array(values, pa.large_string() if pa.types.is_string_view(kind.value_type) else kind.value_type)
        coded = plain.dictionary_encode()
        return pa.DictionaryArray.from_arrays(coded.indices.cast(kind.index_type), coded.dictionary.cast(kind.value_type))
    if pa.types.is_date(kind):
        return pa.array([None if value is None else value.date() for value in values], kind)
    if pa.types.is_boolean(kind):
        return pa.array([None if value is None else bool(value) for value in values])
    if pa.types.is_binary(kind) or pa.types.is_binary_view(kind):
        return pa.array([None if value is None else value.encode() for value in values], kind)
    if pa.types.is_decimal(kind):
        return pa.array([None if value is None else Decimal(value) for value in values], kind)
    return pa.array(values, kind)


def _is_said(error: Exception, words: str) -> None:
    """Check what a refusal says: which types are refused is for the caller to know."""
    assert words in str(error)


forms = st.sampled_from([(family, k) for family, (_, kinds) in FORMS.items() for k in range(len(kinds))])


@given(forms, forms, st.booleans(), st.booleans())
@example(("numbers", 0), ("numbers", 12), False, False)
@settings(max_examples=100, deadline=None)
def test_any_pair_of_types_gives_the_same_scores_or_a_named_refusal(
    tmp_path_factory: pytest.TempPathFactory, first: tuple[str, int], second: tuple[str, int], categorical: bool, in_file: bool
) -> None:
    """A model of one type scores data of another: of one meaning the same, of another nothing but an error that names it."""
    (values, kinds), (others, further) = FORMS[first[0]], FORMS[second[0]]
    learned = held(values * 3, kinds[first[1]])
    asked: dict[str, Any] = {"categorical": ["c"]} if categorical else {}
    try:
        model = random_model(encoding_of({"c": learned}, **asked))
    except SettingsError as error:
        _is_said(error, "cannot be a category")
        return
    expected = model.decision_function(pa.table({"c": learned}))
    data: Any = pa.table({"c": held((values if first[0] == second[0] else others) * 3, further[second[1]])})
    if in_file:
        path = tmp_path_factory.mktemp("meaning") / "a.parquet"
        try:
            pq.write_table(data, path)
        except (pa.ArrowException, NotImplementedError):
            return  # a type that no file holds
        data = path
    try:
        found = model.decision_function(data)
    except DataError as error:
        _is_said(error, "'c'")
        assert first[0] != second[0]
        return
    if first[0] == second[0]:
        np.testing.assert_allclose(found, expected, rtol=1e-6)
    else:
        mine, other = (column_type("c", plain_type(kind)) for kind in (kinds[first[1]], further[second[1]]))
        assert mine.family == other.family, "another meaning is no number"


@pytest.mark.parametrize("family", FORMS)
def test_files_of_all_types_of_one_meaning_are_one_data_set(family: str, tmp_path: Path) -> None:
    values, kinds = FORMS[family]
    expected: Any = None
    for kind in kinds:
        try:
            pq.write_table(pa.table({"c": held(values, kind)}), tmp_path / "one.parquet")
        except (pa.ArrowException, NotImplementedError):
            continue
        pq.write_table(pa.table({"c": held(values, kinds[0])}), tmp_path / "other.parquet")
        model = random_model(encoding_of({"c": held(values * 3, kinds[0])}))
        expected = model.decision_function(pa.table({"c": held(values, kinds[0])}))
        try:
            found = model.decision_function([tmp_path / "one.parquet", tmp_path / "other.parquet"])
        except DataError as error:
            _is_said(error, "'c'")
            continue
        np.testing.assert_allclose(found, np.concatenate([expected] * 2), rtol=1e-6, err_msg=str(kind))
    assert expected is not None


@pytest.mark.parametrize("family", FORMS)
def test_a_type_survives_the_model_file(family: str) -> None:
    for kind in FORMS[family][1]:
        if isinstance(kind, pa.BaseExtensionType) or pa.types.is_list_view(kind):
            continue  # known by their storage
        kept = column_type("c", kind)
        assert meaning(arrow_type(kept)) == kept.means


def test_nothing_in_the_package_casts_unsafely() -> None:
    """Integers become floats for features and targets in one place, which says so; nothing else loses a digit."""
    nodes = [(path, node) for path in PACKAGE.rglob("*.py") for node in ast.walk(ast.parse(path.read_text()))]
    words = [(path, node) for path, node in nodes if isinstance(node, ast.keyword)]
    unsafe = [path for path, word in words if word.arg == "safe" and getattr(word.value, "value", True) is False]
    assert not unsafe
    lossy = [f"{path.relative_to(PACKAGE)}: {word.arg}" for path, word in words if word.arg in LOSSY]
    assert lossy == ["features/arrow.py: allow_float_truncate"]
