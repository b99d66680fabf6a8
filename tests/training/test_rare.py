"""Laws of rare events: rows are left out as the rule says, what is learned is the population's, and no row is lost unsaid."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import scipy.optimize
from conftest import finish_chunk_by_chunk
from scipy.special import expit

import streamsgd
from streamsgd.compute.executors import Inline
from streamsgd.errors import SettingsError
from streamsgd.features.layout import Layout
from streamsgd.features.look.bins_pay import tries_bins
from streamsgd.features.look.crosses_pay import tries_crosses
from streamsgd.features.look.shrink import tries_ridges
from streamsgd.kernels.parts.losses import Logistic
from streamsgd.kernels.structs.block import new_scratch
from streamsgd.kernels.sums.objective import add_chunk, new_curvature
from streamsgd.kernels.sums.offset import BASE, OffsetLogistic
from streamsgd.kernels.sums.thin import (
    EXPECTED,
    FORESEEN,
    KEPT,
    LOCAL,
    N_SUMS,
    PILOT_POSITIVE,
    PILOT_WEIGHT,
    POSITIVE,
    ROWS,
    TARGETED,
    UNIFORM,
    WEIGHT,
    Rule,
    thin,
)
from streamsgd.settings.make import make_settings
from streamsgd.stream.distilled import DistilledChunks
from streamsgd.stream.loader import Loader
from streamsgd.stream.stream import Stream
from streamsgd.training.classes.population import Known, missed, shift_to
from streamsgd.training.classes.rare import FEWEST_POSITIVES, PILOT_POSITIVES
from streamsgd.training.phases.held_judge import is_free
from streamsgd.training.phases.rare import variance_ratio, wanted_of
from streamsgd.training.prepare import prepare
from streamsgd.training.tasks.pilot import Seen, cut_of, next_rows
from streamsgd.training.tasks.thinned import SAMPLE_ROWS, Sample, Thinning, no_sample, thin_chunk

SLOPES = np.array([0.8, -0.8, 0.8])
ROWS_OF_DATA = 120_000
QUICK: dict[str, Any] = {"executor": "inline", "memory": "2GB", "optimizer": "adam", "epochs": 1, "learning_rate": 0.01}


def draw(n: int, seed: int = 0, intercept: float = -5.2) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng([seed, 88])
    x = rng.normal(size=(n, 3))
    return x, (rng.random(n) < expit(intercept + x @ SLOPES)).astype(float)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    """1 % positives, a word that says nothing, weights that matter little."""
    x, y = draw(ROWS_OF_DATA)
    rng = np.random.default_rng(0)
    columns = {f"x{j}": x[:, j].astype(np.float32) for j in range(3)}
    columns |= {"w": rng.uniform(0.5, 1.5, len(y)), "word": rng.choice(["a", "b", "c"], len(y)), "y": y.astype(np.int8)}
    path = tmp_path_factory.mktemp("rare") / "data.parquet"
    pq.write_table(pa.table(columns), path, row_group_size=5000)
    return str(path)


NUMBERS = {"features": ["x0", "x1", "x2"]}


# --- the loss


@pytest.mark.parametrize("offset", [-3.5, 0.0, 6.25, 29.0])
def test_the_loss_of_thinned_rows_is_the_logistic_one_of_a_score_and_an_offset(offset: float) -> None:
    ours, plain = OffsetLogistic(), Logistic()
    for target, score in itertools.product((0.0, 1.0), (-8.0, -0.3, 0.0, 2.0, 15.0)):
        code = (1.0 if target else -1.0) * (BASE + offset)
        assert ours.value(code, score) == pytest.approx(plain.value(target, score + offset), rel=1e-12)
        assert ours.slope(code, score) == pytest.approx(plain.slope(target, score + offset), rel=1e-9, abs=1e-14)
        assert ours.leap(code, score, 0.7) == pytest.approx(plain.leap(target, score + offset, 0.7), rel=1e-9)
        assert ours.value(target, score) == plain.value(target, score)
        assert ours.slope(target, score) == plain.slope(target, score)
        assert ours.mean(score) == plain.mean(score)


# --- thinning


def chances(rule: Rule, x: np.ndarray, y: np.ndarray, pilot: np.ndarray) -> np.ndarray:
    """The formulas of the rules, in NumPy."""
    p, length = expit(x @ pilot[:-1] + pilot[-1]), np.sqrt(1.0 + (x * x).sum(axis=1))
    negatives = {
        TARGETED: np.minimum(1.0, rule.c * p * length / rule.size),
        UNIFORM: np.full(len(y), rule.c),
        LOCAL: rule.c * p,
    }[rule.kind]
    return np.where(y > 0, rule.c * (1.0 - p) if rule.kind == LOCAL else 1.0, negatives)


RULES = [
    Rule(TARGETED, 5.0, 2.0, weighs=False),
    Rule(TARGETED, 5.0, 2.0, weighs=True),
    Rule(UNIFORM, 0.1, 1.0, weighs=False),
    Rule(LOCAL, 3.0, 1.0, weighs=False),
]


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_rows_are_kept_as_often_as_the_rule_says_and_stay_whole(rule: Rule) -> None:
    """Offsets are log(r1 / r0), weights what is left; kept rows stand for all; rows held out stay where they are."""
    n, held, tile = 40_000, 100, 1000
    x, y = draw(n, intercept=-3.0)
    weight = np.random.default_rng(1).uniform(0.5, 2.0, n)
    pilot = np.append(SLOPES, -3.0)
    block = Layout(3).allocate(n, "float64")
    block.rows.values[:, :3], block.y[:], block.weight[:] = x, y, weight
    starts, counts = np.arange(0, n, tile), np.full(n // tile, tile - held)
    mine = (np.arange(n) % tile) < tile - held
    sums = np.zeros(N_SUMS)
    thin(block, starts, counts, starts + counts, pilot, rule, np.uint64(7), sums, new_scratch(1, "float64", 4))
    often = chances(rule, x, y, pilot)
    expected, spread = np.minimum(often, 1.0)[mine].sum(), np.sqrt((np.minimum(often, 1) * (1 - np.minimum(often, 1))).sum())
    assert sums[ROWS] == mine.sum()
    assert sums[[WEIGHT, POSITIVE]] == pytest.approx([weight[mine].sum(), (weight * y)[mine].sum()])
    assert sums[EXPECTED] == pytest.approx(expected, rel=1e-9)
    assert abs(sums[KEPT] - expected) < 4 * spread
    assert sums[FORESEEN] == pytest.approx((weight * expit(x @ pilot[:-1] + pilot[-1]))[mine].sum(), rel=1e-9)
    assert counts.sum() == sums[KEPT]
    assert (starts + counts == np.arange(0, n, tile) + tile - held).all()
    rows = np.concatenate([np.arange(a, a + b) for a, b in zip(starts, counts, strict=True)])
    place = {row.tobytes(): k for k, row in enumerate(x)}
    was = np.array([place[row.tobytes()] for row in block.rows.values[rows, :3]])
    assert len(np.unique(was)) == len(was)
    kept_y, kept_often = y[was], often[was]
    if rule.weighs:
        np.testing.assert_array_equal(block.y[rows], kept_y)
        np.testing.assert_allclose(block.weight[rows], weight[was] / kept_often)
    else:
        p = expit(x[was] @ SLOPES - 3.0)
        zero = chances(rule, x[was], np.zeros(len(was)), pilot)
        odds = (1 - p) / p if rule.kind == LOCAL else 1.0 / zero
        np.testing.assert_allclose(np.abs(block.y[rows]), BASE + np.log(odds), rtol=1e-9)
        np.testing.assert_array_equal(block.y[rows] > 0, kept_y > 0)
        np.testing.assert_allclose(block.weight[rows], weight[was] * np.maximum(1.0, kept_often))
    others = ~mine
    np.testing.assert_array_equal(block.rows.values[others, :3], x[others])


def test_the_sample_stands_for_the_population() -> None:
    """Sums over it are within 4 standard errors of sums over all rows, however small a part of the kept rows it is."""
    settings = make_settings({"target": "y", **QUICK, "rare": "targeted:c=3", "chunk_rows": 20_000, "scale": ["none"]})
    x, y = draw(60_000, intercept=-4.0)
    job = prepare(pa.table({**{f"x{j}": x[:, j] for j in range(3)}, "y": y.astype(int)}), settings)
    pilot = np.append(SLOPES, -4.0).astype(np.float32)
    thinning = Thinning(job.known_thinner.rule._replace(size=2.0), pilot, 0.5)
    total = no_sample()
    for filled in Stream(job.recipe, job.plan, Inline()).chunks():
        found = thin_chunk(job, filled, thinning, samples=True)
        assert thin_chunk(job, filled, thinning, samples=True).sums.sum() == 0.0, "a chunk is thinned once"
        total = total.plus(found.sample)
    scores, lengths = total.scores(pilot)
    np.testing.assert_allclose(lengths.mean(), np.sqrt((x[:100] ** 2).sum(axis=1) + 1).mean(), rtol=0.3)
    each, p = total.each, expit(scores)
    for values, truth in ((p, expit(x @ SLOPES - 4.0).sum()), (np.ones(len(p)), len(y))):
        error = np.sqrt(((each * values) ** 2 * (1 - 1 / each)).sum())
        assert abs(each @ values - truth) < 4 * error
    half = total.down_to(total.share / 2)
    assert 0.4 < len(half.order) / len(total.order) < 0.6
    assert len(half.coordinates) == half.lengths.sum()


def test_samples_stay_within_their_room() -> None:
    rng = np.random.default_rng(0)
    n = SAMPLE_ROWS

    def some() -> Sample:
        index = np.zeros(n, np.uint32)
        return Sample(1.0, rng.random(n), np.ones(n), np.ones(n, np.int64), index, np.ones(n))

    joined = some().plus(some()).plus(some())
    assert n / 4 < len(joined.order) <= n
    assert joined.share == 0.25
    assert joined.each.sum() == pytest.approx(3 * n, rel=0.02)


@pytest.mark.parametrize(
    ("rule", "weighs"),
    [("targeted", False), ("uniform", False), ("targeted:weights=ipw", True), ("local-case-control:c=2", True)],
)
def test_rows_bring_weights_of_their_own_only_where_thinning_changes_them(data: str, rule: str, *, weighs: bool) -> None:
    """They were looked up for every row that was read, which cost a quarter of a plain pass."""
    job = streamsgd.plan(data, "y", **QUICK, **NUMBERS, rare=rule)
    assert bool(job.recipe.class_weights) == weighs


def test_dense_rows_and_lists_of_entries_add_up_to_the_same_objective() -> None:
    """Thinned rows that are dense are added up side by side."""
    x, y = draw(1000)
    y, offset = y.astype(float), np.random.default_rng(0).uniform(0, 5, len(y))
    weights, found = np.append(SLOPES, -2.0), []
    for layout in (Layout(3), Layout(3, n_coordinates=4, mixed=True)):
        block = layout.allocate(len(y), "float64")
        block.rows.values[:, :3], block.y[:], block.weight[:] = x, np.where(y > 0, 1.0, -1.0) * (BASE + offset), 1.0 + y
        gradient, curvature = np.zeros(4), new_curvature(4, np.arange(4, dtype=np.int32), 1, 1)
        tiles, all_rows = np.zeros((1, 3)), (np.zeros(1, np.int64), np.array([len(y)]))
        add_chunk(OffsetLogistic(), block, *all_rows, weights, gradient, curvature, tiles, new_scratch(1, np.float64, 4))
        found.append(np.concatenate([tiles[0], gradient, curvature.diagonal, curvature.block[np.tril_indices(4)]]))
    np.testing.assert_allclose(found[0], found[1], rtol=1e-12)
    score = x @ SLOPES - 2.0 + offset
    assert found[0][0] == pytest.approx(((1.0 + y) * (np.logaddexp(0.0, score) - y * score)).sum(), rel=1e-9)


# --- the pilot


def test_the_pilot_ends_with_its_positives_or_a_tenth_of_the_rows(data: str) -> None:
    settings = make_settings({"target": "y", **QUICK, **NUMBERS, "rare": "targeted", "chunk_rows": 30_000})
    job = prepare(data, settings)
    filled = next(Stream(job.recipe, job.plan, Inline()).chunks())
    rows = next_rows(filled.order, filled.heads())
    assert sorted(rows) == list(range(30_000))
    positive = np.cumsum(filled.block.y[rows] > 0.5)
    cut, seen = cut_of(job, filled, Seen())
    assert seen == (cut, positive[cut - 1])
    assert cut == 12_000, "a tenth of all rows, for they had too few positives"
    assert FEWEST_POSITIVES < positive[cut - 1] < PILOT_POSITIVES
    cut, seen = cut_of(job, filled, Seen(5, PILOT_POSITIVES - 10))
    assert seen.positives == PILOT_POSITIVES
    assert positive[cut - 1] == 10
    assert positive[cut - 2] == 9
    head, whole = filled.head(100), filled.counts.sum()
    assert len(head.order) == 100
    filled.drop(100)
    assert filled.counts.sum() == len(filled.order) == whole - 100
    np.testing.assert_array_equal(next_rows(filled.order, filled.heads()), rows[100:])


# --- runs


def full_fit() -> np.ndarray:
    """The minimum over all rows, by SciPy, the intercept last."""
    x, y = draw(ROWS_OF_DATA)
    design = np.column_stack([x.astype(np.float32), np.ones(len(x))])

    def objective(weights: np.ndarray) -> tuple[float, np.ndarray]:
        score = design @ weights
        return float((np.logaddexp(0.0, score) - y * score).mean()), design.T @ (expit(score) - y) / len(y)

    return scipy.optimize.minimize(objective, np.zeros(4), jac=True, method="BFGS", options={"gtol": 1e-9}).x


@pytest.mark.parametrize("rule", ["targeted:c=20", "targeted:c=5,weights=ipw", "uniform:c=20", "local-case-control:c=2"])
def test_polished_weights_are_those_of_all_rows_within_their_errors(data: str, rule: str) -> None:
    """Of the minimum over all rows; predictions are as many as positives; every row is accounted for."""
    model = streamsgd.train(data, "y", **QUICK, **NUMBERS, rare=rule, polish=30, chunk_rows=30_000, scale=["none"])
    weights, intercepts = model.coefficients()
    found, truth = np.append(weights[:, 0], intercepts[0]), full_fit()
    x, y = draw(ROWS_OF_DATA)
    design = np.column_stack([x, np.ones(len(x))])
    p = expit(design @ truth)
    errors = np.sqrt(np.diagonal(np.linalg.inv(design.T @ (design * (p * (1 - p))[:, None]))))
    told = model.metrics["rare"]
    ratio = told["variance_ratio"]
    assert 1.0 < ratio < {"t": 1.8, "u": 2.5, "l": 1.8}[rule[0]]
    # The two fits share rows: their difference has the variance of the larger less that of the smaller.
    assert (np.abs(found - truth) < 4 * errors * np.sqrt(max(ratio - 1.0, 0.02))).all(), (found, truth, errors)
    mean = model.predict_proba(data)[:, 1].mean()
    assert mean == pytest.approx(y.mean(), rel=0.02)
    counts = model.provenance["counts"]
    assert counts["thinned"] == told["rows"] - told["kept"]
    assert model.provenance["rows_learned"] + counts["thinned"] == ROWS_OF_DATA
    assert told["rows"] + told["pilot_rows"] == ROWS_OF_DATA
    assert model.provenance["parts"]["loss"] == "logistic"
    assert type(model.loss) is Logistic


@pytest.mark.parametrize("optimizer", ["adam", "race"])
def test_progressive_loss_is_that_of_the_population(data: str, optimizer: str) -> None:
    """About that of the run over all rows, for rows with weights too, and of the learner that is kept after a race."""
    settings = {**QUICK, **NUMBERS, "optimizer": optimizer, "weight": "w", "chunk_rows": 30_000, "learning_rate": None}
    plain, thinned = (streamsgd.train(data, "y", **settings, rare=rule) for rule in ("none", "targeted:c=10"))
    best = thinned.metrics["best_constant_loss"]
    assert best == pytest.approx(plain.metrics["best_constant_loss"], rel=1e-9)
    assert thinned.metrics["progressive_loss"] == pytest.approx(plain.metrics["progressive_loss"], rel=0.05)
    assert thinned.metrics["progressive_loss"] < 0.95 * best
    assert "thinned" not in plain.provenance["counts"]
    assert "rare" not in plain.settings


def test_held_out_rows_are_none_of_the_thinned_ones(data: str) -> None:
    settings = {**QUICK, "validation": 0.2, "chunk_rows": 30_000, "optimizer": "normalized"}
    model = streamsgd.train(data, "y", **settings, rare="targeted:c=10", exclude=["w"])
    held, counts = model.metrics["held_out"], model.provenance["counts"]
    assert held["weight"] == held["rows"] == counts["held"]
    assert model.provenance["rows_learned"] + counts["thinned"] + counts["held"] == ROWS_OF_DATA
    plain = streamsgd.train(data, "y", **settings, exclude=["w"]).metrics["held_out"]
    assert held["best_constant_log_loss"] == plain["best_constant_log_loss"]
    assert held["log_loss"] < min(1.01 * plain["log_loss"], held["best_constant_log_loss"])


def test_kills_and_lanes_and_places_leave_no_trace(data: str, tmp_path: Path) -> None:
    """Stopped at every chunk, in several lanes, on threads: the same bytes."""
    settings = {**QUICK, **NUMBERS, "rare": "targeted:c=10", "chunk_rows": 20_000, "lanes": 2, "epochs": 2}

    def run(**settings: Any) -> streamsgd.Model:
        return streamsgd.train(data, "y", **settings)

    alone = run(**settings)
    places = itertools.cycle([{}, {"executor": "threads", "threads": 2}])
    model, stops = finish_chunk_by_chunk(run, tmp_path / "saved", places, **settings)
    assert stops >= 6
    assert model.to_bytes() == alone.to_bytes()


def test_later_passes_need_no_reading(data: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What thinning leaves stays in memory: 2 epochs, 5 passes of polish and one for errors read each row once."""
    read: list[int] = []
    load = Loader.load

    def counted(self: Loader, piece: Any, *rest: Any, **given: Any) -> Any:
        read.append(piece.rows)
        return load(self, piece, *rest, **given)

    settings = {**QUICK, **NUMBERS, "rare": "targeted:c=10", "chunk_rows": 20_000, "epochs": 2, "polish": 5}
    settings |= {"standard_errors": True, "validation": 0.05}
    without = streamsgd.train(data, "y", **settings, cache="none")
    monkeypatch.setattr(Loader, "load", counted)
    model = streamsgd.train(data, "y", **settings)
    assert sum(read) == ROWS_OF_DATA
    assert model.to_bytes() == without.to_bytes()


