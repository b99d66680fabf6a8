"""The one place that talks to Numba: the decorator, its disk cache, and dispatch on parts.

Two facts shaped it, both measured:

* Numba's cache key knows a kernel's own file and bytecode, not the functions it calls, nor the compiler's
  options. An edited loss would silently reuse old machine code. The key here also holds a digest of every
  source in this package, of the modules that define the parts in the signature, and of the options.
* Functions passed as arguments, closures over them and jitclass never hit the disk cache. A *verb* does: a free
  function whose overload returns the plain-Python function of the part's class.
"""

from __future__ import annotations

import gc
import hashlib
import logging
import sys
import time
from functools import cache, wraps
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, Self

from llvmlite.binding import get_host_cpu_features, get_host_cpu_name
from numba import config, njit, types
from numba.core import event
from numba.core.caching import CompileResultCacheImpl, FunctionCache, IndexDataCacheFile
from numba.core.registry import CPUDispatcher
from numba.core.serialize import dumps

from streamsgd.kernels.compile.frontend import forget, remember
from streamsgd.kernels.compile.inlining import compiled_once, inlined

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

log = logging.getLogger("streamsgd")

stages = logging.getLogger("streamsgd.stages")


PACKAGE = "streamsgd.kernels"
"""Whose sources are in the key of every kernel, wherever in it this file is."""

# Reassociation lets LLVM vectorise sums; NaN and Inf keep their meaning, or a diverged run would go unseen.
FASTMATH = frozenset({"reassoc", "contract", "arcp", "nsz"})

EXACT = frozenset({"contract"})
"""Of what must round as written."""

# A division by zero gives Inf or NaN, as in NumPy, and the check for finite numbers finds it: Python's own test before every
# division keeps loops from becoming vector code.
ERROR_MODEL = "numpy"

UNCALLED = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}
"""Of helpers that kernels call: no code by which Python or C could."""


@cache
def _digest(path: str) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


@cache
def package_digest() -> str:
    """Return the sha256 of every kernel source, in the order of their paths."""
    sources = sorted(Path(str(sys.modules[PACKAGE].__file__)).parent.rglob("*.py"))
    return hashlib.sha256("".join(_digest(str(path)) for path in sources).encode()).hexdigest()


def _part_digests(signature: tuple[Any, ...]) -> tuple[str, ...]:
    paths = {getattr(sys.modules.get(part.__module__), "__file__", None) for part in _classes(signature)}
    return tuple(_digest(path) for path in sorted(filter(None, paths)))


def _classes(kinds: Iterable[Any]) -> Iterator[Any]:
    """Yield the classes of named tuples, and of the named tuples in them."""
    for kind in kinds:
        if isinstance(kind, types.BaseNamedTuple):
            yield kind.instance_class
            yield from _classes(kind)


class NamedByKey(IndexDataCacheFile):
    """Numba's file of compiled code, in which the name of an entry says what it is.

    Numba numbers entries from what the index held a moment ago. Two processes that compile at once can take one number for two
    kernels, and the index then hands out the code of the one for the other.
    """

    def save(self, key: Any, data: Any) -> None:
        """Keep what was compiled for a key. The code is there before the index speaks of it."""
        name = self._data_name(int.from_bytes(hashlib.sha256(dumps(key)).digest()[:16], "big"))
        self._save_data(name, data)
        self._save_index({**self._load_index(), key: name})

    def load(self, key: Any) -> Any:
        """Return what was compiled for a key; None where there is none that can be read, and it is compiled again."""
        try:
            return super().load(key)
        except OSError:
            raise
        except Exception:  # noqa: BLE001  a damaged entry, in whatever way
            return None

    def _load_index(self) -> Any:
        """Return the index: empty where it is damaged, or of a version whose modules had other names."""
        try:
            return super()._load_index()
        except OSError:
            raise
        except Exception:  # noqa: BLE001  unpickling raises what it likes
            return {}


_PLACES: list[Any] = CompileResultCacheImpl._locator_classes  # noqa: SLF001

_Given: Any = _PLACES[0]


class GivenFolder(_Given):
    """NUMBA_CACHE_DIR, also where it has kernels but cannot be written, as in an image: Numba would look elsewhere."""

    def ensure_cache_path(self) -> None:
        """Make the folder, unless it is there."""
        if not Path(self.get_cache_path()).is_dir():
            super().ensure_cache_path()


class _Places(CompileResultCacheImpl):
    _locator_classes = (GivenFolder, *_PLACES)


