"""What people install: wheel and sdist, built here, in an environment that has nothing of this checkout."""

import ast
import json
import os
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from importlib.metadata import distribution, packages_distributions
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

import streamsgd

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
EXTRAS = PROJECT["project"]["optional-dependencies"]


def run(*command: Any, cwd: Path = ROOT, **environ: str) -> str:
    kept = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "COVERAGE_PROCESS_START")}
    done = subprocess.run([str(c) for c in command], cwd=cwd, capture_output=True, text=True, check=False, env=kept | environ)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return the wheel and the sdist."""
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "hatchling", "build", "--directory", folder)
    (wheel,), (sdist,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    return wheel, sdist


@pytest.fixture(scope="module")
def clean(built: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the Python of an environment with the wheel, whose dependencies are those of this one, without this checkout."""
    folder = tmp_path_factory.mktemp("clean")
    run(sys.executable, "-m", "venv", "--without-pip", folder / "venv")
    python = folder / "venv" / "bin" / "python"
    run(sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", "--no-index", built[0])
    place = Path(run(python, "-c", "import site; print(site.getsitepackages()[0])").strip())
    # A folder that a .pth file names comes last, and its own .pth files, such as that of an editable install, do not count.
    others = [path for path in sys.path if path.endswith("site-packages")]
    (place / "dependencies.pth").write_text("".join(f"{path}\n" for path in others))
    return python


# --- law: what is inside


def test_the_wheel_has_the_package_and_nothing_else(built: tuple[Path, Path]) -> None:
    names = {name for name in zipfile.ZipFile(built[0]).namelist() if ".dist-info/" not in name}
    there = {path.relative_to(ROOT).as_posix() for path in (ROOT / "streamsgd").rglob("*") if path.is_file()}
    assert names == {name for name in there if "__pycache__" not in name}
    assert {"streamsgd/py.typed", "streamsgd/show/report.html"} <= names


def test_the_sdist_gives_the_same_wheel(built: tuple[Path, Path], tmp_path: Path) -> None:
    with tarfile.open(built[1]) as packed:
        packed.extractall(tmp_path, filter="data")
    (top,) = tmp_path.iterdir()
    run(sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", tmp_path / "again", cwd=top)
    (again,) = (tmp_path / "again").glob("*.whl")
    assert again.read_bytes() == built[0].read_bytes()


# --- law: what works


def test_it_trains_and_scores_where_it_is_installed(clean: Path, tmp_path: Path) -> None:
    """Also the command that people type; the kernels are those that this process may have compiled."""
    where = run(clean, "-c", "import streamsgd; print(streamsgd.__file__, streamsgd.__version__)", cwd=tmp_path)
    assert str(clean.parents[1]) in where
    assert where.split()[-1] == streamsgd.__version__
    command, demo = clean.parent / "streamsgd", ROOT / "datasets" / "demo"
    few = ("--features", "distance", "--filter", "date < '2001-01-03'", "--epochs", "1", "--optimizer", "adam")
    last = run(command, "train", demo, "--target", "late", "-o", "m.sgd", "--executor", "inline", *few, cwd=tmp_path)
    assert json.loads(last.splitlines()[-1])["status"] == "done"
    served = "import streamsgd.serving as s; print(s.load('m.sgd').predict({'distance': 300}))"
    assert run(clean, "-c", served, cwd=tmp_path).strip() in ("False", "True", "0", "1")


def test_what_it_imports_is_declared(clean: Path, tmp_path: Path) -> None:
    code = (
        "import sys, pkgutil, streamsgd\n"
        "import streamsgd.api, streamsgd.partial, streamsgd.cli.commands, streamsgd.training.run, streamsgd.show.report\n"
        "print(*{name.partition('.')[0] for name in sys.modules})"
    )
    loaded = {*run(clean, "-c", code, cwd=tmp_path).split()} - {*sys.stdlib_module_names, "streamsgd", "__mp_main__"}
    homes = packages_distributions()
    strange = {name for name in loaded if not {_plain(one) for one in homes.get(name, [])} & declared() and name in homes}
    # Of these a dependency looks whether they are there, and does without.
    optional = ["pandas", "pytest", "IPython", "scipy", "sklearn", "dateutil", "pytz", "tzdata", "six", "cython", "setuptools"]
    assert strange <= {*optional, "typing_extensions"}


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def declared() -> set[str]:
    """Return the distributions that installing the package brings, and what those need."""
    found, waiting = set[str](), [Requirement(text).name for text in PROJECT["project"]["dependencies"]]
    while waiting:
        name = _plain(waiting.pop())
        if name in found:
            continue
        found.add(name)
        needs = [Requirement(text) for text in distribution(name).requires or ()]
        waiting += [need.name for need in needs if need.marker is None or need.marker.evaluate({"extra": ""})]
    return found


# --- law: what is said


def test_the_version_is_in_one_place(built: tuple[Path, Path]) -> None:
    assert "version" in PROJECT["project"]["dynamic"]
    assert built[0].name.startswith(f"streamsgd-{streamsgd.__version__}-py3-none-any")


def test_dependencies_here_are_those_that_are_asked_for() -> None:
    tried = ("sklearn", "mlflow", "report", "delta", "iceberg", "onnx")
    for text in [*PROJECT["project"]["dependencies"], *(text for name in tried for text in EXTRAS[name])]:
        need = Requirement(text)
        try:
            assert need.specifier.contains(distribution(need.name).version), text
        except ModuleNotFoundError:
            pytest.importorskip(need.name)  # an oracle, that CI installs
    assert {*EXTRAS["all"][0].removeprefix("streamsgd[").removesuffix("]").split(",")} == EXTRAS.keys() - {"all"}


def test_tests_skip_without_the_packages_that_they_compare_with() -> None:
    """`scripts/test` installs none of these: a test that imports one ends the collection of all on a user's machine."""
    pins = {kind: _pinned(ROOT / "requirements" / f"{kind}.lock") for kind in ("run", "test", "oracles")}
    large = {module for module, owners in packages_distributions().items() if {*map(_plain, owners)} <= pins["oracles"]}
    large -= {
        module for module, owners in packages_distributions().items() if {*map(_plain, owners)} & (pins["run"] | pins["test"])
    }
    wrong = []
    for path in sorted((ROOT / "tests").rglob("*.py")):
        nodes = [*ast.walk(ast.parse(path.read_text()))]
        asked = re.findall(r'(?:importorskip|find_spec)\("(\w+)', path.read_text())
        imports = [name for node in nodes for name in _imported(node)]
        wrong += [f"{path.relative_to(ROOT)}: {name}" for name in imports if name in large and name not in asked]
    assert not wrong


def _pinned(lock: Path) -> set[str]:
    return {_plain(line.partition("==")[0].strip()) for line in lock.read_text().splitlines() if "==" in line}


def _imported(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name.partition(".")[0] for alias in node.names]
    return [node.module.partition(".")[0]] if isinstance(node, ast.ImportFrom) and node.module else []


def test_every_extra_is_explained() -> None:
    page = (ROOT / "docs" / "install.md").read_text()
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*?) \|", page, re.MULTILINE))
    assert rows.keys() == EXTRAS.keys()
    for name, brings in rows.items():
        assert name == "all" or brings.lower() == ", ".join(Requirement(text).name.lower() for text in EXTRAS[name])


def test_this_python_is_one_that_is_promised() -> None:
    said = {line.rpartition(" ")[2] for line in PROJECT["project"]["classifiers"] if "Python :: 3." in line}
    assert f"{sys.version_info.major}.{sys.version_info.minor}" in said
    assert min(said, key=lambda v: int(v[2:])) == PROJECT["project"]["requires-python"].removeprefix(">=")


def test_the_container_copies_what_is_there_and_gives_flags_that_there_are() -> None:
    lines = (ROOT / "Containerfile").read_text().replace("\\\n", " ").splitlines()
    for line in lines:
        if line.startswith("COPY") and "--from" not in line:
            assert all((ROOT / source).exists() for source in line.split()[1:-1]), line
    (command,) = [found[1] for line in lines if (found := re.search(r"streamsgd (warmup .*?)(?: &&|$)", line))]
    run(sys.executable, "-m", "streamsgd", *command.split(), "--help", PYTHONPATH=str(ROOT))  # after it has read the flags
