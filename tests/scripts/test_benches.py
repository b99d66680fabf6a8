"""The long proofs in small: each script runs, says what it measured, and keeps its promise where that is no matter of speed."""

import json
import re
import runpy
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats

ROOT = Path(__file__).resolve().parents[2]


def run(script: str, *arguments: str) -> Any:
    command = [sys.executable, str(ROOT / "scripts" / script), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture
def run_here(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Run a script within this process, which has loaded the kernels: where neither time nor memory is what it measures."""

    def run_(script: str, *arguments: str) -> Any:
        monkeypatch.setattr(sys, "argv", [script, *arguments])
        monkeypatch.syspath_prepend(str(ROOT / "scripts"))
        capsys.readouterr()
        try:
            runpy.run_path(str(ROOT / "scripts" / script), run_name="__main__")
        except SystemExit as ended:
            assert not ended.code, capsys.readouterr()  # noqa: PT017
        return json.loads(capsys.readouterr().out.splitlines()[-1])

    return run_


@pytest.mark.parametrize("case", ["wide", "huge", "strings"])
def test_the_process_tree_stays_within_its_memory(case: str, tmp_path: Path) -> None:
    """The script exits with 1 if it does not."""
    sizes = ["--gigabytes", "0.6", "--memory", "650MB", "--large", "2GB"]
    if case == "strings":
        sizes = ["--gigabytes", "0.25", "--memory", "1GB", "--large", "2GB"]
    [result] = run("bench_memory.py", *sizes, "--cases", case, "--scratch", str(tmp_path))
    for run_ in (result["small"], result["large"]):
        assert 0.2e9 < run_["peak"] <= run_["budget"]


def test_what_is_small_in_the_file_stays_within_the_smallest_budget_that_is_named(tmp_path: Path) -> None:
    """Strings of 3 kB that take 10 bytes each in the file, some of 100 kB: 300 MB, and 2 GB; a list of 2 M among short ones."""
    shapes = "long_delta,longer_repeated,giant_list"
    for found in run("bench_memory.py", "--shapes", shapes, "--budgets", "smallest", "--scratch", str(tmp_path)):
        assert not found["wrong"]
        assert 0.2e9 < found["runs"][0]["peak"] <= found["smallest"] < 1.4e9


def test_long_strings_stay_within_memory_whatever_is_done_with_them(tmp_path: Path) -> None:
    """Strings of 300 kB that take 10 bytes each in the file: 300 MB."""
    verbs = ["--verbs", "shuffle,predict,inspect", "--budgets", "700MB"]
    found = run("bench_memory.py", "--shapes", "prefixes", *verbs, "--scratch", str(tmp_path))
    assert [each["code"] for each in found] == [0, 0, 0]
    assert all(0.1e9 < each["peak"] <= each["budget"] for each in found)


def test_speed_is_measured_against_decoding_and_peers() -> None:
    pytest.importorskip("vowpalwabbit")
    rates = run("bench_speed.py", "--rows", "300000", "--repeat", "1", "--peers")["rows_per_second"]
    assert len(rates) == 5
    assert all(rate > 0 for rate in rates.values())


def test_later_passes_are_the_same_from_memory_and_disk(run_here: Callable[..., Any]) -> None:
    """The script exits with 1 if a byte of a block or of a model differs."""
    found = run_here("bench_passes.py", "--small", "--cases", "dense")["dense"]
    assert all(min(seconds) > 0.0 for kind in ("blocks", "passes", "runs") for seconds in found[kind].values())


def test_help_is_quick_and_plans_of_many_row_groups_are_small() -> None:
    found = run("bench_start.py", "--row-groups", "20000")
    assert found["plan_row_groups"] == 20_000
    assert found["plan_peak"] < 500e6
    assert found["warm_compile_seconds"] == 0.0 < found["cold_compile_seconds"]


def test_replicates_of_averages_scatter_as_their_standard_errors_say(run_here: Callable[..., Any]) -> None:
    """As far as 60 of 8,000 rows can tell; with those of the minimum taken off, 300 of 64,000 rows are within 0.9 to 1.15."""
    command = ["--replicates", "60", "--rows", "8000", "--batches", "1,64", "--least", "0.8", "--most", "1.35"]
    results = run_here("bench_averaging.py", *command)["results"]
    assert len(results) == 4
    for result in results:
        assert all(0.5 < ratio < 1.7 for ratio in result["ratio"])
        assert all(share > 0.85 for share in result["coverage"])
        assert all(abs(ratio - 1.0) < 0.02 for ratio in result["error_to_hc0"])


def test_what_compiling_costs_is_measured_and_a_second_run_compiles_nothing() -> None:
    [found] = run("bench_compile.py", "--cases", "adam, dense, held-out").values()
    assert found["warm_compile"] == 0.0 < found["cold_compile"]
    assert found["kernels"]["learn.fit.fit"] == 1


def test_sorted_rows_train_to_what_shuffled_ones_do(run_here: Callable[..., Any]) -> None:
    """The script exits with 1 if they do not."""
    flags = ["--rows", "60000", "--chunk-rows", "6000", "--groups", "32", "--memory", "600MB", "--passes", "1"]
    (result,) = run_here("bench_sorted.py", *flags)["results"]
    assert result["shuffle"] == "external"
    assert result["default"] < 0.5


def test_a_served_row_costs_less_than_any_other_way_in_python() -> None:
    found = run("bench_serving.py", "--rows", "100")
    assert found["apart"] < 1e-6
    others = [micros for name, micros in found["us"].items() if "Vowpal" not in name]
    assert found["us"]["streamsgd.serving"] == min(others)


def test_folds_are_their_solo_runs() -> None:
    found = run("bench_folds.py", "--rows", "8000", "--folds", "3")
    assert found["same"] == [True] * 4


def test_batches_grow_just_enough(run_here: Callable[..., Any]) -> None:
    """The script raises where NumPy comes to other weights, or another ledger."""
    for found in run_here("bench_adaptive.py", "--small", "--json")["results"]:
        assert found["within"] >= 0.9
        assert found["twice"] >= 0.8
        assert found["r_squared"] > 0.97


def test_steps_are_judged_as_all_rows_would(run_here: Callable[..., Any]) -> None:
    found = run_here("bench_trust.py", "--small", "--json")
    assert found["decisions"] > 50
    assert found["wrong"] <= 0.05 * found["decisions"]
    assert found["unpaired"]["ratio"] > 10.0
    assert all(result["no_worse"] and result["visits"] <= 3.0 for result in found["results"])


def test_pilots_find_the_line_of_the_exact_recursion(run_here: Callable[..., Any]) -> None:
    found = run_here("bench_pilot.py", "--small", "--json")["results"]
    assert abs(found["a"] - 1.0) < 0.02
    assert abs(found["c"] - 1.0) < 0.1
    assert 0.5 <= found["size"] <= 2.0
    assert found["covered"] > 0.8


def test_one_step_loses_half_of_its_gain_at_the_size_of_theory(run_here: Callable[..., Any]) -> None:
    """Of 16 seeds: least squares far from the minimum and near it, and a real table."""
    found = run_here("bench_one_step.py", "--small", "--json")["results"]
    assert len(found) == 3
    for one in found.values():
        assert 0.5 < one["halves"] / one["theory"] < 2.0
        assert one["interval"][0] < one["halves"] < one["interval"][1]


def test_pilots_are_compared_with_sweeps(run_here: Callable[..., Any]) -> None:
    given = ["--only", "diabetes", "--steps", "8", "--sweep-seeds", "3", "--sweep-sizes", "16,64"]
    [one] = run_here("bench_pilot.py", "--cases", "sweep", *given, "--json")["results"]["sweep"].values()
    assert one["ratio"] == one["pilot"] / one["sweep"]
    assert one["time"] > 1.0 - 1e-9


def test_sgd_follows_the_exact_recursion_in_any_batch_and_at_rates_that_follow_it(run_here: Callable[..., Any]) -> None:
    """Of 20 seeds; the script exits with 1 where one is more than 3 standard errors off."""
    found = run_here("bench_rates.py", "--small", "--json")["results"]
    assert found["equal compute, b = 1024"]["off"] < 1e-9
    assert abs(found["linear"]["exact"] - 1.0) < 0.05


def test_pictures_are_those_that_docs_show_and_are_drawn() -> None:
    shown = {name for page in (ROOT / "docs").glob("*.md") for name in re.findall(r"\(pictures/(\w+)\.svg\)", page.read_text())}
    there = {path.stem: ET.parse(path).getroot() for path in (ROOT / "docs" / "pictures").glob("*.svg")}
    assert shown == {*there} == {*runpy.run_path(str(ROOT / "scripts" / "draw_pictures.py"))["PICTURES"]}
    for root in there.values():
        assert any(element.tag.endswith(("polyline", "circle")) for element in root.iter())


def test_tuning_comes_to_the_bytes_of_solo_runs(run_here: Callable[..., Any]) -> None:
    """The script exits with 1 if it does not."""
    found = run_here("bench_tune.py", "--small")
    assert found["same"] == [True, True, True]
    assert found["rows_learned"] < 10 * 40_000


def test_chains_in_a_double_well_have_the_law_of_eulers_chain(run_here: Callable[..., Any]) -> None:
    """In small, as far as fewer steps can tell; the script exits with 1 if they have not."""
    found = run_here("bench_posterior.py", "--small", "--only", "well")["results"]["well"]
    assert found["0.04"]["euler"] < found["0.04"]["boltzmann"]  # the discretisation is seen, and is Euler's


def test_rare_rows_are_chosen_as_their_rules_promise(run_here: Callable[..., Any]) -> None:
    """As far as 12 small replicates can tell: the same rows say more where the pilot chose them; offsets miss a square."""
    found = run_here("bench_rare.py", "--small", "--parts", "variance,wrong")
    ratios = {case: result["ratio"] for case, result in found["variance"].items() if "ratio" in result}
    assert 0.8 < ratios["targeted c=20"] < 1.5 < ratios["targeted c=1"]
    assert ratios["targeted c=5"] < ratios["uniform c=5"]
    biases = [result[key] for result in found["variance"].values() for key in result if key.endswith(("errors", "expected"))]
    assert len(biases) == 20
    assert max(biases) < 6.0
    assert found["wrong"]["uniform c=5"]["errors_from_minimum"] > found["wrong"]["local case-control"]["errors_from_minimum"]


def test_the_bias_of_few_positives_is_that_of_a_logarithm(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of an intercept alone E log(k / (n - k)) is known by the binomial law; rows of a weight of 3 have the bias of one."""
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    from rare_replicates import expected_bias, newton  # noqa: PLC0415  a script

    n, p = 400, 0.1
    k = np.arange(1, n)
    law = scipy.stats.binom.pmf(k, n, p)
    truth = float((law * np.log(k / (n - k))).sum() / law.sum() - np.log(p / (1 - p)))
    x, y = np.zeros((n, 0)), (np.arange(n) < p * n).astype(float)
    fit = newton(x, y)
    assert fit[0] == pytest.approx(np.log(p / (1 - p)))
    for weight in (1.0, np.full(n, 3.0)):
        assert expected_bias(x, y, fit, 0.0, weight)[0] == pytest.approx(truth, rel=0.05)


def test_days_one_by_one_are_days_in_one_run(run_here: Callable[..., Any]) -> None:
    """In small; the script exits with 1 where bytes or losses differ, or a day that was killed is not made up for."""
    found = run_here("prove_days.py", "--days", "4", "--rows", "4000", "--kills", "2")
    assert found["kills"]["of_another_day"] == found["kills"]["went_on"] == 1


def test_models_are_measured_beside_the_linear_one() -> None:
    found = run("bench_models.py", "--rows", "3000", "--repeat", "1", "--models", "linear,fm")
    assert found["linear"]["rows"] == found["fm"]["rows"] == 3000
    assert all(one["cpu"] > 0.0 and one["learn"] > 0.0 for one in found.values())


def test_networks_are_measured_beside_those_of_others() -> None:
    found = run("bench_model_peers.py", "--rows", "1024", "--repeat", "1", "--only", "networks")["networks"]
    assert set(found) >= {"streamsgd mlp", "scikit-learn partial_fit"}
    assert all(speed > 0.0 for speeds in found.values() for speed in speeds)
