"""Laws of the cache of encoded rows: the bytes of a run without one, whatever is kept, where, and in what state."""

import logging
import resource
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import QUIET, finish_chunk_by_chunk
from distributed import Client, LocalCluster

import streamsgd
from streamsgd.compute.executors import Inline
from streamsgd.errors import SettingsError
from streamsgd.settings.make import make_settings
from streamsgd.show.plan import plan_text
from streamsgd.stream.cache_folder import KEPT_NAME
from streamsgd.stream.stream import Stream
from streamsgd.training.backends.readers import Readers
from streamsgd.training.caching import bytes_of, is_memory
from streamsgd.training.estimate import outlook
from streamsgd.training.events import Report
from streamsgd.training.job import IN_ORDER, Job
from streamsgd.training.prepare import prepare
from streamsgd.training.run import train_model

N, GROUP, CHUNK = 6000, 500, 1700

RUN: dict[str, Any] = {
    "target": "y",
    "weight": "w",
    "text": ("t",),
    "filter": "x0 > -1.5",
    "bad_rows": "skip",
    "validation": 0.1,
    "chunk_rows": CHUNK,
    "memory": "2GB",
    "executor": "inline",
    "epochs": 3,
}
"""Rows that are filtered, skipped, held out and weighted; numbers, categories and texts; row groups and slices of them."""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = np.random.default_rng(5)
    x = rng.normal(size=(N, 2)).astype(np.float32)
    y = (x @ [1.0, -1.0] + rng.normal(size=N) > 0).astype(np.float64)
    y[rng.random(N) < 0.01] = np.nan
    words = np.array(["ash", "birch", "cedar", "", "elm"])
    table = pa.table(
        {
            "x0": x[:, 0],
            "x1": pa.array(x[:, 1], mask=rng.random(N) < 0.05),
            "c": pa.array(rng.integers(0, 40, N).astype(str), mask=rng.random(N) < 0.02),
            "t": pa.array([" ".join(rng.choice(words, 3)) if k % 7 else None for k in range(N)]),
            "w": rng.uniform(0.5, 2.0, N),
            "y": y,
        }
    )
    folder = tmp_path_factory.mktemp("caching")
    pq.write_table(table.slice(0, N // 2), folder / "a.parquet", row_group_size=GROUP)
    pq.write_table(table.slice(N // 2), folder / "b.parquet", row_group_size=2 * CHUNK)  # streamed in slices
    return folder


def trained(data: Path, **settings: Any) -> tuple[bytes, Report]:
    """Return all of a model that does not tell the time, and the report."""
    model, report = train_model(str(data), make_settings({**RUN, **settings}))
    provenance = {key: value for key, value in model.provenance.items() if "second" not in key and key != "created"}
    said = repr((model.metrics, provenance["counts"], provenance["rows_learned"], model.encoding))
    return model.weights.tobytes() + said.encode(), report


@pytest.fixture(scope="module")
def plain(data: Path) -> bytes:
    found, report = trained(data, cache="none")
    assert report.spent.cached_rows == 0
    return found


CASES: dict[str, dict[str, Any]] = {
    "memory": {"cache": "memory"},
    "disk": {"cache": "disk"},
    "some on disk": {"cache": "disk", "cache_size": "150kB"},
    "kept": {"keep_cache": True},
    "threads": {"executor": "threads", "threads": 2},
}


@pytest.mark.parametrize("case", CASES)
def test_a_run_with_a_cache_is_the_run_without_one(data: Path, plain: bytes, tmp_path: Path, case: str) -> None:
    where = {} if case in ("memory", "threads") else {"cache_dir": str(tmp_path)}
    found, report = trained(data, **where, **CASES[case])
    assert found == plain
    all_later = N * (RUN["epochs"] - 1)
    assert report.spent.cached_rows < all_later if case == "some on disk" else report.spent.cached_rows == all_later
    assert report.spent.cached_rows
    assert [path.name for path in tmp_path.iterdir()] == ([KEPT_NAME] if case == "kept" else []), "nothing else is left"


def test_passes_in_both_orders_share_what_is_kept(data: Path) -> None:
    more = {"polish": 2, "penalty": "l2:l2=0.01", "validation": 0.0}
    (plain, _), (found, report) = trained(data, cache="none", **more), trained(data, cache="memory", **more)
    assert found == plain
    assert report.spent.cached_rows > 2 * N


@pytest.mark.parametrize("held", [{"validation": "x1 > 1"}, {"validation": 0.2, "validation_group": "c"}])
def test_rows_that_are_held_out_by_their_values_stay_so(data: Path, tmp_path: Path, held: dict[str, Any]) -> None:
    """Though later passes do not read the columns that say so."""
    plain, _ = trained(data, cache="none", **held)
    for where in ({"cache": "memory"}, {"cache": "disk", "cache_dir": str(tmp_path)}):
        found, report = trained(data, **where, **held)
        assert found == plain
        assert report.spent.cached_rows


def test_a_later_run_finds_what_was_kept_and_other_data_do_not(data: Path, plain: bytes, tmp_path: Path) -> None:
    kept = {"cache_dir": str(tmp_path), "keep_cache": True, "cache": "disk"}
    trained(data, **kept)
    found, report = trained(data, **kept, epochs=3)
    assert found == plain
    assert report.spent.cached_rows == 3 * N, "also those of the first pass"
    for other in ({"validation": 0.2}, {"filter": "x0 > -1"}, {"exclude": ("x1",)}):
        assert trained(data, **kept, epochs=1, **other)[1].spent.cached_rows == 0


def test_what_is_kept_of_other_data_makes_room(data: Path, tmp_path: Path) -> None:
    kept: dict[str, Any] = {"cache_dir": str(tmp_path), "keep_cache": True, "cache": "disk", "epochs": 1}

    def files() -> dict[str, int]:
        return {path.name: path.stat().st_size for path in (tmp_path / KEPT_NAME).iterdir()}

    trained(data, **kept)
    first = files()
    most = sum(first.values()) * 5 // 4
    trained(data, **kept, validation=0.2, cache_size=str(most))
    both = files()
    assert sum(both.values()) <= most
    assert 0 < len(both.keys() & first) < len(first), "some had to go"
    assert len(both.keys() - first) == len(first), "all of the new ones are there"


def _flip(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


DAMAGES: dict[str, Callable[[Path], Any]] = {
    "rows": lambda path: _flip(path, path.stat().st_size // 2),
    "beginning": lambda path: _flip(path, 0),
    "account": lambda path: _flip(path, path.stat().st_size - 40),
    "ending": lambda path: _flip(path, path.stat().st_size - 1),
    "short": lambda path: path.write_bytes(path.read_bytes()[:-1000]),
    "empty": lambda path: path.write_bytes(b""),
    "gone": lambda path: path.unlink(),
    "folder": lambda path: (path.unlink(), path.mkdir()),
    "of others": lambda path: path.write_bytes(max(path.parent.iterdir(), key=lambda one: one.stat().st_size).read_bytes()),
}


def test_whatever_is_damaged_or_gone_is_read_from_the_data(data: Path, plain: bytes, tmp_path: Path) -> None:
    kept = {"cache_dir": str(tmp_path), "keep_cache": True, "cache": "disk"}
    trained(data, **kept)
    files = sorted((tmp_path / KEPT_NAME).iterdir())
    assert len(files) >= len(DAMAGES)
    for damage, path in zip(DAMAGES.values(), files, strict=False):
        damage(path)
    found, report = trained(data, **kept)
    assert found == plain
    assert 0 < report.spent.cached_rows < 3 * N


def test_any_changed_byte_of_a_file_is_found_out(data: Path, tmp_path: Path) -> None:
    """Blocks are the same as those read from the data, whichever byte of a file is another."""
    job = job_of(data, cache="disk", cache_dir=str(tmp_path), keep_cache=True, filter=None, chunk_rows=GROUP)
    before = [block.tobytes() for block in blocks(job)]
    path = max((tmp_path / KEPT_NAME).glob("*-0-1-*"))
    content = path.read_bytes()
    for at in np.linspace(0, len(content) - 1, 24).astype(int).tolist():
        path.write_bytes(content)
        _flip(path, at)
        assert [block.tobytes() for block in blocks(job)] == before, f"byte {at}"


def job_of(data: Path, **settings: Any) -> Job:
    return prepare(str(data), make_settings({**RUN, "text": (), "exclude": ("t",), **settings}))


def blocks(job: Job) -> Iterator[np.ndarray]:
    """Yield copies of the rows of one epoch, tile after tile: what is dropped leaves gaps between pieces."""
    for filled in Stream(job.recipe, job.plan, Inline()).chunks(0, 0, 1):
        some = zip(filled.starts.tolist(), (filled.counts + filled.helds).tolist(), strict=True)
        yield np.concatenate([filled.block.rows.values[start : start + n] for start, n in some])


def test_a_disk_that_refuses_ends_the_caching_and_not_the_run(
    data: Path, plain: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    with caplog.at_level(logging.WARNING, "streamsgd"):
        assert trained(data, cache="disk", cache_dir=str(tmp_path / "file"))[0] == plain
    assert sum("cannot be written" in message for message in caplog.messages) == 1, "it is said once"
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))  # a row group does not fit, a slice of one less so
    try:
        found, report = trained(data, cache="disk", cache_dir=str(tmp_path))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert found == plain
    assert report.spent.cached_rows == 0
    assert [path.name for path in tmp_path.iterdir()] == ["file"], "no part of a file is left"


def test_memory_is_bounded_and_what_does_not_fit_is_read_again(data: Path) -> None:
    job = job_of(data, cache="memory")
    cache = job.recipe.cache
    assert cache is not None
    assert cache.spec.memory == job.budget.cache == bytes_of(job)
    assert job.budget.projected <= job.budget.limit
    first = [block.tobytes() for block in blocks(job)]
    whole = cache.nbytes
    assert whole <= bytes_of(job)
    held = sum(rows.values.nbytes + rows.tails.nbytes for rows in cache._rows.values())
    assert held <= whole <= held + len(cache._rows) * 20_000
    half = job_of(data, cache="memory").recipe
    assert half.cache is not None
    half.cache.bound(whole // 2)
    again = replace(job, recipe=half)
    for _ in range(2):
        assert [block.tobytes() for block in blocks(again)] == first
        assert 0 < half.cache.nbytes <= whole // 2
    cache.close()
    assert not cache._rows
    assert [block.tobytes() for block in blocks(job)] == first


def test_a_run_that_is_stopped_at_every_chunk_comes_to_the_same(data: Path, plain: bytes, tmp_path: Path) -> None:
    kept = {"cache_dir": str(tmp_path / "kept"), "keep_cache": True}
    places: Iterator[dict[str, Any]] = iter([{"cache": "none"}, kept, {"cache": "memory"}, *repeat(kept, 200)])
    (found, report), stops = finish_chunk_by_chunk(lambda **more: trained(data, **more), tmp_path / "saved", places)
    assert stops > 5
    assert report.spent.cached_rows
    assert found == plain


def test_workers_keep_what_they_read(data: Path) -> None:
    more = {"lanes": 2, "combine": "average", "validation": 0.0, "chunk_rows": GROUP}
    plain, _ = trained(data, cache="none", **more)
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, processes=False, memory_limit=0, **QUIET) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        model, report = train_model(str(data), make_settings({**RUN, **more, "cache": "memory"}), client=client)
    assert model.weights.tobytes() == plain[: model.weights.nbytes]
    assert report.spent.cached_rows > N


def test_lanes_go_to_who_has_their_rows(data: Path) -> None:
    job = job_of(data, chunk_rows=GROUP)
    places = [(IN_ORDER, number) for number in range(4)]
    readers = Readers(job)
    for place, worker in zip(places, "abab", strict=True):
        readers.note(place, worker)
    readers.note(places[0], "b")  # it was done twice; the first has it
    assert readers.best("a", places[1:], lambda place: place) == places[2]
    assert readers.best("c", places, lambda place: place) == places[0]
    readers.forget({"a"})
    assert readers.rows_of("a", places[0]) == 0 < readers.rows_of("b", places[1])
    without = Readers(job_of(data, chunk_rows=GROUP, cache="none"))
    without.note(places[1], "a")
    assert without.best("a", places, lambda place: place) == places[0]


def test_a_plan_says_what_is_kept_and_chunks_do_not_depend_on_it(data: Path) -> None:
    plans = {
        cache: streamsgd.plan(str(data), **{**RUN, "cache": cache, **more})
        for cache, more in (("none", {}), ("memory", {}), ("disk", {"cache_dir": "/data/kept", "cache_size": "7GB"}))
    }
    assert len({job.plan.chunk_rows for job in plans.values()}) == 1
    assert len({job.budget.needed for job in plans.values()}) == 1
    text = {cache: "\n".join(plan_text(outlook(job))) for cache, job in plans.items()}
    assert "encoded rows" in text["memory"]
    assert "100%" in text["memory"]
    assert "the rest in /data/kept, at most 7.00 GB" in text["disk"]
    assert "cache  " not in text["none"]
    assert streamsgd.plan(str(data), **{**RUN, "epochs": 1}).recipe.cache is None, "one pass needs none"


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"keep_cache": True}, "--cache-dir"),
        ({"keep_cache": True, "cache": "memory", "cache_dir": "x"}, "--cache memory"),
        ({"cache_size": "much"}, "is not a size"),
        ({"cache_dir": "memory://kept"}, "no folder of this machine"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(data: Path, given: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        job_of(data, **given)


def test_memory_that_looks_like_a_disk_is_none(tmp_path: Path) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text(f"a / ext4 rw\nb {tmp_path.parent} tmpfs rw\nc {tmp_path} xfs rw\n")
    assert not is_memory(tmp_path, mounts)
    assert is_memory(tmp_path.parent, mounts)
    assert not is_memory(Path("/"), mounts)
    assert is_memory(tmp_path, tmp_path / "nothing")
