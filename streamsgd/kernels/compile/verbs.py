"""Verbs: free functions that dispatch on the class of a part, in Python and in kernels alike.

In Python a verb calls the part's method. In a kernel its overload hands that same plain-Python function to Numba,
so one loop serves every part and a new part needs no line here. Argument names must match the parts'.
"""

from streamsgd.kernels.compile.jit import dispatch
from streamsgd.kernels.parts.traits import by_rows
from streamsgd.kernels.structs.state import LEAST, MOST, SEEN


def value(loss, y, score):
    return loss.value(y, score)


@dispatch(value)
def _(loss, y, score):
    return loss.instance_class.value


def slope(loss, y, score):
    return loss.slope(y, score)


@dispatch(slope)
def _(loss, y, score):
    return loss.instance_class.slope


def mean(loss, score):
    return loss.mean(score)


@dispatch(mean)
def _(loss, score):
    return loss.instance_class.mean


def slopes(loss, y, scores, out):
    return loss.slopes(y, scores, out)


@dispatch(slopes)
def _(loss, y, scores, out):
    return loss.instance_class.slopes


def means(loss, scores, out):
    return loss.means(scores, out)


@dispatch(means)
def _(loss, scores, out):
    return loss.instance_class.means


def pull(penalty, w):
    return penalty.pull(w)


@dispatch(pull)
def _(penalty, w):
    return penalty.instance_class.pull


def shrink(penalty, w, stride):
    return penalty.shrink(w, stride)


@dispatch(shrink)
def _(penalty, w, stride):
    return penalty.instance_class.shrink


def prepare(optimizer, step, n_rows, rows):
    """Return what a step of n_rows rows shares; `rows` are those of all steps with it, which only some optimizers ask for."""
    return _preparer(type(optimizer))(optimizer, step, n_rows, rows)


def _preparer(optimizer_class):
    return optimizer_class.prepare if by_rows(optimizer_class) else _by_step


def _by_step(optimizer, step, n_rows, rows):
    return prepare_step(optimizer, step)


@dispatch(prepare)
def _(optimizer, step, n_rows, rows):
    return _preparer(optimizer.instance_class)


def prepare_step(optimizer, step):
    return optimizer.prepare(step)


@dispatch(prepare_step)
def _(optimizer, step):
    return optimizer.instance_class.prepare


def count_rows(optimizer, sums, n_rows):
    """Count the rows of a step, where an optimizer asks for them."""
    return _counter(type(optimizer))(optimizer, sums, n_rows)


def _counter(optimizer_class):
    return _count if by_rows(optimizer_class) else _no_count


def _count(optimizer, sums, n_rows):
    sums[SEEN] += n_rows


def _no_count(optimizer, sums, n_rows):
    return None


@dispatch(count_rows)
def _(optimizer, sums, n_rows):
    return _counter(optimizer.instance_class)


def move(optimizer, w, g, slots, j, eta, shared):
    return optimizer.move(w, g, slots, j, eta, shared)


@dispatch(move)
def _(optimizer, w, g, slots, j, eta, shared):
    return optimizer.instance_class.move


def factor(schedule, step, epoch, epochs):
    return schedule.factor(step, epoch, epochs)


@dispatch(factor)
def _(schedule, step, epoch, epochs):
    return schedule.instance_class.factor


def dot(rows, i, weights):
    return rows.dot(i, weights)


@dispatch(dot)
def _(rows, i, weights):
    return rows.instance_class.dot


def add(rows, i, slope, grad):
    return rows.add(i, slope, grad)


@dispatch(add)
def _(rows, i, slope, grad):
    return rows.instance_class.add


def dots(rows, i, weights, scores):
    return rows.dots(i, weights, scores)


@dispatch(dots)
def _(rows, i, weights, scores):
    return rows.instance_class.dots


def adds(rows, i, slopes, grad):
    return rows.adds(i, slopes, grad)


@dispatch(adds)
def _(rows, i, slopes, grad):
    return rows.instance_class.adds


def ahead(rows, i):
    return rows.ahead(i)


@dispatch(ahead)
def _(rows, i):
    return rows.instance_class.ahead


