"""One learner: a state, and the parts that change it chunk by chunk. Who reads and who waits for it is not its business."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from streamsgd.errors import DivergedError, ModelError
from streamsgd.features.layout import most_entries
from streamsgd.kernels.learn.averaging import average
from streamsgd.kernels.learn.fit import fit, settled
from streamsgd.kernels.learn.growing import fit_growing
from streamsgd.kernels.parts.traits import bets, is_race, is_sequential, judges
from streamsgd.kernels.structs.block import new_scratch
from streamsgd.kernels.structs.state import FILLED, LOSS, RACE, ROWS, STEPS, WEIGHT, State
from streamsgd.kernels.structs.step import StepContext
from streamsgd.model.memory import Memory
from streamsgd.model.model import Model
from streamsgd.training.averaging import begin
from streamsgd.training.classes.population import PopulationLoss
from streamsgd.training.classes.rare import plain_loss
from streamsgd.training.forgetting import fade, rows_until_fading
from streamsgd.training.initial import alone, empty_state, new_state, parameters
from streamsgd.training.job import WHOLE_EPOCH, Job
from streamsgd.training.judged.steps import Judge
from streamsgd.training.noise.growing import new_growth, packed, unpack
from streamsgd.training.race import RACE_ROWS, check_mixture, describe, end_race, leader, rates, successor, unmixed, weights_of
from streamsgd.training.rivals.factor_rates import described, lead, with_rate
from streamsgd.training.rivals.rival import kept

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from streamsgd.kernels.structs.block import Block
    from streamsgd.stream.chunk import LoadedChunk

log = logging.getLogger("streamsgd")


class LearnerState(NamedTuple):
    """A learner without its job."""

    arrays: dict[str, np.ndarray]
    """The state, and `totals`."""
    race: dict[str, Any] | None

    @property
    def nbytes(self) -> int:
        """Bytes of its arrays."""
        return sum(array.nbytes for array in self.arrays.values())


RIVAL = "rival."
"""Before the names of arrays of the linear model beside a machine."""

OTHER = "other{}."
"""... and of machines of other rates."""

FIRST_MARK = 1024
"""Rows after which progress is told for the first time; then after twice as many, and so on."""


def next_mark(rows: int) -> int:
    """Return the number of rows after so many at which progress is told."""
    return FIRST_MARK << max(0, (rows // FIRST_MARK).bit_length())


class Learner:
    """Learns chunk after chunk.

    Parameters
    ----------
    job
        As prepared; its optimizer is another one once a race has ended.
    state
        To go on from, or None to begin.

    """

    def __init__(self, job: Job, state: State | None = None) -> None:
        self.job = job
        self.state = new_state(job) if state is None else state
        self.scratch = new_scratch(job.n_outputs, job.settings.precision, 0, job.parts.model)
        self.growth = new_growth(job)
        self.judge = Judge(job, self.state) if judges(job.parts.optimizer) else None
        # Told no state to begin with, both begin; else both are to be restored.
        self.rival = None if job.rival is None else Learner(job.rival, None if state is None else empty_state(job.rival))
        """The linear model that learns beside a machine."""
        self.others = [Learner(other, None if state is None else empty_state(other)) for other in job.others]
        """Machines of other rates, while they learn beside."""
        self.factor_rates: dict[str, Any] | None = None
        """What they came to, once one of them has gone on alone."""
        self.entries = 0
        """Entries per row that there is room for."""
        self.race: dict[str, Any] | None = None
        """What a race came to, once it has ended."""
        self.totals = np.zeros(3)
        """What the tallies of the state came to before it was last cleared."""

    def fit(
        self, filled: LoadedChunk, reached: Callable[[float], None] | None = None, part: tuple[float, float] = (0.0, 1.0)
    ) -> None:
        """Learn the rows of a chunk; call `reached` with the passes done at 1024, 2048, 4096 ... rows.

        `part` is from where to where in the chunk the rows of its order are: of some they are all that is there.
        """
        if self.rival is not None:
            self.rival.fit(filled, None, part)
        job, n = self.job, len(filled.order)
        heads, heads_of_others = filled.heads(), [filled.heads() for _ in self.others]
        entries = most_entries(filled.block, filled.layout)
        if entries > self.entries:
            self.entries = entries
            self.scratch = new_scratch(job.n_outputs, job.settings.precision, entries, job.parts.model)
        before = job.plan.rows_before(filled.chunk.epoch, filled.chunk.number) + filled.chunk.rows * part[0]
        per_row = filled.chunk.rows / max(1, n) / job.plan.n_rows * (part[1] - part[0])
        first, mark, n = 0, next_mark(self.rows), min(n, self.rows_left)
        judge = PopulationLoss(job, self.scratch) if job.thinner else None
        while first < n:
            # Also where nobody looks, or the losses would be added up in another order there.
            last = min(n, first + max(1, mark - self.rows), first + filled.at_once)
            last = min(last, first + rows_until_fading(job.settings.forget, self.rows))
            if self.racing or self.others:
                last = min(last, first + max(1, RACE_ROWS - self.rows))
            if judge:
                last = min(last, first + judge.most_rows)
            epoch = filled.chunk.epoch + before / job.plan.n_rows + per_row * first
            last = first + begin(self.state, job.average_from, epoch, per_row, last - first)
            pace = StepContext(self.batch_rows, self.n_penalised, epoch, per_row, job.span, *job.clips)
            found = judge.of(self.weights(), self.state, filled.block, filled.order[first:last], heads) if judge else None
            # Not job.parts: the end of a race is another optimizer's beginning.
            self.learn(filled.block, *filled.turn(first, last, heads), pace)
            self._learn_others(filled, (first, last), heads_of_others, pace)
            if found is not None:
                self.state.tally[: len(found)] = found
            epoch += per_row * (last - first)
            first = last
            fade(self.state, self.job.parts.optimizer, job.settings.forget, self.rows)
            if self.rows >= RACE_ROWS:
                self.end_races()
            if self.rows >= mark:
                mark = next_mark(self.rows)
                if reached:
                    reached(epoch)

    def _learn_others(self, filled: LoadedChunk, span: tuple[int, int], heads: Sequence[np.ndarray], pace: StepContext) -> None:
        """Let machines of other rates learn rows from one to another, too."""
        for one, own in zip(self.others, heads, strict=False):  # those of chunks in which they end are more
            one.scratch = self.scratch
            one.learn(filled.block, *filled.turn(*span, own), pace)
            fade(one.state, one.job.parts.optimizer, self.job.settings.forget, one.rows)

    def learn(self, block: Block, order: np.ndarray, heads: np.ndarray, pace: StepContext) -> None:
        """Learn the rows that an order names, or end the running batch if it names none."""
        parts = self.job.parts
        if self.judge is not None:
            self.judge.learn(block, order, heads, self.entries)
        elif self.growth is None:
            fit(parts, block, order, heads, self.state, pace, self.scratch)
        else:
            fit_growing(parts, block, order, heads, self.state, pace, self.scratch, self.growth)

    def end_batch(self, epoch: float) -> None:
        """Move by the rows of a batch that is not full, if there are any, as after so many passes."""
        if self.judge is not None:
            self.judge.end_epoch()
        filled = int(self.state.clock[FILLED])
        if not filled or is_sequential(self.job.parts.optimizer):
            return
        size = filled if self.job.settings.batch_size == "full" else self.batch_rows
        # A batch takes the rate of its first row, or a cosine would give the last batch of a run none.
        first = epoch - min(1.0, filled / self.job.plan.n_rows)
        begin(self.state, self.job.average_from, first, 1.0, 1)
        pace = StepContext(size, self.n_penalised, first, 0.0, self.job.span, *self.job.clips)
        self.learn(self.job.recipe.allocate(1), np.zeros(0, np.int32), np.zeros(0, np.int64), pace)

    def clear_tally(self) -> None:
        """Begin a new tally: a sum of a whole run would lose digits."""
        self.totals += self.state.tally
        self.state.tally[:] = 0.0
        for one in self.beside:
            one.clear_tally()

    @property
    def tally(self) -> np.ndarray:
        """Weighted loss before learning, weight and number of the rows so far, float64 (3,)."""
        tally: np.ndarray = self.totals + self.state.tally
        return tally

    @property
    def own_tally(self) -> np.ndarray:
        """The tally of the weights that are kept: while a race lasts, of its leader."""
        tally = self.tally
        tally[LOSS] += unmixed(self.state) if self.racing and not self.job.thinner else 0.0
        return tally

    @property
    def rows(self) -> int:
        """Rows learned so far, each as often as it was."""
        return int(self.totals[ROWS] + self.state.tally[ROWS])

    @property
    def rows_left(self) -> int:
        """Rows to learn until as many steps are made as were asked for."""
        clock, most = self.state.clock, self.job.settings.steps
        if self.judge is not None and self.judge.now.at_rest:
            return 0
        return WHOLE_EPOCH if most is None else int((most - clock[STEPS]) * self.job.batch_size - clock[FILLED])

    @property
    def batch_rows(self) -> int:
        """Rows per update, as far as the kernel keeps count of them."""
        return WHOLE_EPOCH if self.job.updates_alone else self.job.batch_size

    @property
    def n_penalised(self) -> int:
        """Weights that the penalty sees."""
        return self.job.n_penalised

    def after_race(self) -> Learner:
        """Return this learner, or, while a race is on, what would go on if it were over."""
        if not self.racing:
            return self
        after = Learner(self.job, self.state)
        after.totals = self.totals.copy()
        after.end_race()
        return after

    def memory(self) -> Memory:
        """Return what a later run needs to go on: after a batch, and after a race."""
        state = self.state
        cells = np.column_stack([state.weights, *state.slots[: self.job.parts.optimizer.n_slots]])
        return Memory(cells, state.sums[:RACE].copy(), state.clock[STEPS : STEPS + 1].copy(), state.paid.copy())

    def go_on_from(self, memory: Memory, race: dict[str, Any] | None) -> None:
        """Take what an earlier run came to.

        Raises
        ------
        ModelError
            It is of another optimizer, or of rows that lie otherwise.

        """
        if race and self.racing:
            self.race = race
            self._go_on_with(race["rate"])
            self.state = alone(self.job, np.zeros(self.job.n_weights, self.job.settings.precision))
        state, n = self.state, self.job.parts.optimizer.n_slots
        if self.racing or memory.cells.shape != (state.weights.size, 1 + n) or memory.paid.size != state.paid.size:
            raise ModelError("what the optimizer of the model remembers does not fit this run: take the settings of the model")
        state.weights[:] = memory.cells[:, 0]
        for k in range(n):
            state.slots[k] = memory.cells[:, 1 + k]
        state.sums[:RACE], state.clock[STEPS], state.paid[:] = memory.sums, memory.steps[0], memory.paid

    @property
    def beside(self) -> list[Learner]:
        """Those who learn beside: the linear model, and machines of other rates."""
        return self.others if self.rival is None else [self.rival, *self.others]

    def packed(self) -> LearnerState:
        """Return what another process needs to go on, or a checkpoint."""
        arrays = {key: np.ascontiguousarray(value) for key, value in self.state._asdict().items()}
        arrays |= self.judge.arrays() if self.judge is not None else {}
        arrays |= {**packed(self.growth), "totals": self.totals.copy()}
        if self.rival is None:
            return LearnerState(arrays, self.race)
        beside = self.rival.packed()
        for name, one in [(RIVAL, beside), *((OTHER.format(k), other.packed()) for k, other in enumerate(self.others))]:
            arrays |= {f"{name}{key}": array for key, array in one.arrays.items()}
        return LearnerState(arrays, {"rival": beside.race, "factors": self.factor_rates})

    def restore(self, saved: LearnerState) -> None:
        """Go on from what `packed` gave."""
        if self.rival is not None:
            race = saved.race or {}
            self.rival.restore(LearnerState(_behind(RIVAL, saved.arrays), race.get("rival")))
            if race.get("factors"):
                self._end_rates(race["factors"])
            for k, one in enumerate(self.others):
                one.restore(LearnerState(_behind(OTHER.format(k), saved.arrays), None))
        self.race = saved.race if self.rival is None else None
        if self.race:
            self._go_on_with(self.race["rate"])
            self.state = alone(self.job, np.zeros(self.job.n_weights, self.job.settings.precision))
        for key, value in self.state._asdict().items():
            value[...] = saved.arrays[key]
        unpack(self.growth, saved.arrays)
        if self.judge is not None:
            self.judge.restore(saved.arrays)
        self.totals[...] = saved.arrays["totals"]

    # --- races

    @property
    def racing(self) -> bool:
        """Whether several learners learn."""
        return is_race(self.job.parts.optimizer)

    def end_races(self) -> None:
        """Go on with the best of those who learn beside each other to find a rate, if there are such."""
        if self.racing:
            self.end_race()
        if self.others:
            best = lead(found := described(self, self.others), self.others)
            if best is not None:
                self.state, self.totals = best.state, best.totals
            self._end_rates(found)

    def _end_rates(self, found: dict[str, Any]) -> None:
        raced = [*(float(one.job.parts.model.rate) for one in (self, *self.others)), *self.job.raced]
        if found["rate"] not in raced or list(found["rates"]) != raced:  # of a checkpoint
            raise ValueError(f"rates of factors {found['rates']}, of which {found['rate']} leads, where {raced} race")
        self.job = replace(self.job, parts=with_rate(self.job.parts, found["rate"]))
        self.factor_rates, self.others = found, []

    def end_race(self) -> None:
        """Go on with the learner that predicted best; from now on the tally is its own, not that of the mixture."""
        rate, mixing = self.job.parts.optimizer.learning_rate, getattr(self.job.parts.loss, "mixing", "")
        check_mixture(self.state, mixing)
        thins = self.job.thinner is not None  # the tally is that of the leader then
        self.race = describe(rate, self.state, mixing, float(self.tally[ROWS if thins else WEIGHT]))
        k, weights = leader(self.state), self.weights()
        self.totals[LOSS] += 0.0 if thins else unmixed(self.state)
        self._go_on_with(rates(rate)[k])
        self.state = end_race(self.state, alone(self.job, weights), k, self.job.batch_size)
        log.info("after %d rows the learner at rate %g leads and goes on alone", self.race["rows"], rates(rate)[k])

    def _go_on_with(self, rate: float) -> None:
        optimizer = successor(rate, in_batches=not self.job.recipe.layout.mixed)
        self.job = replace(self.job, parts=self.job.parts._replace(optimizer=optimizer))

    def go_on_at(self, rate: float | None) -> None:
        """Take the rate that the data called for, if nobody set one."""
        if rate is not None:
            optimizer = self.job.parts.optimizer._replace(learning_rate=rate)
            self.job = replace(self.job, parts=self.job.parts._replace(optimizer=optimizer))

    # --- what comes out

    def weights(self) -> np.ndarray:
        """Return a copy of the weights that predict, (n,): penalties paid, bets settled, averaged, of the leader of a race."""
        if self.racing:
            return self._leading()
        weights: np.ndarray = self.state.weights.copy()
        if self.state.paid.size or bets(self.job.parts.optimizer):
            settled(self.job.parts, self.state, self.n_penalised, weights)
        if self.state.lag.size:
            average(self.state, weights)
        return parameters(self.job, self.state, weights)

    def _leading(self) -> np.ndarray:
        weights = weights_of(self.state, leader(self.state))
        if self.job.parts.penalty._fields:
            settled(self.job.parts, self.state, self.n_penalised, weights)
        return weights

    def model(self) -> Model:
        """Return the model as it is: of a machine beside a linear one, the better of both."""
        one = kept(self)
        return model_of(one.job, one.weights())

    @property
    def is_finite(self) -> bool:
        """Whether loss and weights are finite numbers."""
        return bool(np.isfinite(self.tally).all() and np.isfinite(self.state.weights).all())

    def check_finite(self, filled: LoadedChunk) -> None:
        """Make sure that neither loss nor weights have left the finite numbers; of machines that race one has not.

        Raises
        ------
        DivergedError
            They have.

        """
        if self.rival is not None:
            self.rival.check_finite(filled)
        if any(one.is_finite for one in (self, *self.others)):
            return
        rate = self.job.parts.optimizer.learning_rate
        raise DivergedError(
            f"the loss left the finite numbers in epoch {filled.chunk.epoch}, chunk {filled.chunk.number} at learning rate "
            f"{rate:g}: lower --learning-rate (try {rate / 10:g}), or raise --batch-size, or pass --scale standard."
        )


def _behind(name: str, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {key.removeprefix(name): array for key, array in arrays.items() if key.startswith(name)}


def model_of(job: Job, weights: np.ndarray) -> Model:
    """Return the model of these weights, in any shape."""
    return Model(plain_loss(job.parts.loss), job.encoding, job.target, weights.reshape(job.shape), structure=job.structure)
