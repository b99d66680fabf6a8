"""How far scores of rows are uncertain because the weights are, from a covariance: the variance x'Vx. Nothing moves."""

from streamsgd.kernels.compile.jit import dispatch, lean_kernel
from streamsgd.kernels.compile.verbs import entries, mean, means
from streamsgd.kernels.structs.rows import OWN

MEAN, LOWER, UPPER, ERROR = range(4)
"""Places in what is said of a prediction."""


def _form_dense(rows, i, covariance, x, scratch):
    values = rows.values
    n = values.shape[1] - OWN
    for j in range(n):
        x[j] = values[i, j]
    x[n] = 1.0
    total = 0.0
    for a in range(n + 1):
        part = 0.0
        for b in range(a):
            part += covariance[a, b] * x[b]
        total += x[a] * (2.0 * part + covariance[a, a] * x[a])
    return total


def _form_entries(rows, i, covariance, x, scratch):
    n, total = entries(rows, i, scratch.index[0], scratch.x[0]), 0.0
    for e in range(n):
        part = 0.0
        for f in range(n):
            part += covariance[scratch.index[0, e], scratch.index[0, f]] * scratch.x[0, f]
        total += part * scratch.x[0, e]
    return total


def _form(rows):
    return _form_dense if hasattr(rows, "dot") else _form_entries


def quadratic_form(rows, i, covariance, x, scratch):
    """Return x'Vx of row i, for one output."""
    return _form(type(rows))(rows, i, covariance, x, scratch)


@dispatch(quadratic_form)
def _(rows, i, covariance, x, scratch):
    return _form(rows.instance_class)


@lean_kernel
def score_variances(block, start, stop, covariance, out, x, scratch):
    """Fill `out`, float64 (n,), with the variance of the score of rows start to stop, of one output.

    Parameters
    ----------
    block, start, stop
        Rows, and which.
    covariance
        float64 (n_coordinates, n_coordinates), both triangles.
    out, x, scratch
        Filled; room, float64 (n_coordinates,); as of `new_scratch`.

    """
    for i in range(start, stop):
        out[i - start] = quadratic_form(block.rows, i, covariance, x, scratch)


@lean_kernel
def score_covariances(block, start, stop, covariance, out, scratch):
    """Fill `out`, float64 (n, n_outputs, n_outputs), with the covariances of the scores of rows start to stop."""
    n_outputs = out.shape[1]
    for i in range(start, stop):
        n = entries(block.rows, i, scratch.index[0], scratch.x[0])
        for k in range(n_outputs):
            for q in range(k + 1):
                total = 0.0
                for e in range(n):
                    a, part = scratch.index[0, e] * n_outputs + k, 0.0
                    for f in range(n):
                        part += covariance[a, scratch.index[0, f] * n_outputs + q] * scratch.x[0, f]
                    total += part * scratch.x[0, e]
                out[i - start, k, q] = out[i - start, q, k] = total


def link_row(loss, scores, out):
    """Fill `out`, (n_outputs,), with the prediction of scores."""
    _linker(type(loss))(loss, scores, out)


def _link_one(loss, scores, out):
    out[0] = mean(loss, scores[0])


def _link_many(loss, scores, out):
    means(loss, scores, out)


def _linker(loss):
    return _link_many if hasattr(loss, "means") else _link_one


@dispatch(link_row)
def _(loss, scores, out):
    return _linker(loss.instance_class)


@lean_kernel
def link(loss, scores, out):
    """Fill `out`, float64 (n, n_outputs), with the predictions of scores."""
    for i in range(scores.shape[0]):
        link_row(loss, scores[i], out[i])


@lean_kernel
def touches(block, start, stop, marked, out, scratch):
    """Say of rows start to stop, in bool (n,), whether any has a coordinate that is marked, bool (n_coordinates,)."""
    for i in range(start, stop):
        n, found = entries(block.rows, i, scratch.index[0], scratch.x[0]), False
        for e in range(n):
            found = found or marked[scratch.index[0, e]]
        out[i - start] = found
