"""The documentation: it builds without a warning, and its tutorial, notebook and recipes are run as they stand."""

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import streamsgd
from streamsgd.cli.main import main

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
MKDOCS = (sys.executable, "-m", "mkdocs", "build", "--strict")


def blocks(page: str, language: str) -> list[str]:
    """Return the fenced blocks of a page that are of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", (DOCS / page).read_text(), re.MULTILINE | re.DOTALL)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of one's own, in which the repository's data is."""
    (tmp_path / "datasets").symlink_to(ROOT / "datasets")
    monkeypatch.chdir(tmp_path)
    return tmp_path


# --- the site


def test_the_site_builds_without_a_warning_and_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs")
    command = [*MKDOCS, "--config-file", "scripts/mkdocs.yml", "--site-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    pages = list(tmp_path.rglob("*.html"))
    assert {path.stem for path in DOCS.glob("*.md")} <= {path.stem for path in pages}
    for page in pages:
        text = page.read_text()
        loaded = re.findall(r'(?:src|<link[^>]*href)="([^"]*)"', text)
        assert not [url for url in loaded if url.startswith(("http:", "https:", "//"))], page


def test_every_page_is_in_the_navigation() -> None:
    """Also where mkdocs is not installed."""
    named = set(re.findall(r": ([\w.-]+\.md)$", (ROOT / "scripts" / "mkdocs.yml").read_text(), re.MULTILINE))
    assert {path.name for path in DOCS.glob("*.md")} | {"CONTRIBUTING.md", "CHANGELOG.md"} == named


# --- the tutorial, and the notebook


def steps(page: str) -> Iterator[list[str]]:
    """Yield the command lines of a page, without the name of the program."""
    for line in re.findall(r"^    \$ streamsgd (.*)$", (DOCS / page).read_text(), re.MULTILINE):
        yield shlex.split(line)


@pytest.mark.slow
def test_the_tutorial_runs_and_says_what_it_shows(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    last: dict[str, Any] = {}
    for words in steps("tutorial.md"):
        code = main(words)
        shown = capsys.readouterr()
        assert code in ((0, 75) if "--time-limit" in words else (0,)), (words, shown.err)
        if words[0] in ("train", "compare", "evaluate"):
            last[f"{words[0]} {words[words.index('-o') + 1] if '-o' in words else ''}".strip()] = json.loads(
                shown.out.splitlines()[-1]
            )
    text = (DOCS / "tutorial.md").read_text()
    held = last["train late.sgd"]["metrics"]["held_out"]
    assert f"{held['rows']:,} flights" in text
    assert f"log loss {held['log_loss']:.3f}, where the best constant has {held['best_constant_log_loss']:.3f}" in text
    assert f"AUC of {held['auc']:.2f}" in text
    (other,) = last["compare"]["also"].values()
    apart = other["differences"]["log_loss"]
    assert f"It is {apart['difference']:.4f} of log loss in favour of the\nmodel without airports" in text
    assert apart["interval"][0] > 5.0 * apart["standard_error"]
    assert len(last["evaluate"]["metrics"]["by"]) == 7
    assert pq.read_table("scores").num_rows == 499_999
    names: dict[str, Any] = {}
    exec(blocks("tutorial.md", "python")[0], names)
    flights = pq.read_table("datasets/demo/flights-2001-05_06.parquet").slice(0, 100)
    told = streamsgd.load("late.sgd").predict_proba(flights)
    np.testing.assert_allclose(names["served"].predict_proba(flights.drop(["late"]).to_pylist()), told, atol=1e-6)
    assert (place / "late.html").stat().st_size < 1_000_000


def test_the_notebook_runs(place: Path) -> None:
    names: dict[str, Any] = {}
    for block in blocks("notebook.md", "python"):
        exec(block, names)
    assert isinstance(names["model"], streamsgd.Model)
    assert streamsgd.load(place / "june.sgd").provenance["rows_learned"] >= 20_000


# --- recipes of schedulers


@pytest.fixture
def clicks(place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three days of clicks, rows to score, and programs on the path."""
    rng = np.random.default_rng(0)
    for name in ("clicks/day=2026-01-01", "clicks/day=2026-01-02", "clicks/day=2026-01-03", "new"):
        x = rng.normal(size=2000)
        (place / name).mkdir(parents=True)
        table = pa.table(
            {"x": x, "site": rng.choice(["a", "b", "c"], 2000), "clicked": (x + rng.normal(size=2000) > 1).astype(int)}
        )
        pq.write_table(table.drop(["clicked"]) if name == "new" else table, place / name / "part.parquet")
    programs = {
        "streamsgd": f'exec {shlex.quote(sys.executable)} -m streamsgd "$@"',
        "srun": 'while [ "${1#--}" != "$1" ]; do shift; done; exec "$@"',  # this machine has no Slurm: it runs the command
        "scontrol": 'echo "$@" >> scontrol.log',
    }
    (place / "bin").mkdir()
    for name, script in programs.items():
        (place / "bin" / name).write_text(f"#!/bin/bash\n{script}\n")
        (place / "bin" / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{place / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    for name, value in {"MEMORY": "2GB", "EXECUTOR": "inline", "EPOCHS": "1", "OPTIMIZER": "normalized"}.items():
        monkeypatch.setenv(f"STREAMSGD_{name}", value)
    return place


def bash(script: str, *words: str, **environ: str) -> subprocess.CompletedProcess[str]:
    command = ["bash", "-c", script, "recipe", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **environ}, timeout=120)


def test_the_nightly_script_goes_from_day_to_day_and_may_run_twice(clicks: Path) -> None:
    script = blocks("schedulers.md", "bash")[0]
    for day in ("2026-01-01", "2026-01-02", "2026-01-02"):
        done = bash(script, day)
        assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[0])["status"] == "already done"
    second = streamsgd.load(clicks / "models" / "2026-01-02.sgd")
    assert len(second.provenance["lineage"]) == 1
    assert pq.read_table(clicks / "scores").num_rows == 2000


def test_the_slurm_script_queues_itself_again_and_then_ends(clicks: Path) -> None:
    script = blocks("schedulers.md", "bash")[1]
    given = {"SLURM_JOB_ID": "17", "MEMORY": "2GB"}
    stopped = bash(script, **given, STREAMSGD_TIME_LIMIT="1e-9", STREAMSGD_CHUNK_ROWS="500")
    assert stopped.returncode == 0, stopped.stderr
    assert (clicks / "scontrol.log").read_text() == "requeue 17\n"
    assert not (clicks / "clicks.sgd").exists()
    done = bash(script, **given, STREAMSGD_CHUNK_ROWS="500")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["status"] == "done"
    assert (clicks / "scontrol.log").read_text() == "requeue 17\n"


@contextmanager
def standing_in(**modules: dict[str, Any]) -> Iterator[None]:
    """Let the names of a library that is not here be what is given."""
    names = {name.replace("__", "."): values for name, values in modules.items()}
    for name, values in names.items():
        module = ModuleType(name)
        vars(module).update(values)
        sys.modules[name] = module
    try:
        yield
    finally:
        for name in names:
            del sys.modules[name]


def test_the_commands_of_airflow_learn_skip_and_score(clicks: Path) -> None:
    """Airflow is not here: what its operators are given is rendered as it does, and run."""
    jinja2 = pytest.importorskip("jinja2")
    tasks: dict[str, Any] = {}

    class Operator(SimpleNamespace):
        def __init__(self, **given: Any) -> None:
            super().__init__(**given)
            tasks[given["task_id"]] = self

        def __rshift__(self, other: Any) -> Any:
            return other

    @contextmanager
    def dag(*_names: str, **_given: Any) -> Iterator[None]:
        yield

    stands = {"airflow__providers__standard__operators__bash": {"BashOperator": Operator}, "airflow__sdk": {"DAG": dag}}
    with standing_in(**stands):
        exec(blocks("schedulers.md", "python")[0], {})
    macros = SimpleNamespace(ds_add=lambda day, days: str(np.datetime64(day) + days))

    def run(task: str, day: str) -> int:
        return bash(jinja2.Template(tasks[task].bash_command).render(ds=day, macros=macros)).returncode

    (clicks / "models").mkdir()
    assert [run("learn", "2026-01-01"), run("learn", "2026-01-02")] == [0, 0]
    assert run("learn", "2026-01-02") == tasks["learn"].skip_on_exit_code
    assert run("score", "2026-01-02") == 0
    assert len(streamsgd.load(clicks / "models" / "2026-01-02.sgd").provenance["lineage"]) == 1


def test_the_asset_of_dagster_learns_a_day_from_the_last_one(clicks: Path) -> None:
    """Dagster is not here: its decorators let the function be."""
    given = {
        "DailyPartitionsDefinition": SimpleNamespace,
        "RetryPolicy": SimpleNamespace,
        "AssetExecutionContext": SimpleNamespace,
        "MaterializeResult": SimpleNamespace,
        "asset": lambda **_given: lambda function: function,
    }
    names: dict[str, Any] = {}
    with standing_in(dagster=given):
        exec(blocks("schedulers.md", "python")[1], names)
    (clicks / "models").mkdir()
    for day in ("2026-01-01", "2026-01-02"):
        found = names["click_model"](SimpleNamespace(partition_key=day))
    assert 0.0 < found.metadata["progressive_loss"] < 0.7
    assert len(streamsgd.load(clicks / "models" / "2026-01-02.sgd").provenance["lineage"]) == 1
