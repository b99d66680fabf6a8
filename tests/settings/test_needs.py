"""A setting that has an effect only beside another one is refused, or said, where that one is missing."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

import streamsgd
from streamsgd.cli.commands import cli
from streamsgd.errors import SettingsError
from streamsgd.settings.fields import Settings
from streamsgd.settings.make import make_settings
from streamsgd.settings.needs import NEEDS, OF_CHECKPOINTS

N = 50
X = np.sin(np.arange(N))
TABLE = pa.table({"x": X, "y": 2 * X})
PLAIN: dict[str, Any] = {"executor": "inline", "memory": "1GB", "epochs": 1}

REFUSED: dict[str, tuple[Any, dict[str, Any], str]] = {
    "valid_filter": ("nonsense > 0", {"valid": "valid/"}, "--valid-filter 'nonsense > 0' chooses rows of --valid"),
    "validation_group": ("user", {"validation": 0.1}, "--validation-group 'user' keeps values together"),
    "min_improvement": (0.01, {"patience": 2}, "--min-improvement 0.01 is what --patience takes"),
    "keep_weights": (True, {"class_weight": ["balanced"]}, "--keep-weights leaves --class-weight"),
    "prior": ("normal:sd=1", {"method": "sgld-cv"}, "--prior 'normal:sd=1' is for sampling"),
    "temperature": (2.0, {"method": "sgld-cv"}, "--temperature 2.0 is for sampling"),
    "chains": (2, {"method": "sgld-cv"}, "--chains 2 is for sampling"),
    "draws": (100, {"method": "sgld-cv"}, "--draws 100 is for sampling"),
    "cache_size": ("1GB", {"cache": "disk"}, "--cache-size '1GB' bounds encoded rows on disk"),
    "cache_dir": ("rows/", {"cache": "disk", "shuffle": "corgi"}, "--cache-dir 'rows/' is for rows that are kept on disk"),
}
"""Settings that are refused alone: a value, what is passed with it, and how it is refused."""

WITHOUT: dict[str, dict[str, Any]] = {
    "cache_size": {"cache": "none"},
    "cache_dir": {"cache": "memory", "shuffle": "corgi"},
    "valid_filter": {"validation": 0.3},
    "validation_group": {"validation": "x > 0"},
}
"""What else is passed where they are refused."""

SAID = {
    "patience": (3, "--patience 3 had no held-out rows to judge by"),
    "validate_every": (10, "--validate-every 10 had no held-out rows to judge by"),
    "straggler": ("wait", "--straggler wait is for several lanes, and there is one"),
    "combine": ("sync", "--combine sync is for several lanes, and there is one"),
}
"""Those of which only the run knows: they are said."""

REFUSED_LATER = {
    *OF_CHECKPOINTS,
    *("recalibrate", "conformal", "standard_errors", "forget", "keep_cache", "average", "rate_scaling", "class_weight"),
}
"""Those that are refused when a run begins, and have tests of their own beside what they belong to."""

ALONE = {
    *("target", "weight", "features", "exclude", "id", "filter", "task", "classes", "model", "loss", "rare", "penalty"),
    *("optimizer", "learning_rate", "schedule", "batch_size", "clip_norm", "clip_value", "epochs", "steps", "polish", "noise"),
    *("method", "categorical", "values", "text", "ngrams", "column_kind", "time_parts", "cross", "bits", "scale", "transform"),
    *("missing", "sentinels", "missing_columns", "infinite", "bad_rows", "unreadable", "precision", "seed", "shuffle", "cache"),
    *("memory", "chunk_rows", "validation", "valid", "checkpoint", "resume", "start", "keep_memory", "time_limit", "strict"),
    *("lanes", "workers", "scheduler", "io_timeout", "phases", "threads", "cpu", "executor"),
}
"""Those that mean something by themselves."""


def test_of_every_setting_it_is_known_what_it_needs() -> None:
    kinds = [set(REFUSED), set(SAID), REFUSED_LATER, ALONE]
    assert set().union(*kinds) == set(Settings.__struct_fields__)
    assert sum(map(len, kinds)) == len(Settings.__struct_fields__)
    assert {need.setting for need in NEEDS} == set(REFUSED)


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_effect_alone_is_refused_alone_and_taken_beside_what_it_needs(name: str) -> None:
    value, beside, message = REFUSED[name]
    with pytest.raises(SettingsError) as refused:
        make_settings({"target": "y", name: value, **WITHOUT.get(name, {})})
    assert str(refused.value).startswith(message)
    assert getattr(make_settings({"target": "y", name: value, **beside}), name) == value


@pytest.mark.parametrize("name", SAID)
def test_what_had_no_effect_in_a_run_is_said(name: str, caplog: pytest.LogCaptureFixture) -> None:
    value, message = SAID[name]
    with caplog.at_level(logging.WARNING, "streamsgd"):
        streamsgd.train(TABLE, "y", **{name: value}, **PLAIN)
    assert message in caplog.text


@pytest.mark.parametrize("name", OF_CHECKPOINTS)
def test_settings_of_checkpoints_need_a_place_for_them(name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    said = f"--{name.replace('_', '-')} 3 is about checkpoints, and none are made"
    streamsgd.train(TABLE, "y", **{name: 3}, **PLAIN)
    assert said in caplog.text
    caplog.clear()
    streamsgd.train(TABLE, "y", checkpoint=str(tmp_path / "c"), **{name: 3}, **PLAIN)
    assert said not in caplog.text


@pytest.mark.parametrize(
    ("command", "options", "message"),
    [
        ("train", ["--skip-code", "3"], "--skip-code 3 is the exit code of --skip-if-done"),
        ("train", ["--dry-run", "--folds", "3"], "--dry-run learns nothing, so --folds"),
        ("train", ["--dry-run", "--report", "r.html"], "--dry-run learns nothing, so --report"),
        ("train", ["--valid-filter", "nonsense > 0"], "--valid-filter 'nonsense > 0' chooses rows of --valid"),
        ("tune", ["--random", "3", "--restarts", "2", "--model", "mlp"], "--random 3 draws from the values of --grid"),
    ],
)
def test_options_of_commands_too(command: str, options: list[str], message: str, tmp_path: Path) -> None:
    pq.write_table(TABLE, tmp_path / "t.parquet")
    out = str(tmp_path / "m.sgd")
    done = CliRunner().invoke(cli, [command, str(tmp_path / "t.parquet"), "--target", "y", "-o", out, *options])
    assert done.exit_code != 0
    assert message in str(done.exception) + done.output
    assert not (tmp_path / "m.sgd").exists()
