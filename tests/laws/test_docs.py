"""Every file, folder, module and check that the documentation names is there."""

import re
import shlex
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from pkgutil import resolve_name

import pytest

import streamsgd.testing
from streamsgd.cli.commands import cli

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
TOPS = {path.stem for path in (ROOT / "streamsgd").iterdir() if not path.name.startswith("_")}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_paths_are_there(page: Path) -> None:
    text = page.read_text()
    named = re.findall(r"\b(?:scripts|tests|docs|streamsgd|datasets/(?=\w+\.py))/[\w/.]*\w", text)
    named += [f"streamsgd/{path}" for path in re.findall(r"`([a-z_]+/[\w/]+(?:\.py|/))`", text) if path.split("/")[0] in TOPS]
    links = [page.parent / link for link in re.findall(r"\]\((?!http)([^)#]+)", text)]
    found = [ROOT / path for path in named] + links
    assert not [str(path) for path in found if not path.exists()]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_modules_are_there(page: Path) -> None:
    for name in re.findall(r"`(?:streamsgd\.)?([a-z_]+(?:\.\w+)+)`", page.read_text()):
        if name.partition(".")[0] in TOPS and not name.endswith((".sgd", ".py")):
            try:
                import_module(f"streamsgd.{name}")
            except ModuleNotFoundError:
                resolve_name(f"streamsgd.{name}")


def test_every_check_is_named() -> None:
    text = "".join(page.read_text() for page in PAGES)
    checks = {name for name in vars(streamsgd.testing) if name.startswith("check_")}
    assert not {name for name in checks if f"{name}(" not in text and f"`{name}`" not in text}


def test_the_picture_of_the_layers_is_the_law() -> None:
    from test_layers import LAYER  # noqa: PLC0415  its neighbour

    page = ROOT / "docs" / "architecture.md"
    rows = re.findall(r"^\| (\d) \| (.*?) \|", page.read_text(), re.MULTILINE)
    drawn = {
        name.strip("/"): int(layer)
        for layer, cell in rows
        for name in re.findall(r"`(\w+/?)`", re.sub(r"\(.*?\)", "", cell))  # rooms within a package are in brackets
    }
    assert drawn == LAYER


def test_the_reference_is_what_the_code_says() -> None:
    """Else run scripts/write_reference.py."""
    subprocess.run([sys.executable, str(ROOT / "scripts" / "write_reference.py"), "--check"], check=True)


def commands() -> list[str]:
    """Return every command of streamsgd that a page shows on a line of its own."""
    found = [
        re.findall(r"^    (?:\$ )?(streamsgd (?!--).*)", page.read_text().replace("\\\n", " "), re.MULTILINE) for page in PAGES
    ]
    return sorted({line for lines in found for line in lines})


@pytest.mark.parametrize("line", commands())
def test_commands_are_understood(line: str) -> None:
    """Every flag is there, and takes what is given; what they do is for the tests of each."""
    name, *words = shlex.split(line.replace("...", ""), comments=True)[1:]
    if {"--help", "--help-all"} & {*words}:
        assert name in cli.commands
        return
    cli.commands[name].make_context(name, words, parent=cli.make_context("streamsgd", [name], resilient_parsing=True))
