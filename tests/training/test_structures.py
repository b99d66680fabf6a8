"""Laws of models that are not linear: stops, workers and files leave no trace; what they do not support is refused by name."""

import pickle
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import finish_chunk_by_chunk
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

import streamsgd
from streamsgd import serving
from streamsgd.errors import BudgetError, ModelError, SettingsError
from streamsgd.kernels.structs.state import cells_of
from streamsgd.model.explaining.contributions import Contributions
from streamsgd.model.read import load
from streamsgd.settings.make import make_settings
from streamsgd.show.model import model_summary, model_text
from streamsgd.training.initial import new_state
from streamsgd.training.memory import model_bytes
from streamsgd.training.prepare import prepare
from streamsgd.training.run import train_model

N_ROWS = 3000
BASE: dict[str, Any] = {"target": "y", "epochs": 2, "chunk_rows": 500, "memory": "2GB", "executor": "inline", "bits": 10}

CASES: dict[str, dict[str, Any]] = {
    "fm": {"model": "fm:k=3"},
    "fm without a linear part": {"model": "fm:k=2,linear=none"},
    "fm in batches": {"model": "fm:k=3", "optimizer": "adam", "batch_size": 20, "validation": 0.2},
    "fm on numbers": {"model": "fm:k=2", "features": ["x0", "x1"], "optimizer": "sgd", "learning_rate": 0.05},
    "fwfm": {"model": "fwfm:k=3"},
    "fwfm in batches": {"model": "fwfm:k=3", "optimizer": "adam", "batch_size": 20},
    "mlp": {"model": "mlp:hidden=6-4", "features": ["x0", "x1"]},
    "mlp on categories": {"model": "mlp:hidden=6-4"},
}


