"""Laws of backends, tasks and phases: any backend runs any task with the bits of the plain one; any phase can be stopped."""

from collections.abc import Callable, Sequence
from copy import copy
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import QUIET
from distributed import Client, LocalCluster

from streamsgd.compute.executors import Threads
from streamsgd.planning.stragglers import parse_straggler
from streamsgd.settings.make import make_settings
from streamsgd.testing import check_backend, check_phase, check_task
from streamsgd.training.backends.dask import DaskBackend
from streamsgd.training.backends.threads import ThreadsBackend
from streamsgd.training.job import IN_ORDER, Job
from streamsgd.training.learner import Learner
from streamsgd.training.phases import PHASES as ALL
from streamsgd.training.phases import wanted
from streamsgd.training.prepare import prepare
from streamsgd.training.tasks.base import Round
from streamsgd.training.tasks.bounds import AddBounds
from streamsgd.training.tasks.gradient import AddGradient
from streamsgd.training.tasks.learn import Learn, LearnApart
from streamsgd.training.tasks.noise import MeasureNoise
from streamsgd.training.tasks.objective import AddObjective, ObjectiveRequest
from streamsgd.training.tasks.sandwich import AddSandwich
from streamsgd.training.tasks.with_noise import WithNoise

N, CHUNK = 3000, 250


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = np.random.default_rng(8)
    x = rng.normal(size=(N, 3))
    y = x @ [1.0, -1.0, 0.5] + rng.normal(size=N) > 0
    table = pa.table({**{f"x{j}": x[:, j] for j in range(3)}, "y": y})
    path = tmp_path_factory.mktemp("backends") / "data.parquet"
    pq.write_table(table, path, row_group_size=100)
    return path


def job_of(data: Path, **settings: Any) -> Job:
    usual = {"target": "y", "chunk_rows": CHUNK, "memory": "2GB", "epochs": 2, "optimizer": "adam", "executor": "inline"}
    return prepare(str(data), make_settings({**usual, **settings}))


def tasks_of(job: Job) -> list[Any]:
    weights = np.linspace(-0.5, 0.5, job.n_weights)
    learner = Learner(job)
    return [
        LearnApart(learner),
        AddGradient(learner, 0, 64),
        AddObjective(ObjectiveRequest(weights, True, False, np.arange(job.n_weights, dtype=np.int32), 1)),
        AddBounds(weights, bounded=True),
        AddSandwich(weights),
        MeasureNoise(weights),
        WithNoise(LearnApart(learner), weights, np.linspace(0.5, 1.0, job.n_weights)),
    ]


def rounds_of(job: Job) -> Callable[[], Sequence[Round]]:
    """Return what makes rounds of every task: in both orders, of one chunk and of many, kept and not."""

    def rounds() -> list[Round]:
        *apart, objective, bounds, sandwich, noise, noisy = tasks_of(job)
        found = [Round(task, 1, 2, 4, passes=1, together=True) for task in (*apart, noisy)]
        found += [Round(task, 0, 0, 10) for task in (bounds, objective)]
        found += [Round(task, IN_ORDER, k, 4, 2, again=12) for task in (objective, sandwich, noise) for k in (0, 4, 8, 0)]
        # Copies, which bring the state that they come to; in place they would bring nothing to compare.
        return [*found, *(Round(copy(Learn(Learner(job))), 0, k, 1, 2) for k in (0, 1, 5))]

    return rounds


@pytest.mark.parametrize("lanes", [1, 4])
@pytest.mark.parametrize("validation", [0.0, 0.2])
def test_threads_give_the_bits_of_the_plain_backend(data: Path, lanes: int, validation: float) -> None:
    job = job_of(data, lanes=lanes, validation=validation)
    backend = ThreadsBackend(job, Threads(2))
    rounds = rounds_of(job)
    if lanes > 1:
        whole = rounds
        rounds = lambda: [one for one in whole() if not isinstance(one.task, Learn)]  # noqa: E731
    check_backend(job, backend, rounds)
    backend.close()


