"""Variance reduction: the optimum of scikit-learn at a rate that stays the same, the same bytes whatever interrupts it."""

import os
import signal
from functools import partial
from itertools import cycle, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import finish_chunk_by_chunk, status_of_child
from sklearn.linear_model import LogisticRegression, Ridge

import streamsgd
from streamsgd.errors import DivergedError, SettingsError
from streamsgd.features.layout import Layout, most_entries
from streamsgd.features.target import encode_target
from streamsgd.kernels.algebra.eigen import largest_eigenvalue
from streamsgd.kernels.learn.fit import fit, settled
from streamsgd.kernels.structs.block import Parts, new_scratch
from streamsgd.kernels.structs.rows import OWN
from streamsgd.kernels.structs.state import make_state
from streamsgd.kernels.structs.step import StepContext
from streamsgd.model.model import Model
from streamsgd.settings.make import make_settings
from streamsgd.settings.registry import make
from streamsgd.training.events import Event, Report
from streamsgd.training.phases import svrg
from streamsgd.training.phases.svrg import measuring
from streamsgd.training.rates import SVRG_BATCH
from streamsgd.training.run import train_model
from streamsgd.training.tasks.bounds import MOST_PRODUCTS, no_bounds

N, L2 = 2000, 1e-2
RNG = np.random.default_rng(12)
X = RNG.normal(size=(N, 5)) @ (np.eye(5) + 0.4 * RNG.normal(size=(5, 5))) + 0.5
LOGIT = X @ [0.8, -0.6, 0.4, 0.0, 0.2] - 0.3
COLOURS = np.array(["red", "green", "blue", "grey"])[RNG.integers(0, 4, N)]
TAGS = [[f"t{k}" for k in np.flatnonzero(RNG.random(12) < 0.2)] for _ in range(N)]
WEIGHTS = RNG.integers(0, 4, N) / 2.0
TARGETS: dict[str, Any] = {
    "logistic": LOGIT + RNG.logistic(size=N) > 0.0,
    "squared": 3.0 + 2.0 * (LOGIT + RNG.normal(size=N)),
    "huber:delta=1": 3.0 + 2.0 * (LOGIT + RNG.standard_t(2, size=N)),
    "poisson": RNG.poisson(np.exp(0.3 * LOGIT)),
    "softmax": np.array(["a", "b", "c"])[(np.c_[LOGIT, X[:, 0] / 2, np.zeros(N)] + RNG.gumbel(size=(N, 3))).argmax(axis=1)],
    "squared-hinge": LOGIT + RNG.logistic(size=N) > 0.0,
}
BASE: dict[str, Any] = {
    "optimizer": "svrg",
    "precision": "float64",
    "executor": "inline",
    "memory": "2GB",
    "epochs": 600,
    "penalty": f"l2:l2={L2}",
    "scale": "none",
    "transform": "none",
    "bits": 8,
}


def table_of(loss: str, *, wide: bool = False) -> pa.Table:
    further = {"colour": COLOURS, "tags": TAGS} if wide else {}
    return pa.table({**{f"x{j}": X[:, j] for j in range(5)}, **further, "y": TARGETS[loss], "h": WEIGHTS})


def train(loss: str, *, wide: bool = False, **settings: Any) -> Model:
    given = {**BASE, "loss": loss, "exclude": ["h"], **settings}
    return streamsgd.train(table_of(loss, wide=wide), "y", **given)


def snapshots(events: list[Event]) -> np.ndarray:
    """Passes made and objective at every snapshot, (n_snapshots, 2)."""
    return np.array([[event.epoch, event.metrics["objective"]] for event in events if event.kind == "snapshot"])


# --- law: it ends where others do


def test_logistic_regression_is_that_of_saga() -> None:
    truth = LogisticRegression(solver="saga", C=1.0 / (N * L2), tol=1e-12, max_iter=10_000).fit(X, TARGETS["logistic"])
    weights = train("logistic", optimizer="svrg:tolerance=1e-10").weights[:, 0]
    assert np.abs(weights - np.append(truth.coef_, truth.intercept_)).max() <= 1e-8


