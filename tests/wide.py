"""What the tests of categories, text and lists share: the documented hash, encodings, models of random weights."""

from typing import Any

import numpy as np
import pyarrow as pa
from sklearn.utils import murmurhash3_32

from streamsgd.compute.executors import Inline
from streamsgd.features.encoder import Encoder
from streamsgd.features.encoding import Encoding
from streamsgd.features.hashing import Hashed
from streamsgd.features.target import Target
from streamsgd.kernels.parts.losses import Squared
from streamsgd.kernels.structs.rows import OWN
from streamsgd.model.model import Model
from streamsgd.settings.make import make_settings
from streamsgd.stream.stream import Stream
from streamsgd.training.job import Job
from streamsgd.training.prepare import prepare

USUAL = {"target": "y", "executor": "inline", "memory": "2GB", "shuffle": "none", "validation": "none"}


def hash32(value: bytes, seed: int) -> int:
    """What scikit-learn's MurmurHash3 says, as 32 bits without a sign."""
    return int(murmurhash3_32(value, seed=seed, positive=True))


def slot(value: bytes, column: str, space: Hashed) -> int:
    """Where a hashed value of a column goes, as documented."""
    return space.first + (hash32(value, hash32(column.encode(), 0)) & space.mask)


def job_of(data: Any, **settings: Any) -> Job:
    """Everything that training would decide."""
    return prepare(data, make_settings({**USUAL, **settings}))


def with_y(columns: dict[str, Any]) -> pa.Table:
    """A table of some columns and a target, a ramp."""
    n = len(next(iter(columns.values())))
    return pa.table({**columns, "y": np.linspace(-1.0, 1.0, n)})


def encoding_of(columns: dict[str, Any], **settings: Any) -> Encoding:
    """How some columns would be encoded."""
    return job_of(with_y(columns), **settings).encoding


def random_model(encoding: Encoding, n_outputs: int = 1) -> Model:
    """A regression in float64 whose weights are all different, so that a score tells the coordinates it was made of."""
    weights = np.random.default_rng(11).normal(size=(encoding.n_coordinates, n_outputs))
    return Model(Squared(), encoding, Target("y", "regression"), weights)


def rows_of(encoding: Encoding, columns: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Numbers (n, width) and coordinates (n, slots) of some columns in a block of float64."""
    table = pa.table(columns)
    block, encoder = encoding.layout().allocate(table.num_rows, "float64"), Encoder(encoding)
    some = [table.column(name) for name in encoder.sources]
    encoder.scatter(some, np.arange(table.num_rows, dtype=np.int32), block)
    values = block.rows.values
    return values[:, : encoding.width], values.view(np.int64)[:, encoding.width + OWN :]


def streamed(job: Job) -> tuple[np.ndarray, np.ndarray]:
    """The same of all the rows of a job, in their order, as training would meet them."""
    width, slots = job.encoding.width, len(job.recipe.layout.by)
    numbers, ids = [np.zeros((0, width))], [np.zeros((0, slots), np.int64)]
    for filled in Stream(job.recipe, job.plan, Inline()).chunks():
        for start, stop in filled.learned_runs():
            values = filled.block.rows.values[start:stop].copy()
            numbers.append(values[:, :width].astype(np.float64))
            ids.append(values.view(np.int32 if values.itemsize == 4 else np.int64)[:, width + OWN :].astype(np.int64))
    return np.concatenate(numbers), np.concatenate(ids)