def test_workers_give_the_bits_of_the_plain_backend(data: Path) -> None:
    """In threads of this process too, where what is sent could be the driver's own."""
    job = job_of(data)
    settings = {**QUIET, "memory_limit": 0}
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, processes=False, **settings) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        backend = DaskBackend(job, client, parse_straggler("again"))
        check_backend(job, backend, rounds_of(job))
        backend.close()


def test_workers_thin_with_the_bits_of_the_plain_backend(data: Path) -> None:
    """The pilot's learner travels, then what it says; lanes thin their chunks apart."""
    job = job_of(data, rare="targeted:c=0.5", lanes=2, validation=0.1)
    settings = {**QUIET, "memory_limit": 0}
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, processes=False, **settings) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        backend = DaskBackend(job, client, parse_straggler("again"))
        check_phase(job, "rare", backend)
        backend.close()


def test_every_task_pickles_and_brings_the_same_from_a_copy(data: Path) -> None:
    job = job_of(data)
    for task in tasks_of(job):
        check_task(job, task)


PHASES = {
    "epochs": {"optimizer": "normalized"},
    "epochs, averaged": {"average": "auto", "validation": 0.1},
    "rare": {"rare": "targeted:c=0.5", "validation": 0.1},
    "rare, by weights": {"rare": "uniform:c=0.5,weights=ipw", "optimizer": "normalized"},
    "noise": {"noise": True, "validation": 0.1},
    "noise, row by row": {"noise": True, "optimizer": "normalized"},
    "noise, of a machine": {"noise": True, "model": "fm:k=2,against=none"},
    "svrg": {"optimizer": "svrg", "epochs": 6, "penalty": "l2:l2=0.01"},
    "polish": {"polish": 4, "validation": 0.1},
    "finish": {"optimizer": "auto"},
    "shrink": {"optimizer": "auto", "transform": ["bins"]},
    "standard_errors": {"polish": 3, "standard_errors": True, "penalty": "l2:l2=0.01"},
    "posterior": {"method": "sgld-cv:steps=60,batch=4,burn_in=8,thin=2", "prior": "normal:sd=1", "validation": 0.1},
    "calibration": {"validation": 0.3, "conformal": True},
    "recalibration": {"validation": 0.3, "recalibrate": "isotonic"},
    "residual_scale": {"target": "x0", "validation": 0.3, "conformal": True},
    "posterior, without chains": {"method": "laplace", "polish": 9},
}


def test_workers_draw_the_same_from_a_posterior(data: Path) -> None:
    job = job_of(data, **PHASES["posterior"])
    settings = {**QUIET, "memory_limit": 0}
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, processes=False, **settings) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        backend = DaskBackend(job, client, parse_straggler("again"))
        check_phase(job, "posterior", backend)
        backend.close()


@pytest.mark.parametrize("case", PHASES)
def test_every_phase_is_restored_at_any_round_and_runs_anywhere(data: Path, case: str) -> None:
    job = job_of(data, **PHASES[case])
    backend = ThreadsBackend(job, Threads(2))
    check_phase(job, case.partition(",")[0], backend)
    backend.close()


@pytest.mark.parametrize("model", ["linear", "mlp:hidden=3", "fm:k=2,against=none"])
def test_the_pass_that_measures_noise_is_restored_at_any_round_and_runs_anywhere(data: Path, model: str) -> None:
    job = job_of(data, phases=["streamsgd.training.phases.noise:MEASURED_NOISE"], validation=0.1, model=model)
    backend = ThreadsBackend(job, Threads(2))
    check_phase(job, "measured_noise", backend)
    backend.close()


def test_no_phase_of_ours_goes_unchecked(data: Path) -> None:
    jobs = [job_of(data, **settings) for settings in PHASES.values()]
    found = {kind.name for job in jobs for kind in wanted(job.settings, job.parts)}
    assert found == {kind.name for kind in ALL} == {case.partition(",")[0] for case in PHASES}
