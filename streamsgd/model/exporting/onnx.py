"""Models as ONNX graphs: what ONNX can say of an encoding, which is numbers, their bins, and values with weights of their own.

A graph takes a tensor (n_rows, 1) for each column, float64 for numbers and flags, strings for texts, and gives `prediction`
and, of classes, `probabilities`. Null is NaN in numbers, and the empty text in strings.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from streamsgd.errors import ModelError, SettingsError
from streamsgd.messages import extra
from streamsgd.model.exporting.onnx_machines import machine_score
from streamsgd.model.probability.score_map import need_sum
from streamsgd.settings.policies import policy_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from streamsgd.features.categories import CategoryColumn
    from streamsgd.features.numbers import NumberColumn
    from streamsgd.model.model import Model

OPSETS = (("", 17), ("ai.onnx.ml", 3))
"""Of ONNX 1.12 and later."""

IR_VERSION = 8


def onnx_bytes(model: Model) -> bytes:
    """Return the bytes of an ONNX file.

    Raises
    ------
    SettingsError
        `onnx` is not installed.
    ModelError
        A column becomes what ONNX cannot say; the message names it.

    """
    try:
        import onnx  # noqa: PLC0415  an extra
    except ImportError:
        raise SettingsError(f"--to onnx needs the library onnx: {extra('onnx')}") from None
    need_sum(model, "graph of it")
    _check_sayable(model)
    graph = Graph(model, onnx)
    made = onnx.helper.make_model(
        graph.finished(),
        producer_name="streamsgd",
        ir_version=IR_VERSION,
        opset_imports=[onnx.helper.make_opsetid(*pair) for pair in OPSETS],
    )
    onnx.checker.check_model(made, full_check=True)
    return bytes(made.SerializeToString(deterministic=True))


def _check_sayable(model: Model) -> None:
    means = {column.name: column.means for column in model.encoding.types}
    for config in model.encoding.columns:
        if config.item >= 0 or means.get(config.column) not in ("number", "flag"):
            _refuse(config.name, f"a number of a column of {means.get(config.column, 'an unknown kind')}")
    for category in model.encoding.categories:
        if category.part or not category.own:
            _refuse(category.name, "a part of a moment" if category.part else "in the hashed space")
        if category.values and means.get(category.column) != "text":
            _refuse(category.name, f"a category of {means.get(category.column, 'an unknown kind')}, not of text")
    for name in [other.name for kind in (model.encoding.crosses, model.encoding.tails) for other in kind]:
        _refuse(name, "a cross, a text of words, a list or a map")


def _refuse(name: str, what: str) -> None:
    raise ModelError(f"{name!r} is {what}, which ONNX cannot say: train without it, or use streamsgd.serving, which says all")


class Graph:
    """Nodes, constants and inputs, as they are added up to the scores of a row."""

    def __init__(self, model: Model, onnx: Any) -> None:
        self.model, self.onnx = model, onnx
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self.inputs: dict[str, Any] = {}
        self.weights = model.weights.astype(np.float64)
        last = model.encoding.n_coordinates - 1
        self.scores: list[str] = [self.constant(self.weights[last : last + 1])]
        self.places: list[int] = []
        """Of the scores behind the first, which number or category each is of."""
        self._flag = len(model.encoding.columns)
        for place, config in enumerate(model.encoding.columns):
            self._number(place, config)
        for place, category in enumerate(model.encoding.categories):
            self.places.append(model.encoding.width + place)
            self._category(category)

    def constant(self, value: Any, kind: Any = np.float64) -> str:
        """Add a constant tensor and return its name."""
        name = f"constant_{len(self.constants)}"
        self.constants.append(self.onnx.numpy_helper.from_array(np.asarray(value, kind), name))
        return name

    def node(self, kind: str, inputs: Sequence[str], **attributes: Any) -> str:
        """Add a node of one output and return its name."""
        name: str = attributes.pop("output", f"node_{len(self.nodes)}")
        self.nodes.append(self.onnx.helper.make_node(kind, list(inputs), [name], **attributes))
        return name

    def input(self, column: str, *, text: bool) -> str:
        """Return a column as it is given, (n_rows, 1)."""
        kind = self.onnx.TensorProto.STRING if text else self.onnx.TensorProto.DOUBLE
        self.inputs[column] = self.onnx.helper.make_tensor_value_info(column, kind, ["n", 1])
        return self._without_sentinels(column) if not text and column in self.model.encoding.nulls else column

    def _without_sentinels(self, column: str) -> str:
        """Return a column with NaN for what is missing in it."""
        found = column
        for value in self.model.encoding.nulls[column]:
            found = self.node("Where", [self.node("Equal", [column, self.constant(value)]), self.constant(np.nan), found])
        return found

    def _number(self, place: int, config: NumberColumn) -> None:
        """Add weight * ((x - shift) * scale), the fill where it is missing, and the weight of its being missing."""
        x = self.input(config.column, text=False)
        settings = self.model.settings
        z = self._logarithm(x) if config.transform == "log1p" else x
        z = self.node("Mul", [self.node("Sub", [z, self.constant(config.shift)]), self.constant(config.scale)])
        missing = self.node("IsNaN", [x])
        if settings.get("infinite") == "missing":
            missing = self.node("Or", [missing, self.node("IsNaN", [self.node("Sub", [z, z])])])
        if policy_of("missing", settings.get("missing") or (), config.name, config.column) != "error":
            z = self.node("Where", [missing, self.constant(config.fill), z])
        self._add(z, place)
        if config.indicator:
            self._add(self.node("Cast", [missing], to=self.onnx.TensorProto.DOUBLE), self._flag)
            self._flag += 1

    def _logarithm(self, x: str) -> str:
        size = self.node("Log", [self.node("Add", [self.node("Abs", [x]), self.constant(1.0)])])
        return self.node("Mul", [self.node("Sign", [x]), size])

    def _add(self, factor: str, place: int) -> None:
        self.places.append(place)
        self.scores.append(self.node("MatMul", [factor, self.constant(self.weights[place][None, :])]))

    def _category(self, config: CategoryColumn) -> None:
        """Add the weight of a value, or of the bin of a number."""
        own = self.weights[config.first : config.first + config.own]
        index = self._bin(config) if config.edges else self._value(config)
        self.scores.append(
            self.node("Gather", [self.constant(own), self.node("Squeeze", [index, self.constant([1], np.int64)])])
        )

    def _value(self, config: CategoryColumn) -> str:
        x, n = self.input(config.column, text=True), len(config.values)
        keys = [*config.values, *([""] if "" not in config.values else [])]
        known = {"keys_strings": keys, "values_int64s": list(range(len(keys)))}  # behind the values comes null
        return self.node("LabelEncoder", [x], domain="ai.onnx.ml", default_int64=n + 1, **known)

    def _bin(self, config: CategoryColumn) -> str:
        x, n = self.input(config.column, text=False), len(config.edges)
        above = self.node(
            "Cast", [self.node("LessOrEqual", [self.constant([config.edges]), x])], to=self.onnx.TensorProto.INT64
        )
        count = self.node("ReduceSum", [above, self.constant([1], np.int64)], keepdims=1)
        return self.node("Where", [self.node("IsNaN", [x]), self.constant(n + 1, np.int64), count])

    def finished(self) -> Any:
        """Return the graph, with what its scores predict as outputs."""
        if not self.model.is_linear:
            score = machine_score(self, self.scores, self.places)
        else:
            score = self.node("Sum", self.scores) if len(self.scores) > 1 else self.scores[0]
        outputs = self._of_classes(score) if self.model.classes else [self._of_numbers(score)]
        return self.onnx.helper.make_graph(self.nodes, "streamsgd", list(self.inputs.values()), outputs, self.constants)

    def _of_numbers(self, score: str) -> Any:
        """Return the output of a value or a count, (n_rows, 1), in units of the target."""
        target = self.model.target
        if target.task == "regression":
            scaled = self.node("Div", [score, self.constant(target.scale)])
            self.node("Add", [scaled, self.constant(target.shift)], output="prediction")
        else:
            self.node("Exp", [score], output="prediction")
        return self._output("prediction", self.onnx.TensorProto.DOUBLE, 1)

    def _of_classes(self, score: str) -> list[Any]:
        """Return the outputs: the number of a class, (n_rows,), and its probabilities, if any, (n_rows, n_classes)."""
        types, found = self.onnx.TensorProto, []
        if self.model.n_outputs > 1:
            self.node("Softmax", [score], axis=1, output="probabilities")
            self.node("ArgMax", [score], axis=1, keepdims=0, output="prediction")
        else:
            first = self.node("Squeeze", [score, self.constant([1], np.int64)])
            above = self.node("GreaterOrEqual" if self.model.has_probabilities else "Greater", [first, self.constant(0.0)])
            self.node("Cast", [above], to=types.INT64, output="prediction")
            if self.model.has_probabilities:
                sides = self.node("Concat", [self.node("Neg", [score]), score], axis=1)
                self.node("Sigmoid", [sides], output="probabilities")
        found.append(self.onnx.helper.make_tensor_value_info("prediction", types.INT64, ["n"]))
        if self.model.has_probabilities:
            found.append(self._output("probabilities", types.DOUBLE, len(self.model.classes)))
        return found

    def _output(self, name: str, kind: Any, width: int) -> Any:
        return self.onnx.helper.make_tensor_value_info(name, kind, ["n", width])
