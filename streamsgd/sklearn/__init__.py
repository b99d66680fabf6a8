"""Estimators of scikit-learn, learned by streamsgd's kernels: `SGDClassifier` and `SGDRegressor`.

>>> from streamsgd.sklearn import SGDClassifier                                    # doctest: +SKIP
>>> SGDClassifier(loss="log_loss").fit(X, y).predict_proba(X)                      # doctest: +SKIP
>>> SGDClassifier(loss="log_loss").fit_stream("clicks/", target="clicked")         # doctest: +SKIP

scikit-learn is optional: only this package needs it.
"""

from __future__ import annotations

from streamsgd.messages import extra

try:
    import sklearn as _sklearn  # noqa: F401
except ImportError as error:
    raise ImportError(f"streamsgd.sklearn needs scikit-learn: {extra('sklearn')}") from error

from streamsgd.sklearn.classifier import SGDClassifier
from streamsgd.sklearn.regressor import SGDRegressor

__all__ = ["SGDClassifier", "SGDRegressor"]
