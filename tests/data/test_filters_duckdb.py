"""Filters keep the rows that DuckDB keeps, over files of mixed types; scripts/prove_filters.py compares more."""

import importlib.util
import sys
from pathlib import Path

import pytest

pytest.importorskip("duckdb")

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "prove_filters.py"


def test_generated_conditions_keep_the_rows_that_duckdb_keeps() -> None:
    spec = importlib.util.spec_from_file_location("prove_filters", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    sys.modules["prove_filters"] = script
    spec.loader.exec_module(script)
    n_rows, wrong = script.compare(200, 1)
    assert not wrong
    assert n_rows > 3000
