"""Scores of rows without learning from them."""

from streamsgd.kernels.compile.jit import dispatch, lean_kernel
from streamsgd.kernels.compile.verbs import dot, dots, entries, listed, mean, means, output, value


def predict(loss, rows, i, y, weights, scores, means_out, scratch):
    """Fill row i's scores and means; return its loss."""
    return _predictor(type(loss), type(rows))(loss, rows, i, y, weights, scores, means_out, scratch)


def _predict_one(loss, rows, i, y, weights, scores, means_out, scratch):
    score = dot(rows, i, weights)
    scores[i, 0] = score
    means_out[i, 0] = mean(loss, score)
    return value(loss, y, score)


def _predict_many(loss, rows, i, y, weights, scores, means_out, scratch):
    dots(rows, i, weights, scores[i])
    means(loss, scores[i], means_out[i])
    return value(loss, y, scores[i])


def _predict_entries_one(loss, rows, i, y, weights, scores, means_out, scratch):
    n = entries(rows, i, scratch.index[0], scratch.x[0])
    score = weights.dtype.type(0.0)
    for e in range(n):
        score += weights[scratch.index[0, e]] * scratch.x[0, e]
    scores[i, 0] = score
    means_out[i, 0] = mean(loss, score)
    return value(loss, y, score)


def _predict_entries_many(loss, rows, i, y, weights, scores, means_out, scratch):
    n, n_outputs = entries(rows, i, scratch.index[0], scratch.x[0]), scores.shape[1]
    scores[i] = 0.0
    for e in range(n):
        for k in range(n_outputs):
            scores[i, k] += weights[scratch.index[0, e] * n_outputs + k] * scratch.x[0, e]
    means(loss, scores[i], means_out[i])
    return value(loss, y, scores[i])


def _predictor(loss, rows):
    several = hasattr(loss, "means")
    if not hasattr(rows, "dot"):
        return _predict_entries_many if several else _predict_entries_one
    return _predict_many if several else _predict_one


@dispatch(predict)
def _(loss, rows, i, y, weights, scores, means_out, scratch):
    return _predictor(loss.instance_class, rows.instance_class)


@lean_kernel
def score(loss, block, start, stop, weights, scores, means_out, losses, scratch):
    """Fill scores and means (n, n_outputs) and losses (n,) of rows start to stop without learning from them."""
    for i in range(start, stop):
        losses[i] = predict(loss, block.rows, i, block.y[i], weights, scores, means_out, scratch)


@lean_kernel
def score_modelled(loss, model, block, start, stop, weights, scores, means_out, losses, scratch):
    """Do what `score` does with a model that is not linear, of one score per row."""
    index, x = scratch.index[0], scratch.x[0]
    for i in range(start, stop):
        found = output(model, index, x, listed(model, block.rows, i, index, x), weights, scratch.kept)
        scores[i, 0] = found
        means_out[i, 0] = mean(loss, found)
        losses[i] = value(loss, block.y[i], found)
