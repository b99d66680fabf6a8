"""The ways by which rows are read beside plain training, for `bench_memory.py`: each is held to its `--memory`."""

from __future__ import annotations

import subprocess
import sys
import time
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


VERBS: dict[str, tuple[str, ...]] = {
    "train": ("train", "DATA", "--target", "y", "-o", "NEW.sgd"),
    "fm": ("train", "DATA", "--target", "y", "--model", "fm", "-o", "NEW.sgd"),
    "mlp": ("train", "DATA", "--target", "y", "--model", "mlp:hidden=8", "-o", "NEW.sgd"),
    "filter": ("train", "DATA", "--target", "y", "--filter", "y>=0", "-o", "NEW.sgd"),
    "external": ("train", "DATA", "--target", "y", "--shuffle", "external", "-o", "NEW.sgd"),
    "shuffle": ("shuffle", "DATA", "NEW"),
    "predict": ("predict", "MODEL", "DATA", "-o", "NEW", "--id", "ID"),
    "inspect": ("inspect", "DATA", "--target", "y"),
    "evaluate": ("evaluate", "MODEL", "DATA"),
    "by": ("evaluate", "MODEL", "DATA", "--by", "ID"),
    "explain": ("explain", "MODEL", "DATA", "-o", "NEW"),
}
"""NEW is a place where nothing is yet, ID the first column beside the target, MODEL one that was trained on the data."""


REFUSALS = ("smallest budget that can", "for which there is memory", "told apart")


def peak_of(words: list[str], tree_bytes: Callable[[psutil.Process], int], pause: float = 0.005) -> tuple[int, int, str]:
    """Run a command; return its exit code, the peak of the resident memory of its processes, and the end of what it said."""
    command = [sys.executable, "-m", "streamsgd", *words]
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    process, peak = psutil.Process(child.pid), 0
    while child.poll() is None:
        peak = max(peak, tree_bytes(process))
        time.sleep(pause)
    said = child.communicate()[1].strip().splitlines()
    return child.returncode, peak, said[-1] if said else ""


def words_of(verb: str, data: Path, model: Path, new: Path, column: str) -> list[str]:
    """Return the words of a command."""
    places = {"DATA": str(data), "MODEL": str(model), "NEW": str(new), "NEW.sgd": f"{new}.sgd", "ID": column}
    quiet = ["--epochs", "1", "--quiet", "--resume", "never"] if VERBS[verb][0] == "train" else []
    return [*(places.get(word, word) for word in VERBS[verb]), *quiet]


def wrong_of(code: int, peak: int, budget: int, said: str) -> str:
    """Return what breaks the contract, if anything does: a refusal for want of memory does not, unless memory was taken."""
    if peak > budget:
        return f"takes {peak / 1e6:.0f} MB of {budget / 1e6:.0f} MB"
    return f"fails: {said[:300]}" if code and not any(words in said for words in REFUSALS) else ""
