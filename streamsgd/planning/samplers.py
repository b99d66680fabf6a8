"""Samplers: in which order units of reading are visited, and whether a chunk's rows are mixed.

A sampler is a NamedTuple with

order(sampler, n_units, seeds)   int64 permutation of 0 .. n_units-1 for one epoch
mixes_rows                       whether the rows of each chunk are permuted (uniformly) as well
side_by_side                     whether units larger than a chunk are streamed two at a time, after the others, so
                                 that a chunk mixes more than neighbours; else one slice after another, in place

rewrites                         whether the rows are shuffled on disk first, and these are read (not there: no)

and, if rows of a chunk are drawn with replacement, as often as there are rows, `replaces`; the data is then one chunk;
`strata`, with `share` and `batch`, if batches have fixed shares of two classes.

Order is a pure function of its arguments. Cost: 8 bytes and about 30 ns per unit and epoch.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple, Self

if TYPE_CHECKING:
    import numpy as np


class Corgi(NamedTuple):
    """Permute the units, take a chunk of them at a time, permute all the rows of the chunk.

    Bias: rows of different chunks never share a batch. With n of M units in a chunk the batch mean has the variance
    V + (1/b - 1/B) B/(B-1) (sigma^2 - V), V = (1 - n/M) S^2/n, S^2 the variance of unit means, B the rows of a chunk.
    """

    mixes_rows = True
    side_by_side = True
    source = "CorgiPile: Xu et al., SIGMOD 2022, arXiv 2206.05830"

    def order(self, n_units: int, seeds: np.random.SeedSequence) -> np.ndarray:
        """Return a uniform permutation."""
        import numpy as np  # noqa: PLC0415  a sixth of a second that listing the parts must not pay

        return np.random.Generator(np.random.PCG64(seeds)).permutation(n_units)


class External(NamedTuple):
    """Shuffle all rows on local disk once, then read these as corgi does: any row may meet any other, whatever the memory."""

    mixes_rows = True
    side_by_side = True
    rewrites = True
    source = "two passes by hashed keys: bucket sort on disk, as of Aggarwal and Vitter, CACM 1988"

    def order(self, n_units: int, seeds: np.random.SeedSequence) -> np.ndarray:
        """Return a uniform permutation."""
        return Corgi.order(self, n_units, seeds)  # type: ignore[arg-type]


class Block(NamedTuple):
    """Permute the units, keep the order of the rows in each: what a loop over shuffled row groups does."""

    mixes_rows = False
    side_by_side = True
    source = "no-shuffle within blocks, as in arXiv 2206.05830 section 3"

    def order(self, n_units: int, seeds: np.random.SeedSequence) -> np.ndarray:
        """Return a uniform permutation."""
        import numpy as np  # noqa: PLC0415  a sixth of a second that listing the parts must not pay

        return np.random.Generator(np.random.PCG64(seeds)).permutation(n_units)


class FullChunk(NamedTuple):
    """Keep the order of the units, permute all the rows of each chunk: what a shuffle buffer does."""

    mixes_rows = True
    side_by_side = False
    source = "shuffle buffer, e.g. tf.data.Dataset.shuffle"

    def order(self, n_units: int, seeds: np.random.SeedSequence) -> np.ndarray:  # noqa: ARG002
        """Return the order of the data."""
        import numpy as np  # noqa: PLC0415

        return np.arange(n_units)


class Independent(NamedTuple):
    """Draw every row of a batch anew from all rows, with replacement: for checks against theory.

    In an epoch there are as many draws as rows; a row may come several times or never. All rows must fit in one chunk.
    """

    mixes_rows = True
    side_by_side = False
    replaces = True
    source = "Robbins and Monro 1951"

    def order(self, n_units: int, seeds: np.random.SeedSequence) -> np.ndarray:  # noqa: ARG002
        """Return the order of the data."""
        import numpy as np  # noqa: PLC0415

        return np.arange(n_units)


class Share(float):
    """A share, or `neyman`: not a number until it was measured."""

    __slots__ = ()

    def __new__(cls, given: Any) -> Self:  # noqa: D102
        share = super().__new__(cls, math.nan if given == "neyman" else given)
        if math.isnan(share) and given != "neyman":
            raise ValueError(f"{given} is no share")
        return share

    def __repr__(self) -> str:
        return "neyman" if math.isnan(self) else super().__repr__()


class Stratified(NamedTuple):
    """Batches with a fixed share of positives, weighted so that gradients stay what they are on average; else as corgi.

    Variance of a batch's mean gradient: sum over classes of pi_c^2 S_c^2 / b_c, pi_c the share of the class in the chunk, b_c
    its rows in the batch. With `share=neyman` b_c is in proportion to pi_c S_c, measured on the first chunk.
    """

    share: Share = Share(0.5)
    batch: int = 0
    """Rows of a batch; 0 for those of --batch-size."""

    mixes_rows = True
    side_by_side = True
    strata = True
    source = "stratified sampling: Neyman 1934, JRSS 97; Cochran 1977, Sampling Techniques, chapter 5"

    def order(self, n_units: int, seeds: np.random.SeedSequence) -> np.ndarray:
        """Return a uniform permutation."""
        return Corgi.order(self, n_units, seeds)  # type: ignore[arg-type]


class Sequential(NamedTuple):
    """Visit every row in the order of the data."""

    mixes_rows = False
    side_by_side = False
    source = ""

    def order(self, n_units: int, seeds: np.random.SeedSequence) -> np.ndarray:  # noqa: ARG002
        """Return the order of the data."""
        import numpy as np  # noqa: PLC0415

        return np.arange(n_units)


class Repeated(NamedTuple):
    """Visit units in every epoch as another sampler does in the first: chunks are of the same rows then."""

    named: Any
    """The other sampler, by which people know it."""

    @property
    def mixes_rows(self) -> bool:
        """As of the other one."""
        return bool(self.named.mixes_rows)

    @property
    def side_by_side(self) -> bool:
        """As of the other one."""
        return bool(self.named.side_by_side)

    @property
    def rewrites(self) -> bool:
        """As of the other one."""
        return bool(getattr(self.named, "rewrites", False))

    def order(self, n_units: int, seeds: np.random.SeedSequence) -> np.ndarray:
        """Return the order of the first epoch."""
        import numpy as np  # noqa: PLC0415

        entropy: Any = seeds.entropy
        found: np.ndarray = self.named.order(n_units, np.random.SeedSequence([entropy[0], 0]))
        return found


def repeated(sampler: Any) -> Any:
    """Return a sampler that visits units in every epoch as this one does in the first."""
    return Repeated(sampler)


def has_strata(sampler: Any) -> bool:
    """Whether batches have fixed shares of the classes."""
    return bool(getattr(sampler, "strata", False))


def replaces(sampler: Any) -> bool:
    """Whether a sampler draws rows with replacement."""
    return bool(getattr(sampler, "replaces", False))