def write_data(folder: Path, n: int = N_ROWS) -> Path:
    """Write two columns of categories whose pairs matter, one of strings that are hashed, and two of numbers."""
    rng = np.random.default_rng(3)
    folder.mkdir()
    a, b = rng.integers(0, 6, n), rng.integers(0, 7, n)
    x, pairs = rng.normal(size=(n, 2)), rng.normal(size=(6, 7))
    score = 2.0 * pairs[a, b] + x[:, 0] * x[:, 1]
    table = pa.table(
        {
            "a": pa.array([f"a{k}" for k in a], mask=rng.random(n) < 0.02),
            "b": [f"b{k}" for k in b],
            "id": [f"v{k}" for k in rng.integers(0, 900, n)],
            "x0": pa.array(x[:, 0], mask=rng.random(n) < 0.02),
            "x1": x[:, 1],
            "y": (score + rng.logistic(size=n) > 0).astype(int),
            "kind": rng.integers(0, 3, n),
        }
    )
    for k in range(2):
        pq.write_table(table.slice(k * n // 2, n // 2), folder / f"{k}.parquet", row_group_size=250)
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("structures") / "data")


def train(data: Path, **settings: Any) -> bytes:
    given = {**BASE, "exclude": [] if "features" in settings else ["kind"], **settings}
    return train_model(str(data), make_settings(given))[0].to_bytes()


# --- law: nothing that happens to a run shows in its model


PLACES = ({"executor": "dask", "threads": 2}, {"executor": "inline", "memory": "1GB"})


@pytest.mark.parametrize("case", ["fm", "fm in batches", "fwfm", "mlp on categories"])
def test_stopped_at_every_chunk_a_run_ends_with_the_same_bytes(data: Path, tmp_path: Path, case: str) -> None:
    alone = train(data, **CASES[case])
    result, stops = finish_chunk_by_chunk(partial(train, data), tmp_path / "saved", cycle(PLACES), **CASES[case])
    assert result == alone
    assert stops >= 10


@pytest.mark.parametrize(("case", "combine"), [("fm", "average"), ("fm in batches", "sync"), ("mlp on categories", "sync")])
def test_lanes_on_threads_give_the_bytes_of_one_thread(data: Path, case: str, combine: str) -> None:
    settings = {**CASES[case], "lanes": 2, "combine": combine}
    alone = train(data, **settings)
    assert train(data, **settings, executor="dask", threads=3) == alone
    assert alone != train(data, **CASES[case])


def test_worker_processes_give_the_bytes_of_one_thread(data: Path) -> None:
    settings = {**CASES["fwfm"], "lanes": 2}
    alone = train(data, **settings)  # first, or both workers would compile what it compiles
    assert train(data, **settings, workers=2) == alone


def test_other_seeds_give_other_models(data: Path) -> None:
    assert len({train(data, seed=seed, **CASES["mlp on categories"]) for seed in (0, 0, 1)}) == 2


# --- law: a file holds all that scoring needs


@pytest.mark.parametrize("case", ["fm", "fm in batches", "fwfm", "fwfm in batches", "mlp on categories"])
def test_a_model_comes_back_from_its_file_and_scores_alike(data: Path, tmp_path: Path, case: str) -> None:
    made, _ = train_model(str(data), make_settings({**BASE, "exclude": ["kind"], **CASES[case]}))
    made.save(tmp_path / "m.sgd")
    again, table = load(tmp_path / "m.sgd"), pq.read_table(data)
    assert again.structure == made.structure
    assert again.to_bytes() == made.to_bytes()
    assert np.array_equal(again.predict_proba(table), made.predict_proba(table))
    streamsgd.predict(again, str(data), tmp_path / "out")
    written = pq.read_table(tmp_path / "out")
    name = next(name for name in written.column_names if "prob" in name)
    assert np.allclose(written[name].to_numpy(), made.predict_proba(table)[:, 1], atol=1e-7)
    assert made.evaluate(table)["log_loss"] < 0.69
    assert any(line.startswith(("fm (", "fwfm (", "mlp (")) for line in model_text(model_summary(again)))


def test_the_score_of_a_machine_is_that_of_its_parameters(data: Path) -> None:
    """What is predicted for two categories is worked out by hand from the rows of `weights`."""
    made, _ = train_model(str(data), make_settings({**BASE, "features": ["a", "b"], "cross": ["none"], **CASES["fm"]}))
    made = replace(made, weights=made.weights.astype(np.float64))
    table = pa.table({"a": ["a1", "a2"], "b": ["b3", "b0"]})
    places = [[made.encode(table.slice(r, 1))[0].rows.ids[0, 2 + f] for f in range(2)] for r in range(2)]
    for scores, (i, j) in zip(made.decision_function(table), places, strict=True):
        v = made.weights
        assert abs(scores - (v[-1, 0] + v[i, 0] + v[j, 0] + v[i, 1:] @ v[j, 1:])) < 1e-12


def test_damaged_structures_are_refused(data: Path) -> None:
    from streamsgd.model import store  # noqa: PLC0415
    from streamsgd.model.read import from_file  # noqa: PLC0415

    made, _ = train_model(str(data), make_settings({**BASE, "exclude": ["kind"], **CASES["fm"]}))
    header, arrays = store.unpack("model", made.to_bytes(), "m")
    for said, message in (
        ({"name": "fm", "fields": {"k": 0}}, "model.fields are wrong: model 'fm': k=0"),
        ({"name": "fm", "fields": {"k": 5}}, "array '(used_)?weights' is"),
        ({"name": "mlp", "fields": {"hidden": "9999"}}, "model.fields are wrong: hidden"),
        ({"name": "os:system", "fields": {}}, "no file makes us import code"),
        (3, "model is wrong"),
    ):
        with pytest.raises(ModelError, match=message):
            from_file({**header, "model": said}, arrays)


# --- law: it learns what two columns say only together


def test_a_machine_and_a_network_learn_what_a_linear_model_cannot(data: Path) -> None:
    """On rows that they have not seen they are better than the best sum of weights is on those that it has."""
    pd = pytest.importorskip("pandas")
    columns = pq.read_table(data).to_pandas()
    design = np.column_stack([pd.get_dummies(columns[["a", "b"]], dtype=float), columns[["x0", "x1"]].fillna(0.0)])
    best = LogisticRegression(C=1e6, max_iter=1000).fit(design, columns["y"])
    linear = log_loss(columns["y"], best.predict_proba(design))
    for model, epochs in (("fm", "auto"), ("mlp", 6)):  # in more passes a network learns so few rows by heart
        some = {**BASE, "features": ["a", "b", "x0", "x1"], "epochs": epochs, "model": model, "validation": 0.2}
        found = train_model(str(data), make_settings(some))[0].metrics["held_out"]["log_loss"]
        assert found < linear - 0.02, model


# --- law: they learn beside others, and table by table, with the bytes that they have alone


def test_linear_models_and_others_share_a_decode(data: Path, tmp_path: Path) -> None:
    """Each is its solo run to the byte, with stops at every chunk; `tune` has their losses."""
    common = {**BASE, "epochs": 1, "features": ["a", "b", "x0", "x1"], "validation": 0.2}
    each = [{"model": "linear", "optimizer": "adam"}, {"model": "fm:k=3", "optimizer": "auto"}, {"model": "mlp:hidden=6-4"}]
    alone = [streamsgd.train(str(data), **{**common, **own}) for own in each]
    run = partial(streamsgd.train_many, str(data), settings=each)
    found, stops = finish_chunk_by_chunk(run, tmp_path / "saved", cycle([{}]), **common)
    assert [model.to_bytes() for model in found] == [model.to_bytes() for model in alone]
    assert stops >= 5
    tuned = streamsgd.tune(str(data), grid={"model": [own["model"] for own in each[1:]]}, **common)
    assert [line["loss"] for line in tuned.table] == [model.metrics["held_out"]["loss"] for model in alone[1:]]


@pytest.mark.parametrize("model", ["fm:k=3", "mlp:hidden=6-4"])
def test_the_best_of_several_starts_is_kept(data: Path, model: str) -> None:
    """In one decode, by losses of rows when they were new; each is its solo run to the byte, and the first the usual one."""
    common = {**BASE, "epochs": 1, "features": ["a", "b", "x0", "x1"], "validation": 0.0}
    each = [f"{model},draw={k}" for k in range(3)]
    alone = [streamsgd.train(str(data), **common, model=own) for own in each]
    tuned = streamsgd.tune(str(data), grid={"model": each}, **common)
    losses = [made.metrics["progressive_loss"] for made in alone]
    assert [line["loss"] for line in tuned.table] == losses
    assert len(set(losses)) == 3
    assert tuned.model.to_bytes() == alone[int(np.argmin(losses))].to_bytes()
    usual = streamsgd.train(str(data), **common, model=model)
    assert np.array_equal(usual.weights, alone[0].weights)


def test_restarts_are_the_starts_of_one_seed(data: Path) -> None:
    """They are what a grid of `draw` is, each to the byte; without a grid too, and from the command line's texts."""
    common = {**BASE, "epochs": 1, "features": ["a", "b", "x0", "x1"], "validation": 0.0}
    each = ["fm:k=3", "fm:k=3,draw=1", "fm:k=3,draw=2"]
    by_grid = streamsgd.tune(str(data), grid={"model": each}, **common)
    found = streamsgd.tune(str(data), restarts=3, model="fm:k=3", **common)
    assert [line["loss"] for line in found.table] == [line["loss"] for line in by_grid.table]
    assert found.model.to_bytes() == by_grid.model.to_bytes()
    assert found.settings["model"] == each[found.best]
    for given, said in (
        ({"restarts": 2}, "a linear model has one minimum"),
        ({"restarts": 1, "model": "fm"}, "--restarts 1: train two starts"),
        ({"restarts": 2, "model": "fm:draw=1"}, "numbers the starts of --model 'fm:draw=1' itself"),
        ({"model": "fm"}, "there is nothing to try"),
    ):
        with pytest.raises(SettingsError, match=said):
            streamsgd.tune(str(data), **common, **given)


@pytest.mark.parametrize(
    "settings", [{"optimizer": "langevin:temperature=0.01"}, {"optimizer": "perturbed:every=2,threshold=9"}]
)
def test_noise_of_an_optimizer_follows_from_the_seed_and_survives_stops(
    data: Path, tmp_path: Path, settings: dict[str, Any]
) -> None:
    given = {"features": ["x0", "x1"], "model": "mlp:hidden=6-4,dropout=0.3", **settings}
    alone = train(data, **given)
    result, stops = finish_chunk_by_chunk(partial(train, data), tmp_path / "saved", cycle(PLACES), **given)
    assert result == alone
    assert stops >= 10
    assert len({alone, train(data, **given, seed=1), train(data, **{**given, "optimizer": "sgd"})}) == 3


@pytest.mark.parametrize("case", ["fm", "fm in batches"])
def test_trainers_learn_table_by_table(data: Path, case: str) -> None:
    """One that was pickled between two tables has the bytes of one that was not, and the second table helps."""
    table, settings = pq.read_table(data), {**BASE, "epochs": 1, "exclude": ["kind"], **CASES[case]}
    first, second, rest = table.slice(0, 1200), table.slice(1200, 1200), table.slice(2400)
    trainer = streamsgd.Trainer(**settings).partial_fit(first)
    before = trainer.model.evaluate(rest)["log_loss"]
    again = pickle.loads(pickle.dumps(trainer)).partial_fit(second)
    assert again.model.to_bytes() == trainer.partial_fit(second).model.to_bytes()
    assert trainer.model.evaluate(rest)["log_loss"] < before


# --- law: memory is declared, and what is not supported is refused


@pytest.mark.parametrize("case", CASES)
def test_what_a_learner_holds_is_in_the_plan(data: Path, case: str) -> None:
    job = prepare(str(data), make_settings({**BASE, "exclude": ["kind"], **CASES[case]}))
    state = new_state(job)
    held = max(cells_of(state).nbytes, state.weights.nbytes + state.slots.nbytes) + state.grad.nbytes
    assert held <= model_bytes(job.n_weights, job.parts.optimizer, "float32") <= job.budget.model
    assert job.n_weights == state.weights.size


def test_a_machine_that_memory_does_not_hold_is_refused_before_it_starts(data: Path) -> None:
    with pytest.raises(BudgetError, match="--memory"):
        train(data, model="fm:k=200", bits=22, values=False, memory="1GB")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"polish": 5}, "--polish is for linear models.*leave it out"),
        ({"standard_errors": True}, "--standard-errors is for linear models"),
        ({"method": "sgld-cv"}, r"sample \(--method\) is for linear models"),
        ({"keep_memory": True}, "--keep-memory is for linear models"),
        ({"rare": "auto"}, "--rare thins rows for linear models"),
        ({"class_weight": ["balanced"]}, "pass --keep-weights"),
        ({"batch_size": "adaptive"}, "--batch-size adaptive"),
        ({"target": "kind", "exclude": ["y"], "task": "multiclass"}, "one score per row, and 'kind' has 3 classes"),
        ({"optimizer": "svrg"}, "--optimizer svrg learns linear models only"),
        ({"optimizer": "coin"}, "take normalized or adam for --model fm"),
        ({"optimizer": "race"}, "--optimizer race learns linear models only"),
        ({"optimizer": "normalized", "penalty": "l2"}, "--penalty l2 is for batches"),
        ({"optimizer": "normalized", "average": 1.0}, "--average is for batches"),
        ({"optimizer": "normalized", "lanes": 2, "combine": "sync"}, "--combine sync adds up the gradients of lanes"),
        ({"features": ["id"]}, "a row has one, of 'id'"),
        ({"model": "mlp", "optimizer": "normalized"}, "take adam for --model mlp"),
        ({"model": "mlp:draw=-1"}, "draw=-1 must be at least 0"),
        ({"model": "mlp:dropout=1"}, "dropout=1 must be at least 0 and below 1"),
        ({"model": "fm:against=all"}, "against='all' is neither linear nor none"),
        ({"model": "mlp", "optimizer": "langevin", "batch_size": "adaptive"}, "--batch-size adaptive"),
        ({"model": "linear", "optimizer": "langevin", "batch_size": "adaptive"}, "brings noise of its own"),
        ({"model": "linear", "optimizer": "perturbed:radius=0"}, "radius must be above 0"),
        ({"model": "fm:k=0"}, "k=0 must be at least 1"),
        ({"model": "mlp:hidden=0"}, "hidden='0' is not one to 3 sizes"),
        ({"model": "mlp:activation=sinus"}, "activation='sinus' is none of relu"),
        ({"model": "fmm"}, "unknown model 'fmm', did you mean 'fm'"),
    ],
)
def test_what_a_model_does_not_support_is_refused_by_name(data: Path, settings: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        train(data, **{"model": "fm", **settings})


@pytest.mark.parametrize(
    "ask",
    [
        lambda model, _path: model.coefficients(),
        lambda model, _path: model.values(),
        lambda model, _path: Contributions(model),
    ],
)
def test_what_only_linear_models_have_is_refused(data: Path, ask: Callable[..., Any]) -> None:
    made, _ = train_model(str(data), make_settings({**BASE, "exclude": ["kind"], **CASES["fm"]}))
    with pytest.raises(ModelError, match="a model of --model fm has no"):
        ask(made, data)


def test_machines_are_served_but_not_learned_on_without_their_memory(data: Path, tmp_path: Path) -> None:
    """`tests/serving` has the law; here a model that was trained, of numbers, categories and hashed values."""
    made, _ = train_model(str(data), make_settings({**BASE, "exclude": ["kind"], **CASES["fwfm"]}))
    made.save(tmp_path / "m.sgd")
    table = pq.read_table(data).slice(0, 200)
    found = np.array(serving.load(tmp_path / "m.sgd").predict_proba(table.to_pylist()))
    assert np.abs(found - made.predict_proba(table)).max() <= 1e-6
    with pytest.raises(ModelError, match="a model of --model fwfm has no memory of its optimizer"):
        made.partial_fit(pq.read_table(data))
