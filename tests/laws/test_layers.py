"""Who may know whom: every import of every module, lazy ones and those for type checkers included, by one table."""

import ast
import statistics
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import streamsgd

PACKAGE = Path(__file__).resolve().parents[2] / "streamsgd"
MODULES = {".".join(path.relative_to(PACKAGE).with_suffix("").parts): path for path in sorted(PACKAGE.rglob("*.py"))}

LAYER = {
    **dict.fromkeys(("errors", "messages", "portable", "redact", "version"), 0),
    **dict.fromkeys(("kernels", "planning"), 1),
    **dict.fromkeys(("settings", "compute"), 2),
    **dict.fromkeys(("data", "serving"), 3),
    "features": 4,
    **dict.fromkeys(("stream", "inspection"), 5),
    "model": 6,
    "training": 7,
    **dict.fromkeys(("api", "partial", "show", "sklearn", "testing", "callbacks", "cli"), 8),
}
"""The layer of every package, and of every module beside them. One imports lower layers only ..."""

WITHIN = {("cli", "api"), ("cli", "show"), ("api", "show"), ("messages", "errors"), ("errors", "redact")}
"""... and, within its layer, only these."""

KNOW_DASK = ("compute", "training.backends", "data.sources.dask_feed", "data.sources.dask_tables")
"""Who may import Dask."""

ROOM = 400
"""Lines of a file."""


def package_of(module: str) -> str:
    return module.partition(".")[0]


def trees() -> dict[str, ast.AST]:
    return {module: ast.parse(path.read_text()) for module, path in MODULES.items()}


TREES = trees()


def imports_of(module: str, *, lazy: bool = True) -> Iterator[str]:
    """Yield every name that one imports, dotted, at its top, and unless not `lazy` anywhere in it."""
    waiting: list[ast.AST] = [TREES[module]]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            assert not node.level, f"{module}: imports are absolute here"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        if not lazy and isinstance(node, ast.FunctionDef):
            continue
        if not lazy and isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        waiting += ast.iter_child_nodes(node)


def of_ours(module: str) -> set[str]:
    """Return the modules of this package that one imports."""
    names = [name.removeprefix("streamsgd.") for name in imports_of(module) if name.startswith("streamsgd.")]
    found = {name if name in MODULES else name.rpartition(".")[0] for name in names}
    return {name for name in found if name in MODULES}


def root(name: str) -> str:
    return name.partition(".")[0]


def within(module: str, *prefixes: str) -> bool:
    return any(module == prefix or module.startswith(f"{prefix}.") for prefix in prefixes)


# --- law: layers


@pytest.mark.parametrize("module", [module for module in MODULES if not module.startswith("__")])
def test_imports_go_down(module: str) -> None:
    mine = package_of(module)
    for other in {package_of(name) for name in of_ours(module)} - {mine}:
        assert LAYER[other] < LAYER[mine] or (mine, other) in WITHIN, f"{module} imports {other}"


def test_no_modules_import_each_other_in_a_circle() -> None:
    graph = {module: of_ours(module) - {module} for module in MODULES if not module.endswith("__init__")}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"a circle: {' -> '.join(error.args[1])}")


def test_no_chain_of_packages_is_longer_than_the_layers_allow() -> None:
    above: dict[str, set[str]] = {}
    for module in MODULES:
        if not module.startswith("__"):
            above.setdefault(package_of(module), set()).update(
                {package_of(name) for name in of_ours(module)} - {package_of(module)}
            )
    height: dict[str, int] = {}
    for package in TopologicalSorter(above).static_order():
        height[package] = 1 + max((height[other] for other in above.get(package, ())), default=0)
    assert max(height.values()) <= 12


def test_files_are_short_and_so_are_functions() -> None:
    long = {module: n for module, path in MODULES.items() if (n := len(path.read_text().splitlines())) > ROOM}
    assert not long
    lengths = []
    for tree in TREES.values():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef):
                said = ast.get_docstring(node, clean=False)
                lengths.append(node.end_lineno - node.lineno + 1 - (len(said.splitlines()) if said else 0))  # type: ignore[operator]
    assert statistics.median(lengths) <= 6
    assert sorted(lengths)[int(0.9 * len(lengths))] <= 20