class _KernelCache(FunctionCache):
    """A function cache whose key also sees callees, parts and options.

    Signatures with parts from outside this package are kept in index files of their own: an index is unpickled whole, so
    one user's loss in the common one would break every process that cannot import it.
    """

    _impl_class = _Places

    def _index_key(self, sig: Any, codegen: Any) -> Any:
        key = super()._index_key(sig, codegen)
        return (*key, package_digest(), _part_digests(sig), tuple(sorted(FASTMATH)), tuple(sorted(EXACT)), ERROR_MODEL)

    def _use_index_of(self, sig: Any) -> None:
        modules = ((c.__module__, c.__qualname__) for c in _classes(sig))
        foreign = sorted({f"{module}.{name}" for module, name in modules if not module.startswith(f"{PACKAGE}.")})
        name = self._impl.filename_base
        if foreign:
            name += "-" + hashlib.sha256(" ".join(foreign).encode()).hexdigest()[:16]
        self._cache_file = NamedByKey(self._cache_path, name, self._impl.locator.get_source_stamp())

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        self._use_index_of(sig)
        try:
            return super().load_overload(sig, target_context)
        except OSError as error:
            _say_uncached(f"{self._cache_path} cannot be read ({error.strerror})")
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        self._use_index_of(sig)
        try:
            super().save_overload(sig, data)
        except OSError as error:  # a full disk, say: what was compiled works all the same
            _say_uncached(f"{self._cache_path} cannot be written ({error.strerror})")


def _say_uncached(reason: str) -> None:
    """Say it once a process: it is true of every kernel."""
    if not _said_uncached:
        _said_uncached.append(reason)
        log.warning(
            "compiled kernels are not kept on disk, so every process compiles them again, for some seconds: %s; set "
            "NUMBA_CACHE_DIR to a folder that can be written",
            reason,
        )


_said_uncached: list[str] = []


class _Compiling:
    """While anything compiles Numba's frontend remembers, and Python's collector of garbage, a sixth of the time, rests."""

    def __init__(self) -> None:
        self._lock, self._compiling, self._was_on = Lock(), 0, False

    def __enter__(self) -> None:
        with self._lock:
            if not self._compiling:
                self._was_on = gc.isenabled()
                gc.disable()
                remember()
            self._compiling += 1

    def __exit__(self, *_error: object) -> None:
        with self._lock:
            self._compiling -= 1
            if not self._compiling:
                forget()
                if self._was_on:
                    gc.enable()


_compiling = _Compiling()


def kernel(function: Callable[..., Any], *, counts: bool = True, fastmath: frozenset[str] = FASTMATH) -> Any:
    """Compile `function` without the GIL and keep the machine code on disk where a directory is writable.

    `counts` is whether it counts references to arrays, which it must to make any.
    """
    compiled = njit(nogil=True, fastmath=set(fastmath), error_model=ERROR_MODEL, _nrt=counts, no_cfunc_wrapper=True)(function)
    if config.DISABLE_JIT:
        return compiled
    compiled._compiler.compile = _remembering(compiled._compiler.compile)  # noqa: SLF001
    try:
        compiled._cache = _KernelCache(function)  # noqa: SLF001
    except RuntimeError:
        _say_uncached("neither the folder of the package nor the user's folder for caches can be written")
    return compiled


