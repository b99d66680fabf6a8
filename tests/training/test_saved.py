"""Laws of checkpoints that are whole but not ours: refused by file and field, and no code of theirs is run."""

import copy
import importlib.util
import json
import os
import shutil
import sys
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import EXACT, as_columns

from streamsgd.errors import ModelError, Stopped
from streamsgd.model import store
from streamsgd.settings.make import make_settings
from streamsgd.training.run import train_model


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes]:
    """Return data, and the bytes of a checkpoint of a run on it that was stopped while it polished."""
    folder = tmp_path_factory.mktemp("made")
    x = np.random.default_rng(0).normal(size=(600, 3))
    pq.write_table(pa.table({**as_columns(x), "y": x @ [1.0, 2.0, 3.0]}), folder / "d.parquet", row_group_size=100)
    for _ in range(10):
        with pytest.raises(Stopped):
            go_on(folder / "d.parquet", folder / "saved", time_limit=1e-9)
        data = max((folder / "saved").glob("*.ckpt")).read_bytes()
        if "polish" in store.unpack("checkpoint", data, "c")[0]["phases"]:
            break
    return folder / "d.parquet", data


def go_on(data: Path, saved: Path, **more: Any) -> bytes:
    settings = {**EXACT, "epochs": 1, "polish": 3, "chunk_rows": 200, "validation": 0.2, "checkpoint": str(saved), "seed": 1}
    return train_model(data, make_settings({**settings, **more}))[0].weights.tobytes()


@pytest.fixture
def stopped(made: tuple[Path, bytes], tmp_path: Path) -> Any:
    """Return the run, as a function that goes on with it, the path of its checkpoint, and what that holds."""
    path = tmp_path / "saved" / "epoch000001-chunk000000000.ckpt"
    path.parent.mkdir()
    header, arrays = store.unpack("checkpoint", made[1], "c")
    assert {"epochs", "polish"} <= header["phases"].keys()
    return partial(go_on, made[0], path.parent), path, header, arrays


def rewrite(path: Path, header: Any, arrays: dict[str, np.ndarray]) -> None:
    path.write_bytes(store.pack("checkpoint", header, arrays))


