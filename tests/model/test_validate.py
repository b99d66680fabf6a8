"""Laws of loading: what a file says is checked before anything trusts it, and refused by file and field."""

import copy
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from streamsgd import serving
from streamsgd.errors import ModelError
from streamsgd.model import store
from streamsgd.model.explaining.effects import numeric_effects
from streamsgd.model.read import from_file, load
from streamsgd.model.validate import ArraySpec, check_arrays, spec_like

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "fuzz_models.py"


@pytest.fixture(scope="module")
def fuzz() -> Any:
    spec = importlib.util.spec_from_file_location("fuzz_models", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["fuzz_models"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def wide(fuzz: Any) -> Any:
    """A binary model of numbers, categories, ranges, moments, crosses, text and lists, as header and arrays."""
    return fuzz.bases(("wide",))[0]


@pytest.fixture(scope="module")
def classes(fuzz: Any) -> Any:
    """A model of three classes, its weights whole."""
    return fuzz.bases(("classes",))[0]


def test_mutants_are_refused_by_name_or_work(fuzz: Any) -> None:
    """The same at full size, 10^5 of all shapes, is `scripts/fuzz_models.py`."""
    outcome = fuzz.run_apart(0, 200, ("wide classes",))
    assert not outcome.bugs
    assert outcome.counts["refused"] > 100
    assert outcome.counts["used"] > 10
    assert outcome.counts["refused, checksum as it was"] > 2


def changed(base: Any, path: str, value: Any) -> dict[str, Any]:
    """Return a header with one field set, its path as a message names it."""
    header = copy.deepcopy(base.header)
    at, *keys = header, *path.replace("[", ".").replace("]", "").split(".")
    for key in keys[:-1]:
        at = at[int(key) if isinstance(at, list) else key]
    at[int(keys[-1]) if isinstance(at, list) else keys[-1]] = value
    return header


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("loss", ""),
        ("metrics.valid", 1.5),
        ("metrics.valid.loss", []),
        ("metrics.held_out.log_loss", "x"),
        ("metrics.progressive_loss", [0.5]),
        ("metrics.noise", 7),
        ("provenance.rows_learned", "many"),
        ("provenance.order", "sorted"),
        ("provenance.lineage", [1]),
        ("encoding.columns[0].scale", 0.0),
        ("encoding.columns[0].shift", float("nan")),
        ("encoding.columns[0].fill", "1"),
        ("encoding.columns[0].item", -2),
        ("encoding.columns[0].transform", "sqrt"),
        ("encoding.categories[0].first", 10**6),
        ("encoding.categories[0].part", "century"),
        ("encoding.categories[0].edges", [2.0, 1.0]),
        ("encoding.categories[2].values", ["a", "a"]),
        ("encoding.crosses[0].members", ["nobody"]),
        ("encoding.crosses[1].number", "nobody"),
        ("encoding.tails[0].longest", 10**9),
        ("encoding.tails[0].mean_entries", float("inf")),
        ("encoding.types[0].of", "nobody"),
        ("encoding.hashed.bits", 62),
        ("encoding.hashed.first", 0),
        ("encoding.hashed", None),
        ("target.scale", 0.0),
        ("target.classes", ["yes"]),
        ("target.classes", ["no", 1]),
        ("target.task", "clustering"),
        ("loss.name", 3),
        ("loss.fields", {"delta": 1.0}),
        ("settings.weight", 3),
        ("settings.id", [1]),
        ("provenance.rows", "many"),
        ("provenance.parts", []),
        ("provenance.race.losses", []),
        ("common", {"user": [["u1"]]}),
        ("metrics.progressive_loss", 10**30),
        ("metrics.progressive_loss", "\ud800"),
    ],
)
def test_a_hostile_field_is_refused_by_file_and_field(wide: Any, tmp_path: Path, field: str, value: Any) -> None:
    path = tmp_path / "m.sgd"
    path.write_bytes(store.pack("model", changed(wide, field, value), wide.arrays))
    with pytest.raises(ModelError) as refused:
        load(path)
    assert str(refused.value).startswith(f"{path}: {field}")
    assert "restore it from a copy" in str(refused.value)


def test_a_missing_field_and_deep_nesting_are_refused(wide: Any) -> None:
    header = copy.deepcopy(wide.header)
    del header["encoding"]["columns"][0]["name"]
    with pytest.raises(ModelError, match=r"^m: encoding\.columns\[0\] is wrong: object missing required field `name`"):
        from_file(header, wide.arrays, None, "m")
    deep: Any = 0
    for _ in range(100):
        deep = [deep]
    with pytest.raises(ModelError, match=r"^m: metrics\.deep.* is nested deeper than 64 levels"):
        from_file(changed(wide, "metrics.deep", deep), wide.arrays, None, "m")