def test_what_does_not_fit_is_read_again(data: str, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {**QUICK, **NUMBERS, "rare": "targeted:c=10", "chunk_rows": 20_000, "polish": 3}
    whole = streamsgd.plan(data, "y", **settings)
    assert whole.recipe.cache is None
    assert whole.budget.cache == whole.distilled < ROWS_OF_DATA * whole.recipe.row_bytes
    few = streamsgd.plan(data, "y", **settings, cache="disk")
    assert (few.distilled, few.recipe.cache is None) == (0, False)
    fits = streamsgd.train(data, "y", **settings)
    monkeypatch.setattr(DistilledChunks, "__init__", lambda self, most: INIT(self, most // 8))  # some of the chunks
    assert streamsgd.train(data, "y", **settings).to_bytes() == fits.to_bytes()


def test_what_is_expected_to_fit_stays_in_memory(data: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Although twice as much, for a pilot that keeps more, does not."""
    settings = {**QUICK, **NUMBERS, "rare": "targeted:c=10", "chunk_rows": 20_000, "polish": 3}
    twice = streamsgd.plan(data, "y", **settings).distilled
    for room, wanted in ((2 * twice, twice), (0.6 * twice, int(0.6 * twice)), (0.4 * twice, 0)):
        monkeypatch.setattr("streamsgd.training.caching.cache_bytes", lambda _budget, room=room: int(room))
        plan = streamsgd.plan(data, "y", **settings)
        assert plan.distilled == wanted
        assert (plan.recipe.cache is None) == bool(wanted)


INIT = DistilledChunks.__init__


def test_auto_thins_what_is_large_and_rare_only(data: str, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {**QUICK, **NUMBERS, "chunk_rows": 30_000}
    with monkeypatch.context() as patch:
        patch.setattr("streamsgd.training.classes.rare.class_counts", None)  # which takes a pass
        assert streamsgd.plan(data, "y", **settings, rare="auto").thinner is None
    monkeypatch.setattr("streamsgd.training.classes.rare.LARGE", 100_000)
    large = streamsgd.plan(data, "y", **settings, rare="auto")
    assert large.known_thinner.spec == "targeted:c=20.0,weights=offset"
    assert streamsgd.plan(data, "y", **settings, rare="auto", penalty="l2:l2=0.1").thinner is None
    assert streamsgd.plan(data, "x0", executor="inline", rare="auto").thinner is None
    monkeypatch.setattr("streamsgd.training.classes.rare.RARE_SHARE", 0.005)
    assert streamsgd.plan(data, "y", **settings, rare="auto").thinner is None


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"rare": "targeted:c=0"}, "c=0 must be above 0"),
        ({"rare": "targeted:weights=some"}, "neither offset nor ipw"),
        ({"rare": "target"}, "did you mean 'targeted'"),
        ({"loss": "hinge"}, "--loss logistic"),
        ({"target": "word"}, "two classes, and 'word' has 'a', 'b', 'c'"),
        ({"target": "x0"}, "'x0' is a number"),
        ({"penalty": "l2:l2=0.1"}, "leave --penalty out"),
        ({"class_weight": ["balanced"]}, "leave --class-weight out"),
        ({"optimizer": "svrg"}, "svrg"),
        ({"noise": True}, "--noise"),
        ({"combine": "sync"}, "--combine average"),
        ({"shuffle": "iid"}, "--shuffle iid"),
        ({"keep_memory": True}, "--keep-memory"),
        ({"filter": "x0 > 2.5"}, "too few for a pilot.*leave --rare out"),
    ],
)
def test_what_cannot_be_thinned_is_refused_by_name(data: str, settings: dict[str, Any], said: str) -> None:
    given = {"target": "y", "executor": "inline", "rare": "targeted", **settings}
    with pytest.raises(SettingsError, match=said):
        streamsgd.train(data, **given)


def test_tables_that_come_one_by_one_are_not_thinned() -> None:
    with pytest.raises(SettingsError, match="table by table"):
        streamsgd.Trainer("y", rare="targeted")


@pytest.mark.parametrize(("rule", "alike"), [("targeted", False), ("auto", True)])
def test_thinning_says_nothing_of_columns(rule: str, *, alike: bool) -> None:
    """Crosses, bins and names are looked for as without it, or a run that thins is a worse model; what weighs rows is not."""
    plain, thinned = (make_settings({"target": "y", "rare": rare}) for rare in ("none", rule))
    assert tries_crosses(thinned) == tries_crosses(plain) is True
    assert tries_bins(thinned) == tries_bins(plain) is True
    assert (tries_ridges(thinned), is_free(thinned)) == ((True, True) if alike else (False, False))


# --- what is told


@pytest.mark.parametrize("rule", ["uniform", "local"])
def test_predictions_are_as_many_as_positives_also_of_few_rows(rule: str) -> None:
    """What the pilot predicts of all rows tells how far those that were drawn are off: the spread falls to a third."""
    x, y = draw(60_000, intercept=-5.5)
    truth, pilot = (expit(x @ slopes - 5.5) for slopes in (SLOPES, 0.9 * SLOPES))
    often = np.full(len(y), 0.05) if rule == "uniform" else np.where(y > 0, 1.0 - pilot, pilot)
    often = np.where(y > 0, 1.0, often) if rule == "uniform" else often
    plain, told = [], []
    for seed in range(40):
        rows = np.random.default_rng([seed, 9]).random(len(y)) < often
        each = 1.0 / often[rows]
        plain.append(each @ truth[rows])
        known = Known(y[rows] > 0, pilot[rows], y.sum(), pilot.sum())
        told.append(plain[-1] - missed(truth[rows], each, known)[0])
    assert np.std(told) < np.std(plain) / 3.0
    assert abs(np.mean(told) - truth.sum()) < 4.0 * np.std(told) / np.sqrt(40)


@pytest.mark.parametrize("gap", [1.0, 12.0])
def test_a_pilot_that_met_more_positives_by_chance_moves_nothing(gap: float) -> None:
    """Of classes that are nearly apart, and of those that are not: a model of all rows needs no other intercept.

    Where they are apart a few positives more moved it by several log-odds.
    """
    rng = np.random.default_rng(5)
    slope, (n, first) = 2.0 * gap, (200_000, 20_000)
    y = rng.random(n) < 0.01
    score = slope * (rng.normal(size=n) / gap + y - 0.5) + np.log(0.01 / 0.99) * 2.0 / gap
    if gap < 2.0:
        score = rng.normal(-4.5, 1.0, n)
        y = rng.random(n) < expit(score)
    p = expit(score)
    away = []
    for seed in range(40):
        order = np.random.default_rng([seed, 3]).permutation(n)
        pilot, rest = order[:first], order[first:]
        sums = np.zeros(N_SUMS)
        sums[[WEIGHT, POSITIVE, PILOT_WEIGHT, PILOT_POSITIVE]] = n - first, y[rest].sum(), first, y[pilot].sum()
        apart = float((p * p).sum() / p.sum())
        away.append(wanted_of(sums, apart) - (p[rest].sum() + (y.sum() - p.sum()) * (n - first) / n))
    by_chance = np.sqrt(y.mean() * first * (1.0 - first / n))
    told = np.std(away)
    assert abs(np.mean(away)) < 4.0 * told / np.sqrt(40) + 1e-9
    assert told < (0.2 if gap > 2.0 else 1.0) * by_chance


def test_the_intercept_is_moved_to_as_many_predictions_as_positives() -> None:
    scores = np.random.default_rng(0).normal(-5, 1, 1000)
    shift = shift_to(scores, np.full(1000, 3.0), 3.0 * expit(scores + 0.3).sum())
    assert shift == pytest.approx(0.3, abs=1e-12)


@pytest.mark.parametrize(("c", "ratio"), [(1.0, 2.0), (5.0, 1.2), (20.0, 1.05)])
def test_local_case_control_follows_its_law(c: float, ratio: float) -> None:
    """1 + 1/c where positives are rare (Fithian and Hastie 2014)."""
    scores = np.random.default_rng(0).normal(-9, 0.5, 10_000)
    found = variance_ratio(Rule(LOCAL, c, 1.0, weighs=False), scores, np.ones(10_000), np.ones(10_000), expit(scores))
    assert found == pytest.approx(ratio, rel=0.01)