def test_a_checkpoint_runs_no_code(stopped: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, path, header, arrays = stopped
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Adam: pass\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    rewrite(path, {**header, "optimizer": "evil:Adam"}, arrays)
    with pytest.raises(ModelError, match=r"saved: optimizer is 'evil:Adam', neither one of streamsgd's nor --optimizer"):
        run()
    assert not (tmp_path / "ran").exists()


GONE = object()

FIELDS: list[tuple[str, Any]] = [
    ("cursor", [10**9, 0]),
    ("cursor", [0, 10**9]),
    ("cursor", [0.5, 0]),
    ("chunk_rows", 0),
    ("encoding.columns.0.scale", 0.0),
    ("target.task", "none"),
    ("phases.epochs.cursor", [-1, 0]),
    ("phases.epochs.lost", "many"),
    ("phases.polish.passes", 1.5),
    ("phases.polish.descent.pairs", 10**6),
    ("phases.polish.stopped", 3),
    ("totals.counts", {"held": "x"}),
    ("validation.misses", None),
    ("poisoned", ["x"]),
    ("phases", []),
    ("fingerprint", GONE),
    ("fingerprint", 7),
    ("target.name", "x"),
    ("validation.best_loss", GONE),
    ("validation.best_loss", []),
    ("validation.history", "0.5"),
    ("validation.last.loss", {}),
    ("phases.epochs.race", {"rate": [1, 2]}),
    ("phases.polish.losses", ["x"]),
    ("phases.polish.best_constant", "x"),
    ("phases.polish.anew", 2),
    ("rare", {"spec": "uniform:c=2", "negatives": 9.0, "positives": 1e300}),
    ("rare", {"spec": "none", "negatives": 9.0, "positives": 9.0}),
]


@pytest.mark.parametrize(("field", "value"), FIELDS)
def test_a_field_that_does_not_fit_is_refused(stopped: Any, field: str, value: Any) -> None:
    run, path, header, arrays = stopped
    header = copy.deepcopy(header)
    at, *keys = header, *field.split(".")
    for key in keys[:-1]:
        at = at[int(key) if isinstance(at, list) else key]
    at[keys[-1]] = value
    if value is GONE:
        del at[keys[-1]]
    rewrite(path, header, arrays)
    with pytest.raises(ModelError, match=r"saved: .*restore it from a copy"):
        run()


def test_mutants_of_checkpoints_are_refused_by_name_or_go_on() -> None:
    """The same at full size, 5,000 of all kinds of runs, is `scripts/fuzz_checkpoints.py`."""
    script = Path(__file__).resolve().parents[2] / "scripts" / "fuzz_checkpoints.py"
    spec = importlib.util.spec_from_file_location("fuzz_checkpoints", script)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    ends, bugs = module.run(0, 40, ("race",))
    assert not bugs
    assert ends["refused"] > 20


def test_arrays_that_do_not_fit_are_refused(stopped: Any) -> None:
    run, path, header, arrays = stopped
    for key, array in arrays.items():
        changed = [array[:-1] if array.ndim and len(array) else np.zeros(3), array.astype(np.float32), np.zeros((2, 2, 2))]
        for wrong in changed:
            if (wrong.dtype, wrong.shape) == (array.dtype, array.shape):
                continue
            rewrite(path, header, {**arrays, key: np.ascontiguousarray(wrong)})
            with pytest.raises(ModelError):
                run()
        rewrite(path, header, {other: found for other, found in arrays.items() if other != key})
        with pytest.raises(ModelError, match=r"saved: "):
            run()
    rewrite(path, header, {**arrays, "more": np.zeros(1)})
    with pytest.raises(ModelError, match=r"saved: array 'more' is none that belongs there"):
        run()


def test_the_checkpoint_itself_goes_on_to_the_same_bits(stopped: Any, tmp_path: Path) -> None:
    run, path, header, arrays = stopped
    rewrite(path, header, arrays)
    assert run() == run(checkpoint=str(tmp_path / "other"))


# --- law: a checkpoint of an older version is refused in one sentence, and the run can start anew

OLD = Path(__file__).parents[1] / "data" / "checkpoints" / "old"


def test_a_checkpoint_of_an_older_version_is_refused_in_one_sentence(tmp_path: Path) -> None:
    copied = Path(shutil.copytree(OLD, tmp_path / "old"))
    settings = {**json.loads((copied / "settings.json").read_text()), "checkpoint": str(copied / "checkpoints")}
    with pytest.raises(
        ModelError, match=r"ckpt was saved by an older version of streamsgd, .*: pass --resume never"
    ) as refused:
        train_model(copied / "data", make_settings(settings))
    assert "\n" not in str(refused.value)
    model, report = train_model(copied / "data", make_settings({**settings, "resume": "never"}))
    assert report.rows == model.provenance["rows_learned"] > 0


# --- law: data that was written again since the checkpoint is named, whatever its size


def test_a_file_that_was_written_since_the_checkpoint_is_named(
    made: tuple[Path, bytes], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data, saved = Path(shutil.copy2(made[0], tmp_path / "d.parquet")), tmp_path / "saved"
    with pytest.raises(Stopped):
        go_on(data, saved, time_limit=1e-9)
    shutil.copy2(data, tmp_path / "other")
    with suppress(Stopped):
        go_on(data, saved, time_limit=1e-9)
    assert "was written since" not in caplog.text
    before = data.stat().st_mtime_ns
    data.write_bytes((tmp_path / "other").read_bytes())
    os.utime(data, ns=(before, before + 1))
    go_on(data, saved)
    assert f"d.parquet was written since the checkpoint in {saved} was saved, though its size" in caplog.text
