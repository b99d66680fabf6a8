"""Policies: what becomes of numbers, for all columns or one: imputed, transformed, scaled, as NumPy says."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from wide import encoding_of, job_of, rows_of, streamed, with_y

from streamsgd.errors import DataError, SettingsError
from streamsgd.features.numbers import MOST_DEVIATIONS, N_BINS, TAMED
from streamsgd.settings.make import make_settings

RNG = np.random.default_rng(9)
N = 1001
X = np.where(RNG.random(N) < 0.2, np.nan, RNG.gamma(2.0, 3.0, N))
Z = RNG.normal(size=N) * 4 + 1
HEAVY = np.round(np.exp(RNG.normal(size=N) * 2.5))
SEEN = X[~np.isnan(X)]
COLUMNS = {"x": pa.array(X, from_pandas=True), "z": Z}


def number(name: str, columns: dict[str, Any] = COLUMNS, **settings: Any) -> tuple[Any, np.ndarray]:
    """The only column of that name, and its encoded numbers."""
    encoding = encoding_of(columns, **settings)
    at = encoding.names.index(name)
    return encoding.columns[at], rows_of(encoding, columns)[0][:, at]


# --- law: missing values


@pytest.mark.parametrize(
    ("policy", "fill"), [("mean", SEEN.mean()), ("median", np.median(SEEN)), ("zero", 0.0), ("indicator", SEEN.mean())]
)
def test_a_missing_value_is_what_the_policy_says(policy: str, fill: float) -> None:
    _, got = number("x", missing=policy, scale="none")
    np.testing.assert_allclose(got, np.where(np.isnan(X), fill, X), rtol=1e-12)
    column, scaled = number("x", missing=policy)
    np.testing.assert_allclose(scaled / column.scale + column.shift, np.where(np.isnan(X), fill, X), rtol=1e-9)


def test_an_indicator_is_one_where_it_was_missing_and_only_of_columns_that_miss_any() -> None:
    encoding = encoding_of(COLUMNS, missing="indicator")
    assert encoding.names == ("x", "z", "x is missing")
    assert rows_of(encoding, COLUMNS)[0][:, 2].tolist() == np.isnan(X).astype(float).tolist()


def test_a_column_has_its_own_policy_and_the_last_that_fits_holds() -> None:
    columns = {"a1": X, "a2": X, "b": X}
    encoding = encoding_of(columns, missing=["median", "a*=zero", "a2=indicator"], scale="none")
    assert [c.fill for c in encoding.columns] == pytest.approx([0.0, SEEN.mean(), np.median(SEEN)])
    assert encoding.indicators == ("a2",)
    encoding = encoding_of(columns, missing=["a2=indicator", "a*=zero"], scale="none")
    assert [c.fill for c in encoding.columns] == pytest.approx([0.0, 0.0, SEEN.mean()])


def test_missing_values_can_be_an_error_that_names_the_column() -> None:
    with pytest.raises(DataError, match=r"feature 'x' has \d+ missing values.*--missing mean.*--exclude 'x'"):
        encoding_of(COLUMNS, missing="error")
    assert encoding_of({"z": Z}, missing="error").names == ("z",)
    assert encoding_of(COLUMNS, missing=["error", "x=mean"]).names == ("x", "z")


def test_a_name_with_an_equals_sign_is_split_at_the_last() -> None:
    encoding = encoding_of({"a=b": X}, missing=["a=b=zero"], scale="none")
    assert encoding.columns[0].fill == 0.0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"missing": "medain"}, r"--missing: 'medain' is none of mean, median.*did you mean 'median'\?"),
        ({"missing": "x=never"}, "--missing: 'never' is none of mean"),
        ({"scale": "standart"}, r"--scale: 'standart' is none of .*did you mean 'standard'\?"),
        ({"transform": "log"}, "--transform: 'log' is none of"),
        ({"missing": ["q=zero"]}, "--missing q=zero: no feature column fits 'q'"),
        ({"transform": ["y=bins"]}, "--transform y=bins: no feature column fits 'y'"),
    ],
)
def test_a_policy_that_is_none_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        encoding_of(COLUMNS, **settings)


def test_infinite_values_are_missing_if_that_is_wanted() -> None:
    columns = {"x": np.where(np.arange(N) % 7 == 0, -np.inf, Z)}
    job = job_of(with_y(columns), infinite="missing", missing="indicator", scale="none")
    numbers, _ = streamed(job)
    assert numbers[:, 1].tolist() == (np.arange(N) % 7 == 0).astype(float).tolist()
    np.testing.assert_allclose(numbers[::7, 0], Z[np.arange(N) % 7 != 0].mean(), rtol=1e-6)


# --- law: scaling


def test_standard_is_mean_and_deviation_of_what_is_there() -> None:
    column, got = number("x")
    assert (column.shift, 1 / column.scale) == pytest.approx((SEEN.mean(), SEEN.std()))
    np.testing.assert_allclose(got, np.where(np.isnan(X), 0.0, (X - SEEN.mean()) / SEEN.std()), atol=1e-12)


def test_none_is_the_value_itself() -> None:
    assert number("z", scale="none")[1].tolist() == Z.tolist()


def test_max_abs_is_at_most_one_and_keeps_zero() -> None:
    columns = {"x": np.where(RNG.random(N) < 0.5, 0.0, Z)}
    _, got = number("x", columns, scale="max-abs")
    np.testing.assert_allclose(got, columns["x"] / np.abs(columns["x"]).max(), rtol=1e-12)
    assert (np.abs(got).max(), (got == 0.0).sum()) == (1.0, (columns["x"] == 0.0).sum())


def test_robust_is_median_and_quartiles() -> None:
    """1.349 is the distance of a normal distribution's quartiles."""
    low, middle, high = np.quantile(SEEN, [0.25, 0.5, 0.75])
    column, _ = number("x", scale="robust")
    assert (column.shift, column.scale) == pytest.approx((middle, 1.349 / (high - low)))