def test_least_squares_are_those_of_ridge() -> None:
    truth = Ridge(alpha=N * L2, tol=1e-14).fit(X, TARGETS["squared"])
    weights = train("squared", optimizer="svrg:tolerance=1e-10").weights[:, 0]
    assert np.abs(weights - np.append(truth.coef_, truth.intercept_)).max() <= 1e-8


@pytest.mark.parametrize("wide", [False, True], ids=["numbers", "wide"])
def test_an_elastic_net_has_the_zeros_of_saga(wide: bool) -> None:
    l1, l2 = 0.03, 0.01
    model = train("logistic", wide=wide, penalty=f"elastic-net:l1={l1},l2={l2}", optimizer="svrg:tolerance=1e-10")
    x = design(model, table_of("logistic", wide=wide))[:, :-1]
    c, ratio = 1.0 / (N * (l1 + l2)), l1 / (l1 + l2)
    truth = LogisticRegression(solver="saga", C=c, l1_ratio=ratio, tol=1e-13, max_iter=20_000)
    truth.fit(x, TARGETS["logistic"])
    weights = model.weights[:-1, 0]
    assert 0 < np.count_nonzero(weights) < len(x[0]) - 1
    assert ((weights == 0.0) == (truth.coef_[0] == 0.0)).all()
    assert np.abs(weights - truth.coef_[0]).max() <= 1e-8


@pytest.mark.parametrize(("loss", "wide"), [(loss, k % 2 == 0) for k, loss in enumerate(TARGETS)])
def test_the_gradient_vanishes_whatever_the_loss_and_the_rows(loss: str, wide: bool) -> None:
    """Worked out here, with row weights; the rate of poisson, which has none of its own, is given."""
    own = {"learning_rate": 0.03} if loss == "poisson" else {}
    model = train(loss, wide=wide, weight="h", exclude=[], **own)
    found, table = model.metrics["svrg"], table_of(loss, wide=wide)
    assert found["stopped"] == "gradient"
    assert found["gradient"] <= 1e-8
    x, (y, _usable) = design(model, table), encode_target(model.target, table["y"])
    gradient = x.T @ (slopes_of(model, x, y) * WEIGHTS[:, None]) / N
    gradient[:-1] += L2 * model.weights[:-1]
    assert np.abs(gradient).max() <= 1.1e-8


def design(model: Model, table: pa.Table) -> np.ndarray:
    """The rows as the model meets them, one column per weight, (n_rows, n_coordinates)."""
    block, pools = model.encode(table)
    rows, width = block.rows, model.encoding.width
    x = np.zeros((table.num_rows, model.encoding.n_coordinates))
    x[:, :width], x[:, -1] = rows.values[:, :width], 1.0
    if hasattr(rows, "ids"):
        for f, by in enumerate(rows.by):
            x[np.arange(len(x)), rows.ids[:, width + OWN + f]] += 1.0 if by < 0 else rows.values[:, by]
        for i, k in np.ndindex(rows.tails.shape[:2]):
            at, n = rows.tails[i, k]
            pool = next(p for p in pools if p.ctypes.data <= at < p.ctypes.data + p.nbytes)
            cells = pool.view(np.uint8).ravel()[at - pool.ctypes.data :][: 8 * n].view([("j", np.int32), ("x", np.float32)])
            np.add.at(x[i], cells["j"], cells["x"])
    return x