def test_a_header_that_is_no_header_is_refused_although_its_checksum_fits(fuzz: Any) -> None:
    for text in ("null", "[]", "{}", '{"format": "1", "kind": "model"}', "[" * 100_000, '{"format": 1', "9" * 5000):
        with pytest.raises(ModelError, match=r"^m: its header "):
            store.unpack("model", fuzz.repacked(None, {}, text), "m")


def test_a_loss_of_another_kind_of_target_is_refused(wide: Any, classes: Any) -> None:
    """Its kernel would leave scores unwritten, or write more than there are."""
    for base, loss in ((classes, {"name": "squared", "fields": {}}), (wide, {"name": "softmax", "fields": {"classes": 3}})):
        with pytest.raises(ModelError, match=r"^m: loss is for a \w+ target, but the target is"):
            from_file({**base.header, "loss": loss}, base.arrays, None, "m")
    with pytest.raises(ModelError, match=r"^m: loss\.fields\.classes is 50, but the target has 3 classes"):
        from_file(changed(classes, "loss.fields.classes", 50), classes.arrays, None, "m")


ARRAYS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "is of type int32": lambda array: array.astype(np.int32),
    "is of shape": lambda array: array[:-1],
    "is of shape (": lambda array: np.ascontiguousarray(array.T),
    "holds what is no finite number": lambda array: array * np.array(np.nan, array.dtype),
}


@pytest.mark.parametrize("message", ARRAYS)
def test_weights_that_do_not_fit_the_header_are_refused(classes: Any, message: str) -> None:
    arrays = {**classes.arrays, "weights": ARRAYS[message](classes.arrays["weights"])}
    with pytest.raises(ModelError) as refused:
        from_file(classes.header, arrays, None, "m")
    assert str(refused.value).startswith(f"m: array 'weights' {message}")


def test_sparse_weights_lie_within_the_model(wide: Any) -> None:
    used = wide.arrays["used"]
    for wrong in (used - used[0] - 1, used[::-1].copy(), used + 2**20):
        with pytest.raises(ModelError, match=r"^m: array 'used' is not ascending within 0 and"):
            from_file(wide.header, {**wide.arrays, "used": wrong}, None, "m")
    with pytest.raises(ModelError, match=r"^m: array 'shape' is .* as its header says"):
        from_file(wide.header, {**wide.arrays, "shape": np.array([2**40, 1])}, None, "m")


def test_arrays_are_those_that_are_wanted() -> None:
    wanted = {"a": spec_like(np.zeros((2, 3))), "b": ArraySpec(("int64", "int32"), (None,))}
    good = {"a": np.ones((2, 3)), "b": np.arange(9)}
    check_arrays(good, wanted, "f")
    wrong: list[tuple[str, dict[str, np.ndarray]]] = [
        ("'b' is missing", {"a": good["a"]}),
        ("'c' is none that belongs there", {**good, "c": good["a"]}),
        ("'a' is of shape .*, not .2, 3. as its header says", {**good, "a": np.ones((3, 2))}),
        ("'b' is of type float64, not int64 or int32", {**good, "b": np.ones(3)}),
    ]
    for message, arrays in wrong:
        with pytest.raises(ModelError, match=f"^f: array {message}"):
            check_arrays(arrays, wanted, "f")


def test_a_column_of_no_known_type_has_no_curve(wide: Any) -> None:
    header = copy.deepcopy(wide.header)
    for column in header["encoding"]["types"]:
        if column["name"] == "tags":
            column["name"] = "others"
    assert numeric_effects(from_file(header, wide.arrays)) == []
    assert numeric_effects(from_file(wide.header, wide.arrays))


def test_a_number_that_a_vector_has_not_is_refused_by_what_serves(fuzz: Any, wide: Any, tmp_path: Path) -> None:
    header = copy.deepcopy(wide.header)
    for column in header["encoding"]["columns"]:
        column["item"] = 7 if column["item"] >= 0 else column["item"]
    (tmp_path / "m.sgd").write_bytes(fuzz.repacked(header, wide.arrays))
    with pytest.raises(ModelError, match=r"m\.sgd: column 'vector' has 3 numbers, and the model asks for others"):
        serving.load(tmp_path / "m.sgd")


@pytest.mark.parametrize("n", [-1, 0, 10**9, 2**62])
def test_weights_that_no_columns_can_have_are_refused_by_what_serves(fuzz: Any, wide: Any, tmp_path: Path, n: int) -> None:
    used = {"used": np.zeros(1, np.int64), "used_weights": np.ones((1, 1), np.float32), "shape": np.array([n, 1])}
    (tmp_path / "m.sgd").write_bytes(fuzz.repacked(wide.header, used))
    with pytest.raises(ModelError, match=r"m\.sgd: not a model of streamsgd's, or a damaged one \(ValueError: it has"):
        serving.load(tmp_path / "m.sgd")