def entries(rows, i, index, x):
    return rows.entries(i, index, x)


@dispatch(entries)
def _(rows, i, index, x):
    return rows.instance_class.entries


def listed(model, rows, i, index, x):
    """Fill coordinates and factors of a row, and behind them its places, for a model that asks for them; return how many."""
    return _lister(type(model))(model, rows, i, index, x)


def _lister(model_class):
    return _with_places if getattr(model_class, "by_columns", False) else _alone


def _alone(model, rows, i, index, x):
    return entries(rows, i, index, x)


def _with_places(model, rows, i, index, x):
    count = entries(rows, i, index, x)
    places(rows, i, index, count)
    return count


@dispatch(listed)
def _(model, rows, i, index, x):
    return _lister(model.instance_class)


def places(rows, i, index, count):
    rows.places(i, index, count)


@dispatch(places)
def _(rows, i, index, count):
    return rows.instance_class.places


def width(model):
    return model.width()


@dispatch(width)
def _(model):
    return model.instance_class.width


def beyond(model):
    return model.beyond()


@dispatch(beyond)
def _(model):
    return model.instance_class.beyond


def output(model, index, x, count, weights, room):
    return model.output(index, x, count, weights, room)


@dispatch(output)
def _(model, index, x, count, weights, room):
    return model.instance_class.output


def derive(model, index, x, count, weights, room, out):
    return model.derive(index, x, count, weights, room, out)


@dispatch(derive)
def _(model, index, x, count, weights, room, out):
    return model.instance_class.derive


def settle(penalty, w, duration):
    return _settle(type(penalty))(penalty, w, duration)


def _settle(penalty_class):
    # A run that would need what a part lacks is refused before it starts (`job`).
    return getattr(penalty_class, "settle", _no_settling)


def _no_settling(penalty, w, duration):
    return w


@dispatch(settle)
def _(penalty, w, duration):
    return _settle(penalty.instance_class)


def drift(penalty, w, g, duration):
    return _drift(type(penalty))(penalty, w, g, duration)


def _drift(penalty_class):
    # As with `settle`.
    return getattr(penalty_class, "drift", _no_drift)


def _no_drift(penalty, w, g, duration):
    return w


@dispatch(drift)
def _(penalty, w, g, duration):
    return _drift(penalty.instance_class)


def stretch(optimizer, slots, j, shared):
    return _stretch(type(optimizer))(optimizer, slots, j, shared)


def _stretch(optimizer_class):
    return getattr(optimizer_class, "stretch", _no_stretch)


def _no_stretch(optimizer, slots, j, shared):
    return 1.0


@dispatch(stretch)
def _(optimizer, slots, j, shared):
    return _stretch(optimizer.instance_class)


def leap(loss, y, score, force):
    """Return by how much a score changes under an importance-aware step; see `losses`."""
    return _leap(type(loss))(loss, y, score, force)


def _leap(loss_class):
    return getattr(loss_class, "leap", _plain_leap)


def _plain_leap(loss, y, score, force):
    return -force * slope(loss, y, score)


@dispatch(leap)
def _(loss, y, score, force):
    return _leap(loss.instance_class)


def confine(loss, score, limits):
    """Return a score within what the loss makes sense for, given the least and greatest target so far."""
    return _confine(type(loss))(loss, score, limits)


def _confine(loss_class):
    return getattr(loss_class, "confine", _no_limit)


def _no_limit(loss, score, limits):
    return score


@dispatch(confine)
def _(loss, score, limits):
    return _confine(loss.instance_class)


def bounded(loss, y, score, sums):
    """Return the score that a row of a batch has: of steep losses confined, by the targets so far, which `sums` keeps."""
    return _bounder(type(loss))(loss, y, score, sums)


def _bounder(loss_class):
    return _within if getattr(loss_class, "steep", False) else _anywhere


def _anywhere(loss, y, score, sums):
    return score


def _within(loss, y, score, sums):
    sums[LEAST], sums[MOST] = min(sums[LEAST], y), max(sums[MOST], y)
    return confine(loss, score, sums[LEAST : MOST + 1])


@dispatch(bounded)
def _(loss, y, score, sums):
    return _bounder(loss.instance_class)
