"""Batches that grow: what a step asks of its rows before it moves.

With g the mean gradient of the n rows of a step, S the covariance of gradients of rows and G their expectation,

norm       tr S / n <= theta^2 |G|^2                                   (Byrd, Chin, Nocedal and Wu 2012)
inner      G'SG / n <= theta^2 |G|^4                                   (Bollapragada, Byrd and Nocedal 2018)
augmented  inner, and (tr S - G'SG / |G|^2) / n <= nu^2 |G|^2          (the same)

A step passes once it has `MARGIN` times these rows. |G|^2, G'SG and |G|^4 are estimated without bias: |g|^2 is too large by
tr S / n, and with it a step passes too early.
"""

from __future__ import annotations

from typing import NamedTuple

GROUPS = 16
"""Groups to which the rows of a step are dealt in turn; what differs between their sums is the evidence."""

TESTS = ("norm", "inner", "augmented")

FOLLOWS = ("none", "linear", "sqrt")
"""How the rate of a step follows its rows, by number in the kernel."""

MARGIN = 1.3
"""Times the rows that the evidence calls for: half of all steps would miss the bound by its error, and it is late by some steps
where |G| falls. With a half-life of 2 steps 90 to 100 % of steps were within the bound, and 95 to 100 % within twice the least
(scripts/bench_adaptive.py); 1.15 times were within it on 24 to 87 %."""

SIZES = "16-64-256-1024"
"""That a pilot tries if nobody says."""

LEAST_STEPS = 10
"""Steps of an epoch that `most` leaves room for, if nobody says."""


class Adaptive(NamedTuple):
    """Every step takes rows until their mean gradient is told well enough from its noise, then moves."""

    theta: float = 0.9
    """The most that the error of a step may be of its length."""
    test: str = "norm"
    """One of `TESTS`."""
    most: int = 0
    """Rows of a step; 0 is a tenth of the data."""
    half_life: float = 2.0
    """Steps after which evidence is worth half."""
    start: int = 64
    """The fewest rows of a step."""
    nu: float = 5.84
    """Of `augmented`: the tangent of how far a step may leave the direction of the gradient."""
    rate: str = "auto"
    """How the rate follows the rows of a step: auto is the optimizer's own rule, as of --rate-scaling; or one of `FOLLOWS`."""

    source = (
        "Byrd, Chin, Nocedal and Wu 2012, Mathematical Programming 134; Bollapragada, Byrd and Nocedal 2018, SIAM Journal on "
        "Optimization 28; nu as there"
    )

    def largest(self, n_rows: int) -> int:
        """Return the most rows of a step, for so many rows of data: as set, or a tenth of them."""
        return self.most or max(self.start, n_rows // LEAST_STEPS // GROUPS * GROUPS)


class Pilot(NamedTuple):
    """Short runs at several sizes say which one is enough; the run goes on from the branch of that size."""

    sizes: str = SIZES
    """Rows per update to try, two or more."""
    seeds: int = 3
    """Runs of each size that are compared: their noise is the error of what is found."""
    rows: int = 0
    """That the largest size learns before they are compared; 0 is a million, or all there are."""

    source = "McCandlish, Kaplan, Amodei et al. 2018, arXiv 1812.06162; pilots as branches: docs/noise.md"

    @property
    def numbers(self) -> list[int]:
        """The sizes, the smallest first; a ValueError where one is no number."""
        return sorted({int(size) for size in self.sizes.split("-")})