def test_of_a_column_that_is_nearly_always_the_same_that_is_zero() -> None:
    """Then rows that have the usual value move no weight."""
    rare = np.where(np.arange(N) % 20 == 0, 3.0, 5.0)
    _, got = number("x", {"x": rare})
    assert (got == 0.0).mean() > 0.9
    assert number("x", {"x": rare}, scale="robust")[0].shift == 5.0


@pytest.mark.parametrize("scale", ["standard", "none", "max-abs", "robust"])
def test_a_constant_column_stays_finite(scale: str) -> None:
    for value in (0.0, 7.0, -1e-30):
        _, got = number("x", {"x": np.full(N, value), "z": Z}, scale=scale)
        assert np.isfinite(got).all()


def test_each_column_can_have_its_own() -> None:
    encoding = encoding_of({"a": Z, "b": Z, "c": Z}, scale=["none", "b=standard", "c=max-abs"])
    assert [c.scale for c in encoding.columns] == pytest.approx([1.0, 1 / Z.std(), 1 / np.abs(Z).max()])


# --- law: transforms


def test_log1p_is_that_of_numpy_with_the_sign_kept() -> None:
    signed = HEAVY * np.where(np.arange(N) % 3 == 0, -1, 1)
    for kind, rtol in ((np.float64, 1e-14), (np.float32, 1e-6)):
        column, got = number("x", {"x": signed.astype(kind)}, transform="log1p", scale="none")
        np.testing.assert_allclose(got, np.sign(signed) * np.log1p(np.abs(signed)), rtol=rtol)
        assert column.transform == "log1p"
    column, got = number("x", {"x": signed}, transform="log1p")
    logs = np.sign(signed) * np.log1p(np.abs(signed))
    np.testing.assert_allclose(got, (logs - logs.mean()) * column.scale, atol=1e-12)


@pytest.mark.parametrize(("policy", "of"), [("mean", np.mean), ("median", np.median), ("zero", lambda _: 0.0)])
def test_a_missing_value_is_imputed_after_the_transform(policy: str, of: Any) -> None:
    _, got = number("x", transform="log1p", missing=policy, scale="none")
    np.testing.assert_allclose(got[np.isnan(X)], of(np.log1p(SEEN)), rtol=1e-9)


