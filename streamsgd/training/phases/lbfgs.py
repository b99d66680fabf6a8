"""L-BFGS with l1: how to get to the minimum of a convex function whose every evaluation costs a pass over the data.

It says where to evaluate next (`trial`), is told what was found there, and says where next. So a run can be saved between any
two evaluations, or in one.

    direction  d = -H v, v the gradient of least size, H the inverse Hessian that the last `MEMORY` pairs of steps and changes
               of the gradient tell, from a first one that has all pairs of some weights and the diagonal of the others
    trial      w + t d, cut at 0 where a weight that l1 sees would change its sign; t = 1 first
    accepted   if F falls by 1e-4 of what v promised (Armijo), or, where F changes by no more than its rounding, if the slope
               along the step has fallen (the approximate Wolfe condition of Hager and Zhang 2005, section 2)
    else       t goes to where the slope along the step would be 0 if it changed evenly, which is exact for a parabola

Sources: Nocedal 1980 (Mathematics of Computation 35), Andrew and Gao 2007 (ICML), Schmidt 2010 (thesis, UBC, section 2.4).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from streamsgd.kernels.algebra.lbfgs import (
    along,
    back,
    even_out,
    factorise,
    forth,
    inner,
    only_free,
    penalise,
    remember,
    solve,
    steepest,
    walk,
)
from streamsgd.training.phases.base import kept, kept_members

if TYPE_CHECKING:
    from streamsgd.kernels.sums.objective import Curvature

MEMORY = 10
"""Pairs of steps and changes of the gradient that are kept."""

VECTORS = 2 * MEMORY + 9
"""Arrays of the size of the weights that a descent takes, with the gradient and curvature it is told."""

ENOUGH = 1e-4
"""Of the promised fall, the share that must come."""

FLATTER = 0.9
"""Of the slope along a step, the share that may be left where F is too rough to tell."""

ROUGH = 1e-14
"""Of the sum of absolute losses: the rounding of F, which is added up from tiles of at most 4096 rows."""

SHORTEST, LONGEST, BLIND = 0.01, 0.5, 0.1
"""Shares of a stride that was refused to try next: at least, at most, and where F was not finite."""

MOST_TRIALS = 12
"""Strides along one direction before the pairs are dropped, or, without any, the descent ends."""

PATIENCE = 20
"""Steps in sequence that may lower neither F beyond its rounding nor the largest component of the gradient."""

LEAST_CURVATURE = 1e-12
"""Of the largest, what any component of the diagonal is at least."""


class Hessian(NamedTuple):
    """Second derivatives, as far as they are known."""

    diagonal: np.ndarray
    """float64 (n_weights,)."""
    block: np.ndarray
    """float64 (n_members, n_members): of some weights with each other, in any unit; the lower triangle counts."""
    members: np.ndarray
    """int64 (n_members,): which weights these are."""


def hessian_of(curvature: Curvature | None, n: float, n_outputs: int) -> Hessian | None:
    """Return what was added up over n rows, whose arrays are taken over; None of nothing."""
    if curvature is None:
        return None
    diagonal, _place, members, block, *_ = curvature
    diagonal /= n
    outputs = np.arange(n_outputs)
    return Hessian(diagonal, block, (members.astype(np.int64)[:, None] * len(outputs) + outputs).ravel())


class LBFGS:
    """The state of one minimisation of f(w) + l1 |w|_1 + l2 / 2 |w|^2, the last weights being free of penalty.

    Parameters
    ----------
    start
        float64 (n_weights,): where to begin; taken over.
    n_penalised
        Leading weights that the penalty sees.
    l1, l2
        Of the penalty.
    tolerance
        Largest component of the gradient at which to stop.

    Attributes
    ----------
    weights
        The best that was found.
    trial
        Where f is to be evaluated next.
    value, largest
        F and the largest component of its gradient at `weights`; inf before the first evaluation.
    stopped
        Why it ended: `gradient` is within the tolerance, `rounding` allows no more; empty while it goes on.

    """

    def __init__(self, start: np.ndarray, n_penalised: int, l1: float, l2: float, tolerance: float) -> None:
        n = start.size
        self.n_penalised, self.l1, self.l2, self.tolerance = n_penalised, l1, l2, tolerance
        self.weights, self.trial = start, start.copy()
        self.gradient, self.slope, self.toward, self.spare = np.zeros((4, n))
        self.diagonal, self.block, self.factor = np.ones(n), np.zeros((0, 0)), np.zeros((0, 0))
        self.members = np.zeros(0, np.int64)
        self.steps, self.changes = np.zeros((2, MEMORY, n))
        self.value = self.largest = self.least = np.inf
        self.stride, self.trials, self.pairs, self.newest, self.stale = 0.0, 0, 0, -1, 0
        self.stopped = ""

    @property
    def begun(self) -> bool:
        """Whether F is known anywhere."""
        return bool(np.isfinite(self.value))

    def tell(self, value: float, rounding: float, gradient: np.ndarray, hessian: Hessian | None = None) -> bool:
        """Take note of f at `trial`, and choose the next one; return whether this one is accepted as the best.

        Parameters
        ----------
        value, gradient
            Of f, without the penalty; the gradient is changed.
        rounding
            Size of what was added up to get the value.
        hessian
            Of f, without the penalty, if it is known; taken over. If the trial is accepted it takes the place of all that
            earlier steps have told.

        """
        value += penalise(self.trial, self.l1, self.l2, self.n_penalised, gradient)
        rough = ROUGH * max(rounding, abs(value))
        if not self.begun:
            accepted = bool(np.isfinite(value) and np.isfinite(gradient).all())
        else:
            accepted = self._passes(value, rough, gradient)
        if accepted:
            self._accept(value, rough, gradient, hessian)
        return accepted

    def shrink(self, l2: float) -> None:
        """Go on from the best weights under another l2, whose part of objective, gradient and curvature needs no evaluation."""
        more, n = l2 - self.l2, self.n_penalised
        self.value += 0.5 * more * inner(self.weights[:n], self.weights[:n])
        self.gradient[:n] += more * self.weights[:n]
        self.diagonal[:n] += more
        self.block[np.diag_indices(len(self.members))] += np.where(self.members >= n, 0.0, more)
        self.l2, self.pairs, self.stale, self.stopped = l2, 0, 0, ""
        self._factorise()
        self.largest = self.least = steepest(self.weights, self.gradient, self.l1, n, self.slope)
        self._aim()

    def _adopt(self, hessian: Hessian) -> None:
        self.diagonal, self.block, self.members, self.pairs = *hessian, 0
        even_out(self.block, self.members, self.diagonal)
        free = self.members >= self.n_penalised
        self.diagonal[: self.n_penalised] += self.l2
        self.block[np.diag_indices(len(self.members))] += np.where(free, 0.0, self.l2)
        floor = LEAST_CURVATURE * self.diagonal.max(initial=0.0)
        for diagonal in (self.diagonal, np.einsum("aa->a", self.block)):
            np.maximum(diagonal, floor, out=diagonal)
            diagonal[diagonal == 0.0] = 1.0
        self._factorise()

    def _factorise(self) -> None:
        self.factor = np.zeros_like(self.block)
        factorise(self.block, self.members, self.weights, self.l1, self.n_penalised, self.factor)

    def _passes(self, value: float, rough: float, gradient: np.ndarray) -> bool:
        """Say whether a trial will do; if not, choose a shorter stride."""
        promised = along(self.slope, self.weights, self.trial)
        if not np.isfinite(value):
            self._shorten(BLIND)
            return False
        steepest(self.trial, gradient, self.l1, self.n_penalised, self.spare)
        left = along(self.spare, self.weights, self.trial)
        if promised < 0.0:
            if value <= self.value + ENOUGH * promised:
                return True
            if value <= self.value + rough and abs(left) <= FLATTER * abs(promised):
                return True
        bent = left - promised
        self._shorten(-promised / bent if bent > 0.0 else LONGEST)
        return False

    def _shorten(self, share: float) -> None:
        self.trials += 1
        self.stride *= min(max(share, SHORTEST), LONGEST)
        if self.trials < MOST_TRIALS and self._walk():
            return
        if not self.pairs:
            self.stopped = "rounding"
            return
        self.pairs = 0
        self._aim()

    def _accept(self, value: float, rough: float, gradient: np.ndarray, hessian: Hessian | None) -> None:
        if self.begun:
            self._remember(gradient)
        fell = self.value - value > rough
        self.weights[:], self.gradient[:], self.value = self.trial, gradient, value
        if hessian is not None:
            self._adopt(hessian)
        self.largest = steepest(self.weights, self.gradient, self.l1, self.n_penalised, self.slope)
        self.stale = 0 if fell or self.largest < self.least else self.stale + 1
        self.least = min(self.least, self.largest)
        if self.largest <= self.tolerance:
            self.stopped = "gradient"
        elif self.stale >= PATIENCE:
            self.stopped = "rounding"
        else:
            self._aim()

    def _remember(self, gradient: np.ndarray) -> None:
        place = (self.newest + 1) % MEMORY
        if remember(self.weights, self.trial, self.gradient, gradient, self.steps[place], self.changes[place]):
            self.newest, self.pairs = place, min(self.pairs + 1, MEMORY)
        else:
            self.pairs = min(self.pairs, MEMORY - 1)  # the place was that of the oldest of a full ring

    def _aim(self) -> None:
        """Choose a direction, and the first trial along it."""
        self.stride, self.trials = 1.0, 0
        self._direct()
        if not self._walk():
            self.stopped = "rounding"

    def _direct(self) -> None:
        products, parts = np.zeros((2, MEMORY))
        room, toward = np.zeros(len(self.members)), self.toward
        pairs = (self.steps, self.changes, self.newest, self.pairs, self.l1, self.n_penalised)
        if self.l1:
            self._factorise()  # of what is free now
        back(self.weights, self.slope, *pairs, products, parts, toward)
        fit, told = 1.0, [p for p in self._used() if products[p] > 0.0]
        if told:
            change = self.changes[told[0]]
            only_free(self.weights, change, self.l1, self.n_penalised, self.spare)
            solve(self.factor, self.members, self.diagonal, self.spare, room)
            fit = products[told[0]] / inner(change, self.spare)
        solve(self.factor, self.members, self.diagonal, toward, room)
        forth(self.weights, self.slope, *pairs, products, parts, fit, self.diagonal, toward)

    def _used(self) -> list[int]:
        """Return the places of the pairs, the newest first."""
        return [(self.newest - ago) % MEMORY for ago in range(self.pairs)]

    def _walk(self) -> bool:
        """Set the trial; return whether it is another point than the weights."""
        return bool(walk(self.weights, self.toward, self.slope, self.stride, self.l1, self.n_penalised, self.trial))

    # --- checkpoints

    def header(self) -> dict[str, Any]:
        """Return what a checkpoint keeps as JSON."""
        said = {name: getattr(self, name) for name in ("stride", "trials", "pairs", "newest", "stale", "stopped")}
        for name in ("value", "largest", "least"):
            said[name] = getattr(self, name) if self.begun else None
        return said

    def arrays(self) -> dict[str, np.ndarray]:
        """Return what a checkpoint keeps as arrays; slope, direction and trial follow from them."""
        used = self._used()
        now = {name: getattr(self, name) for name in ("weights", "gradient", "diagonal", "block", "members")}
        return now | {"steps": self.steps[used], "changes": self.changes[used]}

    def restore(self, header: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
        """Take back what a checkpoint kept."""
        if header.keys() != self.header().keys() or not (0 <= header["pairs"] <= MEMORY and -1 <= header["newest"] < MEMORY):
            raise ValueError("the descent is of another kind")
        for name, value in header.items():
            setattr(self, name, np.inf if value is None else value)
        for name in ("weights", "gradient", "diagonal"):
            setattr(self, name, kept(arrays, name, self.weights))
        self.members = kept_members(arrays, "members", self.weights.size)
        self.block = kept(arrays, "block", np.zeros((len(self.members), len(self.members))))
        used = self._used()
        self.steps[used], self.changes[used] = arrays["steps"], arrays["changes"]
        self.trial[:] = self.weights
        if self.begun:
            self._factorise()
            steepest(self.weights, self.gradient, self.l1, self.n_penalised, self.slope)
            self._direct()
            self._walk()
