"""Noise of gradients of networks and machines: torch's of every row, differences of losses, 0 of equal rows, the same bits."""

import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import cycle, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import finish_chunk_by_chunk
from test_noise import EXACT, agrees, expected
from test_polish import WEIGHTS, design, learned, table_of

import streamsgd
from streamsgd.errors import DataError, ModelError, SettingsError
from streamsgd.kernels.models.networks import MLP
from streamsgd.model.model import Model
from streamsgd.settings.make import make_settings
from streamsgd.stream.stream import read_chunk
from streamsgd.training.initial import unlearned
from streamsgd.training.phases.noise import MEASURED_NOISE
from streamsgd.training.phases.noisy import NOISE
from streamsgd.training.prepare import prepare
from streamsgd.training.tasks.with_noise import Units, scatter_by_unit

torch = pytest.importorskip("torch")

SMALL: dict[str, Any] = {"memory": "2GB", "executor": "inline"}
LARGE: dict[str, Any] = {"memory": "4GB", "executor": "inline"}
MODELS = ["mlp:hidden=5-4", "mlp:hidden=5,activation=tanh", "fm:k=2,against=none", "fwfm:k=2,against=none"]


GIVEN: dict[str, Any] = {"epochs": 1, "transform": "none", "bits": 8, "exclude": ["h"], **EXACT}


def model_of(loss: str, model: str, table: pa.Table | None = None, **settings: Any) -> Model:
    """Return a model of weights that nobody learned: any will do, and no loop of batches is compiled for them."""
    table = table_of(loss, wide=True) if table is None else table
    job = prepare(table, make_settings({**GIVEN, "target": "y", "model": model, "loss": loss, **settings}))
    weights = unlearned(job)
    weights += np.random.default_rng(3).normal(size=weights.shape) / 10.0
    return Model(job.parts.loss, job.encoding, job.target, weights, structure=job.structure)


def learned_of(loss: str, model: str, table: pa.Table, **settings: Any) -> Model:
    return streamsgd.train(table, "y", model=model, loss=loss, **{**GIVEN, **settings})


