"""What `doctor` finds: whether this machine, its libraries and its storage are fit to train on."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from streamsgd.compute.context import cpu_quota, versions
from streamsgd.compute.memory import cgroup_limits, machine_memory, parse_limit
from streamsgd.data.stores.files import open_source
from streamsgd.errors import StreamSGDError
from streamsgd.messages import counted, format_bytes
from streamsgd.redact import redact
from streamsgd.settings.scope import PREFIX
from streamsgd.version import __version__

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

NEEDED = ("dask", "distributed", "msgspec", "safetensors", "fsspec", "click", "rich", "psutil")

EXTRAS = {
    "s3": "s3fs",
    "delta": "deltalake",
    "iceberg": "pyiceberg",
    "onnx": "onnx",
    "sklearn": "sklearn",
    "mlflow": "mlflow",
    "tensorboard": "tensorboard",
    "optuna": "optuna",
    "report": "jinja2",
}
"""What each extra of `pyproject.toml` lets one import."""

OTHERS = ("gcsfs", "pandas", "polars", "duckdb")
"""What else is used where it is there."""

LEAST_MEMORY = 500 * 10**6
"""Bytes below which no job of any size fits."""

LEAST_DISK = 10**9
"""Free bytes below which a shuffle on disk will hardly fit."""


def examine(places: Sequence[str] = ()) -> dict[str, Any]:
    """Return what this machine has, and what is wrong with it, as plain JSON values.

    Parameters
    ----------
    places
        Paths or URLs of data, each of which is listed.

    """
    found: dict[str, Any] = {
        "versions": {"streamsgd": __version__, **versions(), **_installed(NEEDED)},
        "optional": _importable([*EXTRAS.values(), *OTHERS]),
        "processors": {"machine": os.cpu_count(), "usable": cpu_quota()},
        "memory": {
            "usable": machine_memory(),
            "default_limit": parse_limit(None),
            "cgroup_limits": sorted(set(cgroup_limits())),
        },
        "kernels": _kernels(),
        "temporary": _disk(Path(tempfile.gettempdir())),
        "variables": {name: redact(text) for name, text in sorted(os.environ.items()) if name.startswith(PREFIX)},
        "places": [_listed(place) for place in places],
    }
    return found | {"problems": list(_problems(found))}


def _installed(names: Iterable[str]) -> dict[str, str | None]:
    return {name: _version(name) for name in names}


def _importable(modules: Iterable[str]) -> dict[str, str | None]:
    """Return the versions of what can be imported, from whichever distribution: `mlflow` is in `mlflow-skinny` too."""
    providers = metadata.packages_distributions()
    return {name: _version(providers.get(name, [name])[0]) or "of no version" if _has(name) else None for name in modules}


def _has(module: str) -> bool:
    """Whether a module can be imported; a mere folder of its name is none."""
    try:
        spec = find_spec(module)
    except ValueError:
        return False
    return spec is not None and spec.origin is not None


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _kernels() -> dict[str, Any]:
    """Return where compiled kernels are kept, and how many there are."""
    set_to = os.environ.get("NUMBA_CACHE_DIR")
    folder = Path(set_to) if set_to else Path(str(find_spec("streamsgd.kernels").submodule_search_locations[0]))  # type: ignore[union-attr, index]
    above = next(place for place in (folder.absolute(), *folder.absolute().parents) if place.exists())
    files = [path for path in folder.rglob("*.nbc") if path.is_file()]
    sizes = sum(path.stat().st_size for path in files)
    return {"folder": str(folder), "writable": os.access(above, os.W_OK), "compiled": len(files), "bytes": sizes}


def _disk(folder: Path) -> dict[str, Any]:
    return {"folder": str(folder), "writable": os.access(folder, os.W_OK), "free_bytes": shutil.disk_usage(folder).free}


def _listed(place: str) -> dict[str, Any]:
    """Return what a listing of data finds, and how long it takes."""
    began = time.monotonic()
    try:
        files = open_source(place).files
    except (StreamSGDError, ImportError) as error:
        return {"place": redact(place), "problem": redact(str(error)), "seconds": time.monotonic() - began}
    total = sum(ref.size for ref in files)
    return {"place": redact(place), "files": len(files), "bytes": total, "seconds": time.monotonic() - began, "problem": None}


def _problems(found: dict[str, Any]) -> Iterable[str]:
    """Yield what is wrong, and how to mend it."""
    for name, version in found["versions"].items():
        if version is None:
            yield f"{name} is not installed: install streamsgd again"
    if found["memory"]["usable"] < LEAST_MEMORY:
        usable = format_bytes(found["memory"]["usable"])
        yield f"{usable} of memory hold no job: allow this container at least {format_bytes(LEAST_MEMORY)}"
    if not found["kernels"]["writable"]:
        yield (
            f"compiled kernels cannot be kept in {found['kernels']['folder']}, so that every process compiles them again, for "
            "some seconds: set NUMBA_CACHE_DIR to a folder that can be written"
        )
    if not found["temporary"]["writable"]:
        yield f"{found['temporary']['folder']} cannot be written: set TMPDIR"
    elif found["temporary"]["free_bytes"] < LEAST_DISK:
        free = format_bytes(found["temporary"]["free_bytes"])
        yield f"{free} are free in {found['temporary']['folder']}: shuffles on disk need --cache-dir with more room"
    for place in found["places"]:
        if place["problem"]:
            yield place["problem"]


def machine_text(found: dict[str, Any]) -> list[str]:
    """Return the lines of `doctor`."""
    memory, kernels, disk, cores = (found[key] for key in ("memory", "kernels", "temporary", "processors"))
    usual, code = format_bytes(memory["default_limit"]), format_bytes(kernels["bytes"])
    there = {name: version for name, version in found["optional"].items() if version}
    extra_of = {module: f" (extra {extra})" for extra, module in EXTRAS.items()}
    missing = [f"{name}{extra_of.get(name, '')}" for name, version in found["optional"].items() if not version]
    return [
        *_listing("versions", found["versions"]),
        *_listing("optional", there),
        f"{'':11} not installed: {', '.join(missing)}" if missing else f"{'':11} all installed",
        f"processors  {counted(cores['usable'], 'processor')} may be used of {cores['machine']}",
        f"memory      {format_bytes(memory['usable'])} may be used, {usual} unless --memory says otherwise",
        f"kernels     {counted(kernels['compiled'], 'compiled kernel')}, {code}, in {kernels['folder']}",
        f"temporary   {format_bytes(disk['free_bytes'])} free in {disk['folder']}",
        *_listing("variables", found["variables"]),
        *(f"data        {_place_text(place)}" for place in found["places"]),
        *(
            []
            if found["places"]
            else ["data        no place was named: streamsgd doctor s3://bucket/data/ lists it and times that"]
        ),
        "",
        *(f"problem: {problem}" for problem in found["problems"]),
        *([] if found["problems"] else ["no problem found"]),
    ]


def _listing(title: str, values: dict[str, Any]) -> list[str]:
    return [f"{title if not k else '':11} {name} {value}" for k, (name, value) in enumerate(values.items())]


def _place_text(place: dict[str, Any]) -> str:
    if place["problem"]:
        return f"{place['place']}: cannot be read"
    sizes = f"{counted(place['files'], 'file')}, {format_bytes(place['bytes'])}"
    return f"{place['place']}: {sizes}, listed in {place['seconds']:.2f} s"


def warmed_text(found: dict[str, Any]) -> list[str]:
    """Return the lines of `warmup`."""
    where = (
        f"kept in {found['folder']}" if found["folder"] else "kept nowhere: set NUMBA_CACHE_DIR to a folder that can be written"
    )
    who = f" by {counted(found['workers'], 'worker')}" if found["workers"] else ""
    return [
        f"kernels   {found['compiled']} compiled{who} in {found['seconds']:.1f} s, {found['known']} were there",
        f"          {where}",
        f"for       {found['cpu']}",
        *_listing("runs", dict.fromkeys(found["runs"], "")),
    ]
