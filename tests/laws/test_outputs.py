"""Laws of all commands that write: nothing that is read is replaced, and what cannot be written is refused before any work."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from streamsgd.cli.main import main
from streamsgd.compute.local_files import only_writer
from streamsgd.errors import ModelError

RUN = ["--memory", "1GB", "--epochs", "1", "--quiet", "--chunk-rows", "500", "--executor", "inline"]
WRITERS: dict[str, Callable[[str], list[str]]] = {
    "train": lambda out: ["train", "d", "--target", "y", "-o", out, *RUN],
    "train, beside held-out files": lambda out: ["train", "e", "--target", "y", "--valid", "d", "-o", out, *RUN],
    "train --folds": lambda out: ["train", "d", "--target", "y", "--folds", "2", "-o", out, *RUN],
    "train --report": lambda out: ["train", "d", "--target", "y", "-o", "new.sgd", "--report", out, *RUN],
    "tune": lambda out: ["tune", "d", "--target", "y", "--grid", "penalty=l2", "-o", out, *RUN],
    "tune --table": lambda out: [
        "tune",
        "d",
        "--target",
        "y",
        "--grid",
        "penalty=l2",
        "-o",
        "new.sgd",
        "--table",
        out,
        *RUN,
    ],
    "calibrate": lambda out: ["calibrate", "m.sgd", "d", "-o", out, "--quiet"],
    "report": lambda out: ["report", "m.sgd", "d", "-o", out, "--quiet"],
    "predict": lambda out: ["predict", "m.sgd", "d/0.parquet", "-o", out, "--quiet"],
    "explain": lambda out: ["explain", "m.sgd", "d/0.parquet", "-o", out, "--quiet"],
    "shuffle": lambda out: ["shuffle", "d", out, "--quiet"],
}
"""By what is done, the words of a command that writes to a place."""
MODELS = {"export": ["export", "m.sgd", "--to", "json", "-o"], "report": ["report", "m.sgd", "-o"]}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("model")
    pq.write_table(rows(0), folder / "d.parquet")
    assert main(["train", str(folder / "d.parquet"), "--target", "y", "-o", str(folder / "m.sgd"), *RUN]) == 0
    return (folder / "m.sgd").read_bytes()


def rows(seed: int) -> pa.Table:
    x = np.random.default_rng(seed).normal(size=1200)
    return pa.table({"x": x, "y": 2.0 * x})


@pytest.fixture
def here(model: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for folder, seed in (("d", 1), ("e", 2)):
        (tmp_path / folder).mkdir()
        for k in range(2):
            pq.write_table(rows(10 * seed + k), tmp_path / folder / f"{k}.parquet", row_group_size=300)
    (tmp_path / "m.sgd").write_bytes(model)
    return tmp_path


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("how", ["as it is", "by a link"])
@pytest.mark.parametrize("case", WRITERS)
def test_nothing_that_is_read_is_replaced(here: Path, case: str, how: str, capsys: pytest.CaptureFixture[str]) -> None:
    """By a link to the folder as well, which is another path of the same file."""
    (here / "link").symlink_to(here / "d")
    out = {"as it is": "d/0.parquet", "by a link": f"{here}/link/0.parquet"}[how]
    before = contents(here)
    code = main(WRITERS[case](out))
    told = capsys.readouterr().err
    assert code == 2, told
    assert "another" in told
    assert contents(here) == before


@pytest.mark.parametrize("case", MODELS)
def test_a_model_is_not_replaced_by_what_is_made_of_it(here: Path, case: str, capsys: pytest.CaptureFixture[str]) -> None:
    before = contents(here)
    assert main([*MODELS[case], str(here / "d" / ".." / "m.sgd"), "--quiet"]) == 2
    assert "would replace the model that it is made of" in capsys.readouterr().err
    assert contents(here) == before


@pytest.mark.parametrize("out", ["d", "/dev/null", "m.sgd/below", "n" * 300 + ".parquet"])
@pytest.mark.parametrize("case", [case for case in WRITERS if case not in ("predict", "explain", "shuffle")])
def test_a_place_that_cannot_be_written_is_refused_before_any_work(
    here: Path, case: str, out: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(here)
    code = main(WRITERS[case](f"{out}.csv" if "--table" in case and out == "m.sgd/below" else out))
    told = capsys.readouterr().err
    assert code == 2, told
    assert "this is a bug" not in told
    assert contents(here) == before
    assert not (here / "new.sgd").exists()


@pytest.mark.parametrize("case", ["train", "tune", "calibrate", "report"])
def test_what_another_process_writes_is_not_written(here: Path, case: str, capsys: pytest.CaptureFixture[str]) -> None:
    with only_writer(here / "w.sgd", "--out w.sgd"):
        assert main(WRITERS[case]("w.sgd")) == 2
    assert "another run is writing it" in capsys.readouterr().err
    assert not (here / "w.sgd").exists()


def test_two_outputs_of_a_command_are_two_files(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*WRITERS["train"]("new.sgd"), "--report", f"{here}/new.sgd"]) == 2
    assert "is the place of --out too" in capsys.readouterr().err
    assert not (here / "new.sgd").exists()


def test_a_run_whose_report_cannot_be_written_in_the_end_fails_and_says_why(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of a disk that is full by then: the model is saved."""

    def full(place: str, *_page: object) -> None:
        raise ModelError(f"{place}: cannot be saved: no space left on device")

    monkeypatch.setattr("streamsgd.show.report.write_page", full)
    assert main([*WRITERS["train"]("new.sgd"), "--report", "r.html"]) == 2
    told = capsys.readouterr().err
    assert "no space left on device" in told
    assert "--report r.html: was not written; the model is saved" in told
    assert Path("new.sgd").stat().st_size