def test_public_names_are_no_modules() -> None:
    """Importing a submodule sets it as an attribute of the package, and the public name would be gone."""
    names = {path.stem for path in PACKAGE.iterdir()}
    assert not names & {*streamsgd.__all__, "score", "train_many", "tune", "noise", "pilot", "sample", "export", "explain"}


# --- law: libraries


@pytest.mark.parametrize(
    "module", [m for m in MODULES if within(m, "planning", "messages", "errors", "portable", "redact", "version")]
)
def test_planning_knows_only_integers(module: str) -> None:
    strange = {root(name) for name in imports_of(module)} - {*sys.stdlib_module_names, "numpy", "streamsgd"}
    assert not strange


@pytest.mark.parametrize("module", [m for m in MODULES if not m.startswith("kernels")])
def test_numba_is_known_only_under_kernels(module: str) -> None:
    assert not {root(name) for name in imports_of(module)} & {"numba", "llvmlite"}


def test_dask_is_known_only_to_those_who_run_things() -> None:
    """Except `dask.system`, which counts the CPUs of a cgroup."""
    for module in MODULES:
        for name in imports_of(module):
            if root(name) in {"dask", "distributed"} and not name.startswith("dask.system"):
                assert within(module, *KNOW_DASK), f"{module}: {name}"


@pytest.mark.parametrize("module", [m for m in MODULES if not within(m, "sklearn")])
def test_scikit_learn_and_scipy_are_known_only_to_its_estimators(module: str) -> None:
    assert not {root(name) for name in imports_of(module)} & {"sklearn", "scipy"}


@pytest.mark.parametrize("module", [m for m in MODULES if m.startswith("kernels")])
def test_kernels_know_nothing_of_the_rest(module: str) -> None:
    for name in imports_of(module):
        if root(name) == "streamsgd":
            assert within(name, "streamsgd.kernels")
        else:
            assert root(name) in {*sys.stdlib_module_names, "numpy", "numba", "llvmlite"}


@pytest.mark.parametrize("module", [m for m in MODULES if within(m, "kernels.parts")])
def test_parts_are_plain_python(module: str) -> None:
    """But for exp and log1p, which are those of `math` in Python and vector code in kernels, and the ranges of fields."""
    vectors = {"streamsgd.kernels.compile.maths.exp", "streamsgd.kernels.compile.maths.log1p"}
    others = [name for name in {*imports_of(module)} - vectors if not within(name, "streamsgd.kernels.parts.ranges")]
    assert {root(name) for name in others} <= {"math", "typing", "__future__"}


OF_BYTES = ("data", "features", "stream", "inspection", "model", "testing.sources")


@pytest.mark.parametrize("module", [m for m in MODULES if not within(m, *OF_BYTES)])
def test_arrow_is_known_only_where_bytes_are(module: str) -> None:
    assert "pyarrow" not in {root(name) for name in imports_of(module)}


@pytest.mark.parametrize("module", [m for m in MODULES if within(m, "serving")])
def test_serving_knows_plain_python(module: str) -> None:
    """But for NumPy where a file of NumPy's is read."""
    ours = {name.split(".")[1] for name in imports_of(module) if root(name) == "streamsgd"}
    assert ours <= {"serving", "errors", "settings"}
    assert {root(name) for name in imports_of(module, lazy=False)} <= {*sys.stdlib_module_names, "streamsgd"}


def test_nobody_holds_global_state() -> None:
    """No module assigns with `global`."""
    for module, tree in TREES.items():
        assert not [n for n in ast.walk(tree) if isinstance(n, ast.Global)], module


def test_flags_and_serving_load_neither_numpy_nor_numba_nor_arrow_nor_dask() -> None:
    """What `--help`, and a process that scores rows, need not pay for."""
    code = "import sys, streamsgd.cli.main, streamsgd.cli.commands, streamsgd.serving; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"numpy", "numba", "pyarrow", "dask", "distributed", "rich"} & set(done.stdout.split())