def layers_of(model: Model, hidden: list[int]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Weights and biases of every layer, as `kernels.models.networks` lays them out."""
    n, flat = model.encoding.n_coordinates - 1, model.weights.ravel()
    sizes, at, found = [n, *hidden, 1], 0, []
    for before, size in pairwise(sizes):
        matrix, at = flat[at : at + before * size].reshape(before, size), at + before * size
        found.append((matrix, flat[at : at + size]))
        at += size
    return found


def gradients_of_torch(model: Model, table: pa.Table, hidden: list[int], weight: Any = 1.0) -> np.ndarray:
    """Those of all rows by the weights of all layers, (n_rows, n_weights), row by row."""
    x, y = torch.tensor(design(model, table)[:, :-1]), torch.tensor(learned(model, table).astype(float))
    h = torch.tensor(np.broadcast_to(np.asarray(weight, float), y.shape).copy())
    layers = [tuple(torch.tensor(part, requires_grad=True) for part in layer) for layer in layers_of(model, hidden)]
    flat = [part for layer in layers for part in layer]
    found = np.zeros((len(y), model.weights.size))
    squared = type(model.loss).__name__ == "Squared"
    for i in range(len(y)):
        a = x[i]
        for k, (matrix, bias) in enumerate(layers):
            a = a @ matrix + bias
            a = torch.relu(a) if k < len(hidden) else a[0]
        cost = 0.5 * (a - y[i]) ** 2 if squared else torch.nn.functional.binary_cross_entropy_with_logits(a, y[i])
        whole = np.concatenate([g.numpy().ravel() for g in torch.autograd.grad(h[i] * cost, flat)])
        found[i, : len(whole)] = whole
    return found


def lengths_by_layers(model: Model, table: pa.Table, hidden: list[int]) -> np.ndarray:
    """Squared lengths of the gradients of rows of squared loss: |a|^2 |delta|^2 and |delta|^2 of every layer."""
    inputs, y = [design(model, table)[:, :-1]], learned(model, table)
    layers = layers_of(model, hidden)
    for matrix, bias in layers[:-1]:
        inputs.append(np.maximum(inputs[-1] @ matrix + bias, 0.0))
    delta = inputs[-1] @ layers[-1][0] + layers[-1][1] - y[:, None]
    total = np.zeros(len(y))
    for k in range(len(layers) - 1, -1, -1):
        total += (np.square(inputs[k]).sum(axis=1) + 1.0) * np.square(delta).sum(axis=1)
        delta = (delta @ layers[k][0].T) * (inputs[k] > 0.0)
    return total


# --- law: the sums are those of every row's own gradient


@pytest.mark.parametrize("loss", ["squared", "logistic"])
@pytest.mark.parametrize("wide", [False, True])
def test_of_networks_it_is_that_of_torch_row_by_row(loss: str, wide: bool) -> None:
    """Lists whose values share a hash, or come twice, add both."""
    table = table_of(loss, wide=wide).slice(0, 400)
    model = model_of(loss, "mlp:hidden=5-4", table)
    found = streamsgd.noise(table, at=model, **SMALL)
    g = gradients_of_torch(model, table, [5, 4])
    agrees(found, expected(g), rtol=1e-10)
    assert found["places"] == found["weights"] == g.shape[1]
    squares = np.square(g.mean(axis=0)) + g.var(axis=0, ddof=1) / 64
    agrees(found["metric"], expected(g * np.where(squares > 0.0, squares, np.inf) ** -0.25), rtol=1e-9)
    h = WEIGHTS[:400]
    agrees(streamsgd.noise(table, at=model, weight="h", **SMALL), expected(gradients_of_torch(model, table, [5, 4], h)), 1e-10)


def test_lengths_are_those_of_activations_times_those_of_errors_layer_by_layer() -> None:
    table = table_of("squared", wide=True)
    model = model_of("squared", "mlp:hidden=6-5-4")
    found, n = streamsgd.noise(table, at=model, **SMALL), table.num_rows
    whole = found["gradient_norm_squared"] + found["trace_covariance"]  # the mean of squared lengths
    np.testing.assert_allclose(whole, lengths_by_layers(model, table, [6, 5, 4]).mean(), rtol=1e-10)
    assert found["rows"] == n


@pytest.mark.parametrize("spec", MODELS)
def test_it_is_that_of_differences_of_losses(spec: str) -> None:
    table = table_of("logistic", wide=True).slice(0, 80)
    model = model_of("logistic", spec)
    block, _pools = model.encode(table)
    block.y[:] = learned(model, table)

    def losses(at: int, by: float) -> np.ndarray:
        weights = model.weights.copy()
        weights.reshape(-1)[at] += by
        return replace(model, weights=weights).score_block(block, 0, 80)[2]

    g = np.stack([(losses(j, 1e-5) - losses(j, -1e-5)) / 2e-5 for j in range(model.weights.size)], axis=1)
    found = streamsgd.noise(table, at=model, **SMALL)
    agrees({**found, "noise_scale": None}, expected(g), rtol=1e-6)


@pytest.mark.shared
def test_of_a_network_of_a_real_table_it_is_that_of_torch(shared_data: Path) -> None:
    rows = np.loadtxt(shared_data / "regression_splits" / "concrete" / "data.txt")
    table = pa.table({**{f"x{j}": rows[:, j] for j in range(rows.shape[1] - 1)}, "y": rows[:, -1]})
    model = streamsgd.train(table, "y", model="mlp:hidden=50", precision="float64", epochs=5, transform="none", **SMALL)
    agrees(streamsgd.noise(table, at=model, **SMALL), expected(gradients_of_torch(model, table, [50])), rtol=1e-10)


@pytest.mark.parametrize("spec", ["mlp:hidden=64-32", "fm:k=16,against=none"])
def test_of_many_weights_signed_sums_have_the_same_lengths(spec: str) -> None:
    """16,384 of them: within 4 standard deviations, root of 2/16384, of a squared length."""
    table = table_of("squared", wide=True).slice(0, 300)
    model = model_of("squared", spec, bits=11 if "fm" in spec else 9, memory="4GB")
    found = streamsgd.noise(table, at=model, **LARGE)
    assert (found["places"], found["weights"]) == (1 << 14, model.weights.size)
    assert found["metric"] is None
    if "mlp" in spec:
        truth = expected(gradients_of_torch(model, table, [64, 32]))
        for one in (found, truth):
            one["norm"] = one["gradient_norm_squared"] + one["trace_covariance"] / 300
        agrees(found, {name: truth[name] for name in ("trace_covariance", "norm")}, rtol=4 * np.sqrt(2 / (1 << 14)))


# --- law: of equal rows it is exactly 0


@pytest.mark.parametrize(
    ("spec", "wide"), [("mlp:hidden=5-4", True), ("mlp:hidden=64-32", False), ("fwfm:k=2,against=none", True)]
)
def test_of_one_row_many_times_over_it_is_exactly_zero(spec: str, wide: bool) -> None:
    table = table_of("logistic", wide=wide)
    model = model_of("logistic", spec, table, bits=9, memory="4GB")
    for k in (7, 11):
        equal = pa.concat_tables([table.slice(k, 1)] * 300)
        found = streamsgd.noise(equal, at=model, chunk_rows=100, **LARGE)
        assert found["trace_covariance"] == found["noise_scale"] == 0.0
        assert found["interval"] == [0.0, 0.0]
        assert found["gradient_norm_squared"] > 0.0
    with pytest.raises(DataError, match="is one row: take more rows"):
        streamsgd.noise(table.slice(0, 1), at=model, **LARGE)


# --- law: the same bits anywhere, and nothing that is learned changes


CASES: dict[str, dict[str, Any]] = {
    "fm": {"model": "fm:k=3"},
    "fm in batches": {"model": "fm:k=3", "optimizer": "adam", "batch_size": 20},
    "mlp": {"model": "mlp:hidden=6-4,dropout=0.2"},
    "mlp in lanes": {"model": "mlp:hidden=6", "lanes": 2, "combine": "sync"},
}


def written(folder: Path) -> Path:
    pq.write_table(table_of("logistic", wide=True), folder / "d.parquet", row_group_size=100)
    return folder / "d.parquet"


@pytest.mark.parametrize("case", CASES)
def test_learning_with_noise_leaves_no_trace_and_is_the_same_bytes_anywhere(
    case: str, tmp_path: Path, two_workers: Any
) -> None:
    settings: dict[str, Any] = {"exclude": ["h"], "chunk_rows": 500, "epochs": 2, "bits": 8, "memory": "1GB", **CASES[case]}
    run = partial(streamsgd.train, written(tmp_path), "y", **settings)
    alone = run(noise=True, executor="inline")
    assert alone.weights.tobytes() == run(executor="inline").weights.tobytes()
    found = alone.metrics["noise"]
    assert found["trace_covariance"] > 0.0
    assert found["rows_measured"] > 0
    places = cycle([{"executor": "inline"}, {"executor": "threads", "threads": 2}])
    resumed, stops = finish_chunk_by_chunk(partial(run, noise=True), tmp_path / "saved", places)
    assert stops >= 5
    assert resumed.to_bytes() == alone.to_bytes()
    if case in ("fm", "mlp"):
        assert run(noise=True, client=two_workers).to_bytes() == alone.to_bytes()


@pytest.mark.parametrize("spec", ["mlp:hidden=6-4", "fm:k=3"])
def test_measured_it_is_the_same_bits_on_threads_and_workers(spec: str, tmp_path: Path, two_workers: Any) -> None:
    settings: dict[str, Any] = {"exclude": ["h"], "chunk_rows": 250, "memory": "1GB", "model": spec, "bits": 8}
    path = written(tmp_path)
    alone = streamsgd.noise(path, "y", executor="inline", **settings)
    for other in ({"executor": "threads", "threads": 2}, {"client": two_workers}):
        assert streamsgd.noise(path, "y", **settings, **other) == alone


def test_while_a_network_learns_it_is_the_scatter_within_chunks_at_the_weights_of_their_start() -> None:
    """At a rate of next to nothing those are where it begins; of chunks of 60 rows all are measured."""
    table = table_of("squared").slice(0, 600)
    given: dict[str, Any] = {"transform": "none", "chunk_rows": 60, "optimizer": "sgd", "learning_rate": 1e-300}
    model = learned_of("squared", "mlp:hidden=5", table, noise=True, shuffle="none", **given)
    g = gradients_of_torch(model, table, [5])
    parts = np.split(g, 10)
    truth = {name: float(np.mean([expected(part)[name] for part in parts])) for name in list(expected(g))[:2]}
    agrees(model.metrics["noise"], truth, rtol=1e-10)


# --- where it is measured


def test_without_a_model_it_is_measured_where_learning_begins() -> None:
    """Around 0, as the seed has it: at zeros no hidden unit would learn."""
    table, settings = table_of("squared"), {"exclude": ["h"], "transform": "none", "precision": "float64", **SMALL}
    found = streamsgd.noise(table, "y", model="mlp:hidden=5-4", **settings)
    job = prepare(table, make_settings({"target": "y", "model": "mlp:hidden=5-4", **settings}))
    model = Model(job.parts.loss, job.encoding, job.target, unlearned(job), structure=job.structure)
    agrees(found, expected(gradients_of_torch(model, table, [5, 4])), rtol=1e-10)
    assert streamsgd.noise(table, "y", model="mlp:hidden=5-4", seed=1, **settings) != found


def test_of_dropout_all_units_are_measured() -> None:
    table = table_of("logistic")
    model = model_of("logistic", "mlp:hidden=8-4,dropout=0.5", table)
    cls: Any = MLP
    whole = replace(model, structure=cls("8-4"))
    assert streamsgd.noise(table, at=model, **SMALL) == streamsgd.noise(table, at=whole, **SMALL)


@pytest.mark.parametrize("spec", MODELS)
def test_what_it_holds_is_planned(spec: str) -> None:
    """Weights of a machine whose factors are memories are all of its parameters."""
    table = table_of("logistic", wide=True)
    given = make_settings({"target": "y", "exclude": ["h"], "model": spec, **SMALL})
    plain, noisy = (prepare(table, replace_noise(given, noise=noise)) for noise in (False, True))
    n = noisy.n_parameters
    assert noisy.budget.model - plain.budget.model == NOISE.memory(noisy.outline) >= 2 * 8 * n
    assert MEASURED_NOISE.memory(noisy.outline) >= 8 * (n + 2 * 32 * min(n, 1 << 14))


def replace_noise(settings: Any, *, noise: bool) -> Any:
    return type(settings)(**{**{name: getattr(settings, name) for name in settings.__struct_fields__}, "noise": noise})


def test_the_command_takes_a_model_and_refuses_another_one(tmp_path: Path, command_line: Callable[..., Any]) -> None:
    path = written(tmp_path)
    model_of("logistic", "mlp:hidden=5-4").save(tmp_path / "m.sgd")
    done = command_line("noise", path, "--at", tmp_path / "m.sgd", "--memory", "2GB")
    assert done.returncode == 0
    assert "noise of 3,000 rows" in done.stderr
    started = command_line("noise", path, "--target", "y", "--model", "fm", "--exclude", "h", "--memory", "2GB")
    assert started.returncode == 0
    refused = command_line("noise", path, "--at", tmp_path / "m.sgd", "--model", "mlp", "--memory", "2GB")
    assert refused.returncode == 2
    assert "the model was trained with mlp:hidden=5-4" in refused.stderr
    with pytest.raises(SettingsError, match="--model fm: the model was trained with linear"):
        streamsgd.noise(path, at=streamsgd.train(path, "y", exclude=["h"], optimizer="adam", **SMALL), model="fm")


OWN = """
from typing import NamedTuple


class Product(NamedTuple):
    def width(model):
        return 1

    def beyond(model):
        return 0

    def room(model):
        return 0

    def output(model, index, x, count, weights, room):
        score = weights[index[count - 1]]
        for e in range(count - 1):
            score += weights[index[e]] * weights[index[e]] * x[e]
        return score

    def derive(model, index, x, count, weights, room, out):
        for e in range(count - 1):
            out[e] = 2.0 * weights[index[e]] * x[e]
        out[count - 1] = 1.0

    def begin(model, weights, n_coordinates, seed):
        weights[: n_coordinates - 1] = 0.5
"""


def test_of_a_model_of_ones_own_it_is_measured_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file does not make us import it: it is said again where it is."""
    (tmp_path / "noisy_own.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    table, spec = table_of("squared"), "noisy_own:Product"
    learned_of("squared", spec, table, noise=True, optimizer="adam", learning_rate=0.01).save(tmp_path / "m.sgd")
    found = streamsgd.noise(table, at=tmp_path / "m.sgd", model=spec, **SMALL)
    model = streamsgd.load(tmp_path / "m.sgd", model=spec)
    x, w = design(model, table), model.weights[:, 0]
    by = x * np.append(2.0 * w[:-1], 1.0)
    g = (x @ np.append(w[:-1] ** 2, w[-1]) - learned(model, table))[:, None] * by
    agrees(found, expected(g), rtol=1e-10)
    assert streamsgd.noise(table, at=model, **SMALL) == found
    with pytest.raises(ModelError, match="noisy_own:Product"):
        streamsgd.noise(table, at=tmp_path / "m.sgd", **SMALL)


def test_of_many_units_no_more_is_held_than_planned(tmp_path: Path) -> None:
    """Sums of 15 units, each of 12,800 weights, would be 3 MB at a time."""
    rng = np.random.default_rng(1)
    table = pa.table({**{f"x{j}": rng.normal(size=6400) for j in range(8)}, "y": rng.normal(size=6400)})
    pq.write_table(table, tmp_path / "d.parquet", row_group_size=16)
    settings = {"target": "y", "model": "mlp:hidden=96-120", "noise": True, "transform": "none", "chunk_rows": 3200, **SMALL}
    job = prepare(str(tmp_path / "d.parquet"), make_settings(settings))
    chunk = next(iter(job.plan.chunks(0)))
    filled = read_chunk(job.recipe, job.plan, chunk, job.recipe.allocate(chunk.rows), np.empty(chunk.rows, np.int32))
    some = np.arange(chunk.rows)[::8]
    assert len(chunk.pieces) >= 10
    list(scatter_by_unit(job, filled, some[:2], unlearned(job).ravel()))  # compiled by now
    tracemalloc.start()
    units = Units()
    for part in scatter_by_unit(job, filled, some, unlearned(job).ravel()):
        units.add(part)
    _, held = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert units.total.rows == len(some)
    assert held < NOISE.memory(job.outline)
