"""Bits that are the same on every x86-64 processor: what libraries must be told before they are loaded.

Libraries pick code by processor: Numba compiles for the one it runs on; NumPy, OpenBLAS, Arrow and the C library (exp, log,
pow) have several versions of a loop, each of which rounds in its own way. With `--cpu portable` all of them are bound to
x86-64-v2, which every such processor since 2009 has. They read that from the environment when they are loaded, or when the
process starts: so the command line starts itself anew, and a Python program is told what its environment must be.
"""

from __future__ import annotations

import os
import platform
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


PORTABLE = {
    "NUMBA_CPU_NAME": "x86-64-v2",
    "NUMBA_CPU_FEATURES": "",
    "NPY_DISABLE_CPU_FEATURES": "X86_V3 X86_V4 AVX512_ICL AVX512_SPR",
    "OPENBLAS_CORETYPE": "Nehalem",
    "ARROW_USER_SIMD_LEVEL": "SSE4_2",
    "GLIBC_TUNABLES": "glibc.cpu.hwcaps=-AVX,-AVX2,-AVX2_Usable,-FMA,-FMA_Usable,-FMA4,-AVX512F,-AVX512F_Usable",
}
"""The environment of a process whose bits are the same everywhere."""

VARIABLE = "STREAMSGD_CPU"
"""By which it is asked for, in environments."""

CONFIG = "STREAMSGD_CONFIG"
"""Which names the file of settings, in environments."""


def asked_for(words: Sequence[str], environ: Mapping[str, str]) -> bool:
    """Whether a command line, or else the environment, or else the file of settings asks for portable bits."""
    values = _given(words, "--cpu") or [environ.get(VARIABLE, "")]
    if values[-1]:
        return values[-1] == "portable"
    files = _given(words, "--config") or [environ.get(CONFIG, "")]
    return bool(files[-1]) and _in_file(files[-1]) == "portable"


def _given(words: Sequence[str], flag: str) -> list[str]:
    """Return the values of a flag on a command line."""
    values = []
    for word, following in zip(words, [*words[1:], ""], strict=False):  # there may be no word
        values += [following] if word == flag else [word.partition("=")[2]] if word.startswith(f"{flag}=") else []
    return values


def _in_file(path: str) -> object:
    """Return what a file of settings says; what is wrong with it is said by who reads the others."""
    import tomllib  # noqa: PLC0415  only where there is such a file

    try:
        with open(path, "rb") as file:  # noqa: PTH123
            return tomllib.load(file).get("cpu")
    except (OSError, ValueError):
        return None


def is_portable(environ: Mapping[str, str]) -> bool:
    """Whether a process with this environment has portable bits."""
    return all(environ.get(key) == value for key, value in PORTABLE.items())


def start_anew(words: Sequence[str]) -> None:
    """Replace this process by one with portable bits, if it is asked for and is not so already."""
    if platform.machine() not in ("x86_64", "AMD64") or not asked_for(words, os.environ) or is_portable(os.environ):
        return
    os.execve(sys.executable, sys.orig_argv, {**os.environ, **PORTABLE})  # noqa: S606  this very command
