"""Make a Parquet data set of any number of rows whose target follows a known linear model.

    python datasets/synthetic.py OUT_DIR --rows 8000000

Memory is that of one row group. Its random numbers are addressed by SeedSequence([seed, file, row_group]), so
any file can be made alone (`--only 2`).

A column's value is offset + scale * latent, rounded to its type (the latents of booleans and heavy tails
carry no signal). The label y is the quantile function of a rank u in (0, 1): uniform, or with
--sort-by-label (row + uniform) / rows, so that labels ascend over the whole data set. Then the latents z are
drawn given y: sorted and unsorted rows follow one model. --noise divides its weights v, but for regression:

    binary       z | y ~ N((y - 1/2) v, I), so P(y = 1 | z) = sigmoid(log(p1 / p0) + v.z) exactly
    multiclass   z | k ~ N(v_k, I), so P(k | z) = softmax_k(log p_k - |v_k|^2 / 2 + v_k.z) exactly
    regression   (z, y) jointly Gaussian, y = c + v.z + noise e; z given y by Matheron's rule, exactly
    poisson      y ~ Poisson(exp(c + |v| g)), g = v.z / |v| ~ N(0, 1); g given y on a grid of step 1/128

--encoding dictionary writes columns as most writers do unless told otherwise, plain without a dictionary.
`truth` gives the model in the units of the columns. Nulls hide, at random, a value that the label saw.
"""

import argparse
import functools
import math
from dataclasses import MISSING, dataclass, fields, replace
from pathlib import Path
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

Floats = NDArray[np.float64]
SIGNAL = {"binary": 2.0, "multiclass": 2.0, "regression": 2.0, "poisson": 0.5}  # |v| at noise 1
LEAST_NOISE = {"binary": 0.01, "multiclass": 0.01, "regression": 0.0, "poisson": 0.5}
COMPRESSIONS = ("snappy", "zstd", "gzip", "lz4", "brotli", "none")
ENCODINGS = ("plain", "dictionary")
CHOICES = {"kind": ("dense", "mixed"), "task": tuple(SIGNAL), "compression": COMPRESSIONS, "encoding": ENCODINGS}


class Column(NamedTuple):
    """What a column is: value = offset + scale * latent; a scale of 0 says that it carries no signal."""

    kind: str
    type: pa.DataType
    offset: float = 0.0
    scale: float = 1.0
    least_null_fraction: float = 0.0


DAY = 86_400_000_000  # microseconds
MIXED = (
    Column("float32", pa.float32()),
    Column("float64", pa.float64(), -3.0, 0.01),
    Column("int32", pa.int32(), 1_000, 250),
    Column("int64", pa.int64(), 5_000_000_000, 1_000_000, least_null_fraction=0.1),
    Column("bool", pa.bool_(), scale=0.0),
    Column("date", pa.date32(), 18_262, 365),  # days, around 2020-01-01
    Column("timestamp", pa.timestamp("us"), 18_262 * DAY, 30 * DAY),
    Column("decimal", pa.decimal128(12, 2), 50, 20),
    Column("tail", pa.float64(), scale=0.0),  # log-normal with sigma = 2
)


@dataclass(frozen=True, slots=True)
class Settings:
    """What the rows are a pure function of: the options of the command line."""

    rows: int
    columns: int = 28
    files: int = 4
    row_group_rows: int = 250_000
    kind: str = "dense"
    task: str = "binary"
    classes: int = 3
    seed: int = 0
    sort_by_label: bool = False
    null_fraction: float = 0.0
    noise: float = 1.0
    compression: str = "snappy"
    encoding: str = "plain"
    id: bool = False


class Truth(NamedTuple):
    """The linear model behind the target: score = intercept + weights @ values, in the units of the columns.

    `names` has n_columns entries, `weights` (n_scores, n_columns), `intercept` (n_scores,): a score per class
    for multiclass, else one. Dates count days and timestamps microseconds since 1970-01-01.
    """

    names: list[str]
    weights: Floats
    intercept: Floats


def check(settings: Settings) -> None:
    """Refuse settings that make no data set, naming the option."""
    demands = {
        "--files must be at least 1 and at most --rows": settings.rows >= settings.files >= 1,
        "--columns must be at least 1, --classes 2": settings.columns >= 1 and settings.classes >= 2,
        "--row-group-rows must be at least 1": settings.row_group_rows >= 1,
        "--seed must be in 0 .. 4294967295": 0 <= settings.seed < 2**32,
        "--null-fraction must be in [0, 1)": 0 <= settings.null_fraction < 1,
        f"--noise must reach {LEAST_NOISE}": LEAST_NOISE[settings.task] <= settings.noise < math.inf,
    }
    for demand in (demand for demand, held in demands.items() if not held):
        raise SystemExit(f"{demand}; got {settings}")


