"""Mutants of Parquet files against training, scoring and inspecting: no crash, no hang, no traceback, no loss in silence.

    python scripts/fuzz_parquet.py [--mutants 20000] [--seed 0] [--data FOLDER ...] [--seconds 60] [--only N --keep FOLDER]

Takes the files of the folders given and small ones that it writes itself with every encoding, codec and nesting of pyarrow's
writer, and changes them: bits and numbers of footers, page headers, dictionaries and pages, lengths, halves of two files. Each
mutant, alone or beside the sound file, goes through one verb in a forked worker, started again where it dies. The ends:

ok          the verb came to its end, and every row is accounted for
refused     a StreamSGDError says what is wrong and where
skipped     rows were left out under --unreadable skip, and counted
finding     all else: a signal, a hang, any other exception, a row that is in no count, more memory than the budget

Prints a table, the findings and one JSON object; exits with 1 if there is a finding. Mutant N is the same in every run with a
seed and the same data: `--only N --keep FOLDER` does it again and leaves the files there.
"""

from __future__ import annotations

import argparse
import faulthandler
import json
import os
import pickle
import re
import resource
import select
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fuzz_files
import numpy as np

import streamsgd
from streamsgd.compute.memory import own_peak
from streamsgd.data.dataset import read_dataset
from streamsgd.data.types import kind_of
from streamsgd.errors import StreamSGDError
from streamsgd.settings.make import make_settings
from streamsgd.training.run import train_model

if TYPE_CHECKING:
    from collections.abc import Iterator

BUDGET = 1 << 30
"""Bytes of memory that every verb is given."""

ADDRESS_SPACE = 8 << 30
"""Bytes beyond which the operating system refuses, so that a mutant cannot take the machine along."""

LARGEST = 256 << 10
"""Bytes of a file that is mutated."""

BATCH = 250
"""Mutants of a worker's life."""

VERBS = (
    "train",
    "train",
    "stream",
    "look",
    "skip",
    "skip",
    "skip_stream",
    "inspect",
    "predict",
    "predict",
    "evaluate",
    "filter",
)
"""What may be done with a mutant; some twice as often."""


@dataclass
class Seed:
    """A sound file, how to train on it, and what that gave."""

    name: str
    data: bytes
    rows: int
    settings: dict[str, Any]
    model: bytes
    spots: dict[str, list[tuple[int, int]]]


def settings_of(path: Path) -> dict[str, Any] | None:
    """Return settings that train on a file, with as many columns of as many kinds as can be; None where there are too few."""
    dataset = read_dataset(path)
    usable = [
        field.name for field in dataset.schema if kind_of(field.type) is not None and field.name not in dataset.duplicates
    ]
    numbers = [name for name in usable if kind_of(dataset.schema.field(name).type) == "number"]
    texts = [name for name in usable if kind_of(dataset.schema.field(name).type) == "category"]
    if not numbers or len(usable) < 2:
        return None
    target = "y" if "y" in numbers else numbers[-1]
    settings = {"target": target, "task": "regression", "features": [name for name in usable if name != target]}
    settings |= {"categorical": ["ints"]} if "ints" in usable else {}
    settings |= {"text": texts[-1:] if len(texts) > 1 else [], "epochs": 1, "executor": "inline", "bad_rows": "skip"}
    return settings | {"infinite": "missing", "memory": str(BUDGET), "threads": 1, "penalty": "none", "schedule": "constant"}


def seed_of(path: Path) -> Seed | None:
    """Return a seed, or None for a file that cannot be trained on."""
    try:
        settings = settings_of(path)
        if settings is None:
            return None
        model, _ = train_model(str(path), make_settings(settings))
    except StreamSGDError:
        return None
    data = path.read_bytes()
    return Seed(path.name, data, int(model.provenance["rows"]), settings, model.to_bytes(), fuzz_files.spots_of(data))


def seeds(folders: list[Path], scratch: Path) -> list[Seed]:
    """Return the seeds of the folders, and our own, which are there as often as those are."""
    own_folder = scratch / "own"
    own_folder.mkdir()
    fuzz_files.write_all(own_folder)
    files = [path for folder in folders for path in sorted(folder.rglob("*.parquet")) if path.stat().st_size <= LARGEST]
    given = [seed for path in files if (seed := seed_of(path)) is not None]
    own = [seed for path in sorted(own_folder.glob("*.parquet")) if (seed := seed_of(path)) is not None]
    return given + own * max(1, len(given) // max(1, len(own)))


def write_mutant(number: int, seed: int, pool: list[Seed], folder: Path) -> tuple[Seed, str, str]:
    """Write mutant `number` into an empty folder; return what it was made of, how, and the verb that it is for."""
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, number])))
    sound = pool[int(rng.integers(len(pool)))]
    other = pool[int(rng.integers(len(pool)))]
    how, data = fuzz_files.mutate(sound.data, sound.spots, other.data, rng)
    verb = VERBS[int(rng.integers(len(VERBS)))]
    folder.mkdir()
    (folder / "1.parquet").write_bytes(data)
    if rng.random() < 0.3:
        (folder / f"{rng.integers(0, 3)}.parquet").write_bytes(sound.data)
    return sound, how, verb