def slopes_of(model: Model, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Derivatives of the losses by the scores, (n_rows, n_outputs), in plain Python."""
    scores, loss = x @ model.weights, model.loss
    if not hasattr(loss, "slopes"):
        return np.array([[loss.slope(t, s)] for t, s in zip(y.tolist(), scores[:, 0].tolist(), strict=True)])
    out = np.empty_like(scores)
    for t, s, row in zip(y.tolist(), scores, out, strict=True):
        loss.slopes(t, s, row)
    return out


# --- law: the logarithm of the gap falls along a line, where SGD stays where its noise holds it


@pytest.mark.parametrize(
    ("loss", "wide", "renewal"),
    [
        *(("logistic", False, renewal) for renewal in (1.0, 0.5)),
        *(("squared", False, renewal) for renewal in (1.0, 0.5)),
        ("logistic", True, 1.0),
    ],
)
def test_the_gap_falls_along_a_line_to_1e_10(loss: str, wide: bool, renewal: float) -> None:
    """From the start, over passes of every kind; of columns that depend on one another once the slowest direction is alone."""
    rng, seen = np.random.default_rng(1), []
    x = rng.normal(size=(N, 5))
    score = x @ [0.4, -0.3, 0.3, 0.0, 0.2]
    y = score + rng.normal(size=N) if loss == "squared" else score + rng.logistic(size=N) > 0.0
    table = table_of(loss, wide=True) if wide else pa.table({**{f"x{j}": x[:, j] for j in range(5)}, "y": y})
    settings = {**BASE, "loss": loss, "exclude": ["h"] if wide else []}
    best = streamsgd.train(table, "y", **{**settings, "optimizer": "svrg:tolerance=1e-12"}).metrics["svrg"]["objective"]
    rate = None if wide else {"logistic": 0.01, "squared": 0.003}[loss]
    settings |= {"optimizer": f"svrg:renewal={renewal},tolerance=1e-10", "learning_rate": rate}
    streamsgd.train(table, "y", on_progress=seen.append, **settings)
    passes, gaps = (snapshots(seen) - [0.0, best]).T
    assert gaps.min() < 1e-11
    some = (gaps > 1e-12) & (gaps < (1e-6 if wide else np.inf))
    assert some.sum() >= 8
    r2 = np.corrcoef(passes[some], np.log10(gaps[some]))[0, 1] ** 2
    assert r2 > 0.99


def test_at_the_same_rate_sgd_stalls_where_its_exact_recursion_says() -> None:
    """E[excess] = tr(H M) / 2 of rows drawn with replacement, within 5 %; svrg goes to 1e-10.

    M = A M A + (eta^2 / b) (E[xx' M xx'] - H M H + C), A = I - eta H: the covariance of the weights at rest.
    """
    rng, d, b, eta, draws = np.random.default_rng(3), 4, 4, 0.08, 3000
    n, steps = 1500, 100
    x = rng.normal(size=(n, d)) * [1.0, 0.8, 1.2, 0.9]
    y = x @ [1.0, -1.0, 0.5, 0.2] + 0.7 + rng.normal(size=n)
    one = np.c_[x, np.ones(n)]
    best = np.linalg.lstsq(one, y, rcond=None)[0]
    h, noise = one.T @ one / n, one * (one @ best - y)[:, None]
    c, a = noise.T @ noise / n, np.eye(d + 1) - eta * h
    pairs = np.einsum("ni,nj->nij", one, one).reshape(n, -1)
    fourth = (pairs.T @ pairs / n).reshape(4 * [d + 1]).transpose(0, 2, 1, 3).reshape((d + 1) ** 2, -1)
    within = np.kron(a, a) + eta**2 / b * (fourth - np.kron(h, h))
    m = np.linalg.solve(np.eye((d + 1) ** 2) - within, eta**2 / b * c.ravel()).reshape(d + 1, d + 1)
    expected = 0.5 * np.trace(h @ m)
    settings = {**BASE, "penalty": "none", "learning_rate": eta, "batch_size": b, "schedule": "constant"}

    def table(rows: Any) -> pa.Table:
        return pa.table({**{f"x{j}": x[rows, j] for j in range(d)}, "y": y[rows]})

    trainer = streamsgd.Trainer("y", **{**settings, "optimizer": "sgd", "epochs": 1, "task": "regression", "loss": "squared"})
    excess = []
    for k in range(draws):
        w = trainer.partial_fit(table(rng.integers(0, n, b * steps))).model.weights[:, 0] - best
        excess.append(0.5 * w @ h @ w if k >= 20 else np.nan)
    assert np.nanmean(excess) == pytest.approx(expected, rel=0.05)
    model = streamsgd.train(table(slice(None)), "y", **settings)
    w = model.weights[:, 0] - best
    assert 0.5 * w @ h @ w <= 1e-10 < 1e-3 < expected


# --- law: passes, rates and bounds are what they say


def test_passes_measure_and_learn_by_a_coin_that_is_addressed() -> None:
    assert measuring(0, 1.0, 6) == [True, False, True, False, True, False]
    assert measuring(0, 1.0, 5) == [True, False, True, False, False], "what the last pass measured nobody would use"
    found = measuring(3, 0.25, 4001)
    assert found[:1000] == measuring(3, 0.25, 1001)[:1000]
    assert found != measuring(4, 0.25, 4001)
    assert not any(a and b for a, b in pairwise(found))
    assert found.count(True) / found.count(False) == pytest.approx(0.25, abs=0.02)


@pytest.mark.parametrize(
    ("loss", "c", "wide"),
    [("logistic", 0.25, True), ("squared", 1.0, False), ("softmax", 0.5, True), ("squared-hinge", 2.0, False)],
)
def test_the_rate_is_one_over_the_expected_smoothness_of_a_batch(loss: str, c: float, wide: bool) -> None:
    model = train(loss, wide=wide, epochs=2, batch_size=5, weight="h", exclude=[])
    x = design(model, table_of(loss, wide=wide))
    sizes = WEIGHTS * (x * x).sum(axis=1)
    whole = np.linalg.eigvalsh((x * WEIGHTS[:, None]).T @ x / N)[-1]
    smooth, most = c * whole, c * sizes.max()
    expected = (N * 4 * smooth + (N - 5) * most) / (5 * (N - 1)) + L2
    found = model.metrics["svrg"]
    if model.encoding.n_coordinates <= MOST_PRODUCTS:
        assert 1.0 - 1e-9 <= found["smoothness"] / expected <= 1.02
    else:
        assert expected * (1.0 - 1e-9) <= found["smoothness"]
    assert found["rate"] == 1.0 / found["smoothness"]
    assert model.provenance["parts"]["optimizer"] == f"svrg:learning_rate={found['rate']!r},renewal=1.0,tolerance=1e-08"


def test_the_largest_eigenvalue_is_bounded_to_two_percent() -> None:
    rng = np.random.default_rng(5)
    for n in (1, 2, 17, 200):
        for scale in (1e-150, 1.0, 1e150):
            half = rng.normal(size=(n, n)) * rng.lognormal(size=n)
            matrix = np.tril(scale * half @ half.T)
            truth = np.linalg.eigvalsh(matrix / scale)[-1]
            assert truth * (1.0 - 1e-10) <= largest_eigenvalue(matrix, *np.zeros((2, n, n))) / scale <= 1.021 * truth
    assert largest_eigenvalue(np.zeros((3, 3)), *np.zeros((2, 3, 3))) == 0.0


def test_a_rate_that_is_set_stays_and_another_halves_when_a_snapshot_is_worse(monkeypatch: pytest.MonkeyPatch) -> None:
    assert train("logistic", epochs=20, learning_rate=0.003).metrics["svrg"]["rate"] == 0.003
    rate = train("squared", epochs=2).metrics["svrg"]["rate"]
    with pytest.raises(DivergedError):
        train("squared", learning_rate=100.0 * rate)
    bound = svrg.VarianceReduction._bound
    monkeypatch.setattr(svrg.VarianceReduction, "_bound", lambda self, l2: bound(self, l2) / 8.0)
    found = train("squared", batch_size=64).metrics["svrg"]
    assert found["refused"] >= 1
    assert found["rate"] == 0.5 ** found["refused"] / found["smoothness"]
    assert found["stopped"] == "gradient"


def test_only_rows_that_are_learned_count() -> None:
    """Also of the total that progress is measured by."""
    seen: list[Event] = []
    table = table_of("logistic")
    settings = make_settings({**BASE, "target": "y", "exclude": ["h"], "epochs": 5, "validation": 0.25, "patience": 9})
    model, report = train_model(table, settings, emit=seen.append)
    held = model.provenance["counts"]["held"]
    assert 400 < held < 600
    assert (report.epochs, report.rows, report.steps) == (5, 3 * (N - held), 3 * -(-(N - held) // SVRG_BATCH))
    assert {event.total_rows for event in seen} == {3 * N}
    assert len(model.metrics["held_out_losses"]) == 3
    assert [event.epoch for event in seen if event.kind == "snapshot"] == [1.0, 3.0]


def test_where_weights_are_few_of_many_they_move_as_if_all_moved() -> None:
    """Without penalty to the last digits, and as penalties flow if there is one."""
    rng, n = np.random.default_rng(4), 400
    values = rng.normal(size=(n, 3)) * (rng.random((n, 3)) < 0.3)
    for penalty, tolerance in (("none", 1e-13), ("elastic-net:l1=0.01,l2=0.1", 1e-3)):
        found = []
        for mixed in (False, True):
            layout = Layout(3, n_coordinates=4, mixed=mixed)
            block = layout.allocate(n, "float64")
            block.rows.values[:, :3], block.y[:] = values, np.sin(values.sum(axis=1)) > 0.1
            state = make_state(np.array([0.5, -0.2, 0.01, 0.3]), 2, np.float64, few=mixed, lazy=mixed)
            state.slots[0], state.slots[1] = [0.4, -0.1, 0.0, 0.2], [0.05, 0.02, 0.008, -0.1]
            optimizer = make("optimizer", "svrg:learning_rate=0.01")
            parts = Parts(make("loss", "logistic"), make("penalty", penalty), optimizer, make("schedule", "constant"))
            order, heads, out = np.zeros(n, np.int32), np.zeros(1, np.int64), np.zeros(4)
            scratch = new_scratch(1, float, most_entries(block, layout))
            fit(parts, block, order, heads, state, StepContext(4, 3, 0.0, 0.0, 1.0), scratch)
            settled(parts, state, 3, out)
            found.append(out)
        assert np.abs(found[0] - found[1]).max() <= tolerance


# --- law: same data and settings, same bytes

RUN: dict[str, Any] = {**BASE, "target": "y", "loss": "logistic", "exclude": ["h"], "chunk_rows": 700, "epochs": 6}
CASES: dict[str, dict[str, Any]] = {
    "numbers": {"exclude": ["h", "colour", "tags"]},
    "wide, a coin": {"optimizer": "svrg:renewal=0.5", "seed": 5},
    "classes, l1": {"loss": "softmax", "penalty": "elastic-net:l1=0.01,l2=0.01"},
    "single precision, held out": {"precision": "float32", "validation": 0.2, "patience": 1, "min_improvement": 0.5},
    "batches that span chunks, a polish after it": {"batch_size": 333, "polish": 2},
    "full batch": {"batch_size": "full"},
}
PLACES = (
    {"executor": "dask", "threads": 2, "memory": "3GB"},
    {"executor": "inline", "memory": "1GB"},
    {"executor": "dask", "threads": 1, "memory": "20GB"},
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files of the same rows with each target, in row groups that are merged, read whole and streamed in slices."""
    folder = tmp_path_factory.mktemp("svrg")
    for loss in ("logistic", "softmax"):
        (folder / loss).mkdir()
        table = table_of(loss, wide=True)
        for k, size in enumerate((70, 400, 1000)):
            pq.write_table(table.slice(k * N // 3, N // 3), folder / loss / f"{k}.parquet", row_group_size=size)
    return folder


def run(folder: Path, **settings: Any) -> tuple[bytes, Report]:
    given = {**RUN, **settings}
    model, report = train_model(str(folder / given["loss"]), make_settings(given))
    return model.to_bytes(), report


@pytest.mark.parametrize("case", CASES)
def test_stopped_at_every_chunk_it_ends_with_the_same_bytes(folder: Path, tmp_path: Path, case: str) -> None:
    """Also where each start has another executor, other threads and another memory budget."""
    alone, report = run(folder, **CASES[case])
    (result, _), stops = finish_chunk_by_chunk(partial(run, folder), tmp_path / "saved", cycle(PLACES), **CASES[case])
    assert result == alone
    seed, renewal = CASES[case].get("seed", 0), 0.5 if "coin" in case else 1.0
    measured = sum(measuring(seed, renewal, min(report.epochs, 6)))  # whose chunks are added up in one round
    assert stops >= 3 * (min(report.epochs, 6) - measured) + measured - 1


def test_killed_in_passes_of_each_kind_it_goes_on_to_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    settings = make_settings({**RUN, "checkpoint_chunks": 1, "executor": "inline"})

    def start(after: int, name: str) -> int:
        steps = iter(range(1, 10_000))

        def emit(event: Any) -> None:
            if event.kind in ("chunk", "snapshot") and next(steps) == after:
                os.kill(os.getpid(), signal.SIGKILL)

        return status_of_child(lambda: train_model(str(folder / "logistic"), settings, out=tmp_path / name, emit=emit))

    assert start(-1, "alone.sgd") == 0
    for after in (4, 5):  # a measuring pass of three chunks is one round, which tells of a chunk and of a snapshot
        assert start(after, "killed.sgd") == -signal.SIGKILL
        assert list((tmp_path / "killed.sgd.ckpt").glob("*.ckpt"))
    assert start(-1, "killed.sgd") == 0
    assert (tmp_path / "killed.sgd").read_bytes() == (tmp_path / "alone.sgd").read_bytes()


# --- law: what it holds is in the budget, and what it cannot do is refused before it starts


def test_what_it_holds_is_in_the_budget() -> None:
    table = table_of("softmax", wide=True)
    job, plain = (streamsgd.plan(table, "y", **{**BASE, "exclude": ["h"], "optimizer": name}) for name in ("svrg", "sgd"))
    n = job.encoding.n_coordinates * 3
    assert job.budget.model - plain.budget.model >= 8 * (2 * 2 * n + 3 * n)
    held = no_bounds(job.encoding.n_coordinates, 3).nbytes
    assert held <= svrg.svrg_bytes(n, job.encoding.n_coordinates) / 2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"loss": "hinge"}, "svrg needs a loss without kinks, and Hinge has some; pass --loss squared-hinge, or another"),
        ({"loss": "quantile"}, "without kinks, and Quantile has some; pass --loss huber"),
        (
            {"loss": "poisson"},
            "svrg has no rate for Poisson, whose curvature has no bound: pass --learning-rate, or take --pol",
        ),
        ({"clip_norm": 1.0}, "keeps its gradients without bias, which clipping would bring in: leave --clip-norm out"),
        ({"epochs": 1}, "measures the gradient in one pass before it learns in another: pass --epochs 2 or more"),
        ({"optimizer": "svrg:renewal=0"}, "renewal=0 must be above 0 and at most 1"),
        ({"optimizer": "svrg:renewal=1.5"}, "renewal=1.5 must be above 0 and at most 1"),
        ({"optimizer": "svrg:learning_rate=-1"}, "learning_rate=-1 must be at least 0"),
        ({"rate_scaling": "linear", "batch_size": 64}, "for the batches there are: leave --rate-scaling out"),
        ({"memory": "420MB"}, "The smallest budget that can is"),
    ],
)
def test_what_it_cannot_do_is_refused(settings: dict[str, Any], message: str) -> None:
    loss = settings.get("loss", "logistic").replace("hinge", "logistic").replace("quantile", "squared")
    with pytest.raises(streamsgd.errors.StreamSGDError, match=message):
        streamsgd.plan(table_of(loss, wide=True), "y", **{**BASE, "exclude": ["h"], **settings})


def test_tables_that_come_one_by_one_are_refused() -> None:
    with pytest.raises(SettingsError, match="--optimizer svrg needs all the data at once"):
        streamsgd.Trainer("y", optimizer="svrg")


def test_auto_epochs_count_passes_of_both_kinds() -> None:
    job = streamsgd.plan(table_of("logistic"), "y", **{**BASE, "epochs": "auto"})
    assert (job.epochs, job.batch_size, type(job.parts.schedule).__name__) == (20, SVRG_BATCH, "Constant")