def layout(settings: Settings) -> dict[str, Column]:
    """Return the n_columns columns by name: x00, x01 ... and for mixed x00_float32, x01_float64 ..."""
    cycle = MIXED if settings.kind == "mixed" else (Column("", pa.float32()),)
    columns = [cycle[j % len(cycle)] for j in range(settings.columns)]
    digits = max(2, len(str(settings.columns - 1)))
    return {f"x{j:0{digits}d}_{c.kind}".rstrip("_"): c for j, c in enumerate(columns)}


def shares(settings: Settings) -> Floats:
    """Return the probability of each class: 0.6, 0.4 for binary."""
    n_classes = 2 if settings.task == "binary" else settings.classes
    return np.linspace(1.2, 0.8, n_classes) / n_classes


def latent_truth(settings: Settings) -> tuple[Floats, Floats]:
    """Return v (n_scores, n_columns) and the intercept (n_scores,) over the latents."""
    n_scores = settings.classes if settings.task == "multiclass" else 1
    rng = np.random.default_rng(np.random.SeedSequence(settings.seed, spawn_key=(0,)))
    v = rng.standard_normal((n_scores, settings.columns))
    v *= [column.scale != 0 for column in layout(settings).values()]
    v *= SIGNAL[settings.task] / np.linalg.norm(v, axis=1, keepdims=True)
    if settings.task != "regression":
        v /= settings.noise
    if settings.task == "multiclass":
        return v, np.log(shares(settings)) - (v**2).sum(axis=1) / 2
    return v, np.diff(np.log(shares(settings))) if settings.task == "binary" else np.array([0.5])


def truth(settings: Settings) -> Truth:
    """Return the linear model behind the target, a pure function of the settings."""
    v, intercept = latent_truth(settings)
    columns = layout(settings).values()
    weights = v / [column.scale or math.inf for column in columns]
    return Truth([*layout(settings)], weights, intercept - weights @ [column.offset for column in columns])


@functools.lru_cache(maxsize=1)
def poisson_table(intercept: float, norm: float) -> tuple[Floats, Floats, Floats]:
    """Tabulate counts whose log-rate is intercept + norm * g, with g ~ N(0, 1).

    Returns the edges of the cells of g (n_cells + 1,), the probability of each count (n_counts,), and the
    distribution function of g at the edges given each count (n_counts, n_cells + 1).
    """
    edges = np.linspace(-6.0, 6.0, 1537)
    middle = (edges[1:] + edges[:-1]) / 2
    log_rate = intercept + norm * middle
    largest = math.exp(log_rate[-1])
    counts = np.arange(int(largest + 12 * math.sqrt(largest)) + 20)[:, None]
    log_factorial = np.cumsum(np.log(np.maximum(counts, 1)), axis=0)
    joint = np.exp(counts * log_rate - np.exp(log_rate) - log_factorial - middle**2 / 2)
    cumulative = np.pad(joint.cumsum(axis=1), ((0, 0), (1, 0)))
    return edges, cumulative[:, -1] / joint.sum(), cumulative / cumulative[:, -1:]


def labels(settings: Settings, rank: Floats) -> NDArray[np.generic]:
    """Return the quantiles (n_rows,) of the target's distribution at `rank` (n_rows,)."""
    v, intercept = latent_truth(settings)
    if settings.task == "regression":
        law = NormalDist(intercept[0], math.hypot(*v[0], settings.noise))
        return np.fromiter(map(law.inv_cdf, rank), np.float64, len(rank))
    chances = shares(settings)
    if settings.task == "poisson":
        chances = poisson_table(intercept[0], math.hypot(*v[0]))[1]
    return np.searchsorted(chances.cumsum()[:-1], rank, side="right").astype(np.int32)


def displacement(settings: Settings, latents: NDArray[np.float32], y: NDArray[np.generic], rng: np.random.Generator) -> Floats:
    """Return how far (n_rows,) along v the latents (n_columns, n_rows) drawn from N(0, I) go to fit `y`."""
    if settings.task == "binary":
        return y - 0.5
    v, intercept = latent_truth(settings)
    norm = math.hypot(*v[0])
    # One column after the other: a matrix product's last bits depend on the threads of the BLAS.
    projection = sum(v[0, j] * latent for j, latent in enumerate(latents))
    if settings.task == "regression":
        drawn = intercept[0] + projection + settings.noise * rng.standard_normal(len(y))
        return (y - drawn) / (norm**2 + settings.noise**2)
    edges, _, cumulative = poisson_table(intercept[0], norm)
    g = rng.random(len(y))
    for count in np.unique(y):
        rows = y == count
        g[rows] = np.interp(g[rows], cumulative[count], edges)
    return (g - projection / norm) / norm