def try_verb(verb: str, sound: Seed, data: Path, scratch: Path) -> str:
    """Do one thing with the data; return how it ended."""
    settings = dict(sound.settings)
    if verb == "inspect":
        streamsgd.inspect(str(data), target=settings["target"])
        return "ok"
    if verb in ("predict", "evaluate"):
        model = scratch / "seed.sgd"
        model.write_bytes(sound.model)
        common: dict[str, Any] = {"memory": settings["memory"], "threads": 1, "executor": "inline"}
        if verb == "evaluate":
            streamsgd.evaluate(model, str(data), **common)
            return "ok"
        out = scratch / "out"
        scored = streamsgd.predict(model, str(data), str(out), **common)
        expected = read_dataset(str(data)).n_rows
        return "ok" if scored.rows == expected else f"finding: {scored.rows} rows were scored of {expected}"
    settings |= {"unreadable": "skip"} if "skip" in verb else {}
    settings |= {"chunk_rows": max(7, sound.rows // 13)} if "stream" in verb else {}
    settings |= {"filter": f"`{settings['target']}` > 0"} if verb == "filter" else {}
    if verb == "look":
        streamsgd.plan(str(data), **settings)
        return "ok"
    model, _ = train_model(str(data), make_settings(settings))
    return accounted(model.provenance, verb)


def accounted(counts: dict[str, Any], verb: str) -> str:
    """Return whether every row is in one count of a model's provenance."""
    lost = int(counts["counts"]["skipped"])
    total = int(counts["rows_learned"]) + sum(int(counts["counts"][name]) for name in ("skipped", "filtered", "held", "lost"))
    if total != int(counts["rows"]):
        return f"finding: {total} rows are accounted for of {counts['rows']}"
    return "skipped" if lost and "skip" in verb else "ok"


def attempt(number: int, seed: int, pool: list[Seed], scratch: Path) -> tuple[str, str]:
    """Make one mutant and use it; return how it ended, and the details of a finding."""
    folder = scratch / "mutant"
    sound, how, verb = write_mutant(number, seed, pool, folder)
    about = f"{sound.name}, {how}, {verb}"
    try:
        end = try_verb(verb, sound, folder, scratch)
    except StreamSGDError as error:
        end = f"refused: {error}" if str(error) else "finding: refused without a word"
    except Exception as error:  # noqa: BLE001  every exception is a finding
        where = traceback.extract_tb(error.__traceback__)
        ours = [frame for frame in where if "/streamsgd/" in frame.filename] or list(where)
        end = f"finding: {type(error).__name__} in {Path(ours[-1].filename).name}:{ours[-1].lineno}: {str(error)[:200]}"
    if not end.startswith("finding") and own_peak() > BUDGET:
        end = f"finding: {own_peak() / 1e6:.0f} MB were taken of {BUDGET / 1e6:.0f} MB"
    for left in scratch.iterdir():
        shutil.rmtree(left) if left.is_dir() else left.unlink()
    return end, about


def work(numbers: list[int], seed: int, pool: list[Seed], scratch: Path, pipe: int) -> None:
    """Try mutants one after another, in a process of its own, and say so before and after each."""
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: PTH123, SIM115  until the process ends
    faulthandler.enable(open(scratch.parent / "faults", "w"))  # noqa: PTH123, SIM115
    with os.fdopen(pipe, "wb", buffering=0) as out:
        for number in numbers:
            out.write(json.dumps([number]).encode() + b"\n")
            end, about = attempt(number, seed, pool, scratch)
            out.write(json.dumps([number, end, about]).encode() + b"\n")
            if "MB were taken" in end:  # the peak stays: a new process for the next
                break
    os._exit(0)


def batch(numbers: list[int], seed: int, pool: list[Seed], folder: Path, seconds: float) -> Iterator[tuple[int, str, str]]:
    """Yield number, end and details of every mutant, in workers that are started again where one dies."""
    left = list(numbers)
    while left:
        scratch = folder / "worker"
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir()
        receive, send = os.pipe()
        child = os.fork()
        if not child:
            os.close(receive)
            work(left, seed, pool, scratch, send)
        os.close(send)
        for number, end, about in heard(receive, child, seconds, folder / "faults"):
            left.remove(number)
            yield number, end, about
        os.close(receive)


def heard(receive: int, child: int, seconds: float, faults: Path) -> Iterator[tuple[int, str, str]]:
    """Yield what a worker says until it ends, and its end if that was none of its own."""
    waiting, current, hung = b"", None, False
    while True:
        ready, _, _ = select.select([receive], [], [], seconds)
        if not ready:
            hung = True
            os.kill(child, signal.SIGKILL)
        got = os.read(receive, 1 << 16)
        if not got:
            break
        *lines, waiting = (waiting + got).split(b"\n")
        for line in lines:
            number, *rest = json.loads(line)
            current = number if not rest else None
            if rest:
                yield number, rest[0], rest[1]
    status = os.waitpid(child, 0)[1]
    if current is not None:
        how = f"hangs for {seconds:.0f} s" if hung else f"dies of signal {status & 127}, status {status >> 8}"
        frames = [line.strip() for line in faults.read_text().splitlines() if "File" in line][:2] if faults.exists() else []
        yield current, f"finding: {how}; {'; '.join(frames)}", ""


def kind_of_finding(end: str) -> str:
    """Return what findings of one cause have in common."""
    return re.sub(r"\d+", "N", end)[:140]


def main() -> int:
    """Try every mutant and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mutants", type=int, default=20_000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data", type=Path, nargs="*", default=[])
    parser.add_argument("--seconds", type=float, default=60.0, help="after which a mutant hangs")
    parser.add_argument("--pool", type=Path, help="where seeds and their models are kept from run to run")
    parser.add_argument("--only", type=int)
    parser.add_argument("--keep", type=Path)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pool = load_pool(arguments.pool, arguments.data, folder)
        if arguments.only is not None:
            return once(arguments, pool)
        return many(arguments, pool, folder)


def load_pool(kept: Path | None, data: list[Path], folder: Path) -> list[Seed]:
    """Return the seeds, from a file if there is one."""
    if kept is not None and kept.exists():
        found: list[Seed] = pickle.loads(kept.read_bytes())
        return found
    found = seeds(data, folder)
    if kept is not None:
        kept.write_bytes(pickle.dumps(found))
    return found


def once(arguments: argparse.Namespace, pool: list[Seed]) -> int:
    """Do one mutant again, here, and let its exception out."""
    scratch = arguments.keep or Path(tempfile.mkdtemp())
    scratch.mkdir(exist_ok=True)
    sound, how, verb = write_mutant(arguments.only, arguments.seed, pool, scratch / "mutant")
    (scratch / "sound.parquet").write_bytes(sound.data)
    print(f"{sound.name}, {how}, {verb}, in {scratch}", flush=True)
    faulthandler.enable()
    print(try_verb(verb, sound, scratch / "mutant", scratch))
    return 0


def many(arguments: argparse.Namespace, pool: list[Seed], folder: Path) -> int:
    """Try all mutants; print how they ended."""
    began, ends, findings = time.perf_counter(), Counter(), []
    refusals: Counter[str] = Counter()
    numbers = list(range(arguments.first, arguments.first + arguments.mutants))
    for start in range(0, len(numbers), BATCH):
        for number, end, about in batch(numbers[start : start + BATCH], arguments.seed, pool, folder, arguments.seconds):
            ends[end.partition(":")[0]] += 1
            if end.startswith("refused"):
                refusals[kind_of_finding(re.sub(r"'[^']*'|[^ ]*parquet", "_", end))] += 1
            if end.startswith("finding"):
                findings.append({"mutant": number, "end": end, "about": about})
                print(f"  {number}: {end} ({about})", flush=True)
    seconds = time.perf_counter() - began
    print(f"{len(numbers):,} mutants of {len({seed.name for seed in pool})} files in {seconds:.0f} s: {dict(ends)}")
    for kind, count in Counter(kind_of_finding(finding["end"]) for finding in findings).most_common():
        print(f"  {count:6,}  {kind}")
    print("refusals, each as often as it came:")
    for kind, count in refusals.most_common(25):
        print(f"  {count:6,}  {kind}")
    print(json.dumps({"mutants": len(numbers), "seconds": seconds, "ends": ends, "findings": findings}))
    return int(bool(findings))


if __name__ == "__main__":
    sys.exit(main())