def test_a_heavy_tail_brings_its_logarithm_beside_the_column() -> None:
    columns = {"heavy": HEAVY, "z": Z}
    encoding = encoding_of(columns)
    assert [(c.name, c.column, c.transform) for c in encoding.columns] == [
        ("heavy", "heavy", "none"),
        ("log1p(heavy)", "heavy", "log1p"),
        ("z", "z", "none"),
    ]
    logs = np.log1p(HEAVY)
    raw = (HEAVY.max() - HEAVY.mean()) / HEAVY.std()
    assert raw > MOST_DEVIATIONS
    assert (logs.max() - logs.mean()) / logs.std() <= TAMED * raw
    assert np.abs(rows_of(encoding, columns)[0]).max() == pytest.approx(MOST_DEVIATIONS)
    for settings in ({"transform": "none"}, {"scale": "none"}, {"transform": ["auto", "heavy=none"]}):
        assert [c.name for c in encoding_of(columns, **settings).columns] == ["heavy", "z"]


def test_ranges_come_with_categories_alone_and_beside_the_number() -> None:
    columns = {"x": X, "c": ["a", "b"] * (N // 2) + ["a"]}
    encoding = encoding_of(columns)
    ranges, category = encoding.categories
    assert (ranges.name, ranges.column, len(ranges.edges) + 1) == ("range of x", "x", N_BINS)
    np.testing.assert_allclose(ranges.edges, np.quantile(SEEN, np.arange(1, N_BINS) / N_BINS))
    assert ([c.name for c in encoding.columns], category.name) == (["x"], "c")
    for settings in ({"transform": "none"}, {"scale": "none"}, {"transform": ["auto", "x=none"]}, {"exclude": "c"}):
        assert [c.name for c in encoding_of(columns, **settings).categories if c.edges] == []


def test_bins_replace_the_column_that_they_are_asked_for() -> None:
    encoding = encoding_of(COLUMNS, transform=["none", "x=bins"])
    assert ([c.name for c in encoding.columns], [c.name for c in encoding.categories]) == (["z"], ["x"])


# --- law: a fixed-size list is that many columns


@pytest.mark.parametrize("item", [pa.float32(), pa.float64(), pa.int16(), pa.bool_()], ids=str)
def test_an_embedding_is_its_numbers(item: Any) -> None:
    size = 5
    values = (RNG.normal(size=(N, size)) * 9).round().astype(bool if item == pa.bool_() else np.int16)
    flat = pa.array(values.ravel(), mask=RNG.random(N * size) < 0.05).cast(item)
    vector = pa.FixedSizeListArray.from_arrays(flat, size)
    whole = pa.array([None if k % 50 == 0 else v for k, v in enumerate(vector.to_pylist())], pa.list_(item, size))
    apart = {f"e[{k}]": pa.array([None if v is None else v[k] for v in whole.to_pylist()], item) for k in range(size)}
    settings = {"missing": ["indicator"], "transform": "none"}
    together, separate = encoding_of({"e": whole, "z": Z}, **settings), encoding_of({**apart, "z": Z}, **settings)
    order = [separate.names.index(name) for name in together.names]
    for shape in (whole, pa.chunked_array([whole[:7], whole[7:]]), pa.concat_arrays([whole[:3], whole])[3:]):
        got, _ = rows_of(together, {"e": shape, "z": Z})
        assert np.array_equal(got, rows_of(separate, {**apart, "z": Z})[0][:, order])


def test_an_item_of_an_embedding_has_a_name_for_policies() -> None:
    vector = pa.FixedSizeListArray.from_arrays(pa.array(RNG.normal(size=2 * N)), 2)
    encoding = encoding_of({"e": vector}, scale=["standard", "e=none"])
    assert [(c.name, c.column, c.item) for c in encoding.columns] == [("e[0]", "e", 0), ("e[1]", "e", 1)]
    assert [c.scale for c in encoding.columns] == [1.0, 1.0]


def test_policies_can_be_lists_or_one_word() -> None:
    assert make_settings({"target": "y", "missing": "zero"}).missing == ("zero",)
    assert make_settings({"target": "y", "missing": ["zero", "x=mean"]}).missing == ("zero", "x=mean")