def _remembering(compile_: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(compile_)
    def compile_at_once(args: Any, return_type: Any) -> Any:
        with _compiling:
            return compile_(args, return_type)

    return compile_at_once


@cache
def cpu_target() -> str:
    """Return what machine code is made for, on which the last bits depend: a processor, and a digest of its features."""
    name, features = config.CPU_NAME or get_host_cpu_name(), config.CPU_FEATURES
    if features is None:
        features = get_host_cpu_features().flatten()
    return f"{name} {hashlib.sha256(features.encode()).hexdigest()[:12]}"


class _CompileTeller(event.Listener):
    """Says which kernel is compiled, as `messages.stage` does; what is compiled within another is a part of it."""

    def __init__(self) -> None:
        self._open: list[tuple[str, float]] = []
        self._number = 0

    def on_start(self, event: Any) -> None:
        """Say that one begins."""
        what = ""
        if not self._open:
            self._number += 1
            what = f"compiling kernel {self._number}, {event.data['dispatcher'].py_func.__name__}"
            stages.info("%s ...", what, extra={"stage": what, "seconds": None})
        self._open.append((what, time.monotonic()))

    def on_end(self, event: Any) -> None:
        """Say that it ended."""
        what, began = self._open.pop() if self._open else ("", 0.0)
        if what:
            seconds = time.monotonic() - began
            stages.info("%s: %.1f s", what, seconds, extra={"stage": what, "seconds": seconds})


class CompileClock:
    """Counts the seconds that compiling takes, and tells of it; loading from the disk cache is not compiling.

    Within another clock it is `silent`, or all would be told twice.
    """

    def __init__(self, *, silent: bool = False) -> None:
        self._listener = event.TimingListener()
        self._listeners = [self._listener, *([] if silent else [_CompileTeller()])]

    def __enter__(self) -> Self:
        for listener in self._listeners:
            event.register("numba:compile", listener)
        return self

    def __exit__(self, *_error: object) -> None:
        for listener in self._listeners:
            event.unregister("numba:compile", listener)

    @property
    def seconds(self) -> float:
        """Seconds so far."""
        return float(self._listener.duration) if self._listener.done else 0.0


def loaded_kernels() -> dict[str, int]:
    """Return the kernels that this process compiled or loaded, by module and name, and of how many signatures each."""
    return {name: len(kernel.signatures) for name, kernel in _kernels() if kernel.signatures}


def kernel_counts() -> tuple[int, int]:
    """Return how many kernels this process has compiled, and how many it has found on disk."""
    stats = [kernel.stats for _, kernel in _kernels()]
    return sum(sum(one.cache_misses.values()) for one in stats), sum(sum(one.cache_hits.values()) for one in stats)


def cache_folder() -> str:
    """Return the folder under which this package's kernels are kept; '' if nowhere."""
    paths = sorted({str(Path(kernel.stats.cache_path).parent) for _, kernel in _kernels() if kernel.stats.cache_path})
    return paths[0] if paths else ""


def _kernels() -> Iterator[tuple[str, Any]]:
    """Yield the kernels of the modules that were imported, with module and name."""
    package = f"{PACKAGE}."
    for name, module in sorted(sys.modules.items()):
        if name.startswith(package):
            for value in vars(module).values():
                if isinstance(value, CPUDispatcher) and "no_cpython_wrapper" not in value.targetoptions:
                    function = value.py_func
                    if function.__module__ == name:
                        yield f"{name.removeprefix(package)}.{function.__name__}", value


def lean_kernel(function: Callable[..., Any]) -> Any:
    """Compile a kernel that makes no array: without counting references, which takes a fifth of the time of short rows."""
    return kernel(function, counts=False)


def exact_kernel(function: Callable[..., Any]) -> Any:
    """Compile a lean kernel whose arithmetic must round as written."""
    return kernel(function, counts=False, fastmath=EXACT)


def inline(function: Callable[..., Any]) -> Any:
    """Compile a helper that kernels call: never cached on its own."""
    return _helper(function, counts=True)


def lean(function: Callable[..., Any]) -> Any:
    """Compile a helper of lean kernels, which makes no array."""
    return _helper(function, counts=False)


def _helper(function: Callable[..., Any], *, counts: bool) -> Any:
    options = {"nogil": True, "fastmath": set(FASTMATH), "error_model": ERROR_MODEL, "_nrt": counts}
    # A helper that is called by name is served by whichever kernel brought it first into the process, rounded as its compiler
    # liked: the last bit would depend on what was in the cache.
    made = njit(**options, **UNCALLED, forceinline=True)(function)
    if config.DISABLE_JIT:
        return made

    for_python = njit(**options)(function)

    def compiled_for(*_args: Any) -> Any:
        return for_python

    def add_overload(compiled: Any) -> None:
        made.overloads[tuple(compiled.signature.args)] = compiled

    # Called from Python, Numba would jump to what is not there. What it does not know of, it asks to be compiled, and that is
    # done apart: parts are checked in Python too (`testing`).
    made.add_overload, made._compile_for_args = add_overload, compiled_for  # noqa: SLF001
    return made


def dispatch(
    verb: Callable[..., Any], *, exact: bool = False, within: bool = False, fused: bool = True
) -> Callable[[Callable[..., Any]], Any]:
    """Register how `verb(part, ...)` is compiled; the decorated function maps the part's type to Python code.

    What must round as written is `exact`: compiled apart, without reassociation, and products are rounded before they are added
    unless they may be `fused` with the sum. It is put `within` who calls it wherever loops are to become vector code: left to
    itself, the compiler calls a long one, or does not, as it came by what it knows of it.
    """
    if not exact:
        return inlined(verb)
    options = {"fastmath": set(EXACT) if fused else False, "error_model": ERROR_MODEL, "_nrt": False, **UNCALLED}
    return compiled_once(verb, {**options, "forceinline": True} if within else options)