def encode(column: Column, latent: NDArray[np.float32]) -> pa.Array:
    """Return the values (n_rows,) of a column in its type."""
    if column.kind == "bool":
        return pa.array(latent > 0)
    if column.kind == "tail":
        return pa.array(np.exp(2.0 * latent.astype(np.float64)))
    if column.type == pa.float32():
        return pa.array(latent)
    values = column.offset + column.scale * latent.astype(np.float64)
    if column.kind == "decimal":
        cents = np.rint(100 * values).astype(np.int64)
        words = np.stack([cents, cents >> 63], axis=1)  # a 128-bit integer, low word first
        return pa.Array.from_buffers(column.type, len(cents), [None, pa.py_buffer(words)])
    if column.kind != "float64":
        values = np.rint(values).astype(f"int{column.type.bit_width}")
    return pa.array(values).cast(column.type)


def file_rows(settings: Settings, file: int) -> tuple[int, int]:
    """Return the first and past-the-last row of a file, counted over the whole data set."""
    return settings.rows * file // settings.files, settings.rows * (file + 1) // settings.files


def make_row_group(settings: Settings, file: int, index: int) -> pa.Table:
    """Return the rows of one row group, a pure function of its arguments."""
    first, stop = file_rows(settings, file)
    start = first + index * settings.row_group_rows
    stop = min(start + settings.row_group_rows, stop)
    rng = np.random.default_rng(np.random.SeedSequence([settings.seed, file, index]))
    rank = rng.random(stop - start)
    if settings.sort_by_label:
        rank = (np.arange(start, stop) + rank) / settings.rows
    y = labels(settings, np.clip(rank, 2.0**-60, 1 - 2.0**-53))
    latents = rng.standard_normal((settings.columns, stop - start), dtype=np.float32)
    v, _ = latent_truth(settings)
    shift = displacement(settings, latents, y, rng) if len(v) == 1 else None
    arrays = ({"id": pa.array(np.arange(start, stop))} if settings.id else {}) | {"y": pa.array(y)}
    for j, (name, column) in enumerate(layout(settings).items()):
        latents[j] += v[y, j] if shift is None else v[0, j] * shift
        values = encode(column, latents[j])
        fraction = max(settings.null_fraction, column.least_null_fraction)
        if fraction:
            seen = pa.array(rng.random(len(y)) >= fraction)
            values = pc.if_else(seen, values, pa.scalar(None, column.type))
        arrays[name] = values
    return pa.table(arrays)


def write_file(settings: Settings, path: Path, file: int) -> None:
    """Make one file of the data set, row group by row group."""
    first, stop = file_rows(settings, file)
    temporary = path.with_name(f".{path.name}.tmp")
    schema = make_row_group(replace(settings, rows=settings.files), 0, 0).schema
    # A dictionary of continuous numbers only costs space and time, but is what writers make unless told otherwise.
    options = {"compression": settings.compression, "use_dictionary": ["y"] if settings.encoding == "plain" else True}
    try:
        with pq.ParquetWriter(temporary, schema, **options) as writer:
            for index in range(math.ceil((stop - first) / settings.row_group_rows)):
                writer.write_table(make_row_group(settings, file, index), settings.row_group_rows)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write(settings: Settings, folder: Path, only: int | None = None) -> list[Path]:
    """Make all files of the data set, or `only` one of them, in `folder`, and return their paths."""
    check(settings)
    paths = [folder / f"part-{file:05d}.parquet" for file in range(settings.files)]
    if only is not None and only not in range(settings.files):
        raise SystemExit(f"--only must be a file of this data set, 0 .. {settings.files - 1}; got {only}")
    folder.mkdir(parents=True, exist_ok=True)
    stale = set(folder.glob("*.parquet")) - set(paths)
    if stale:
        raise SystemExit(f"{min(stale)} is not of this data set: remove it or choose another folder")
    for file in range(settings.files) if only is None else [only]:
        write_file(settings, paths[file], file)
    return paths if only is None else [paths[only]]


def main() -> None:
    """Make the data set that the command line asks for; print its files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="OUT_DIR")
    parser.add_argument("--only", type=int, metavar="FILE", help="make only this file, counted from 0")
    for field in fields(Settings):
        kind = {"action": "store_true"} if field.type is bool else {"type": field.type}
        if field.name in CHOICES:
            kind["choices"] = CHOICES[field.name]
        flag = f"--{field.name.replace('_', '-')}"
        parser.add_argument(flag, default=field.default, required=field.default is MISSING, **kind)
    arguments = vars(parser.parse_args())
    folder, only = arguments.pop("folder"), arguments.pop("only")
    try:
        paths = write(Settings(**arguments), folder, only)
    except OSError as error:
        raise SystemExit(f"cannot write to {folder}: {error}") from None
    for path in paths:
        print(f"{path}: {pq.read_metadata(path).num_rows} rows, {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
