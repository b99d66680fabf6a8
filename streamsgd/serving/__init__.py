"""Scoring one row at a time in plain Python: no Numba, no Arrow, no Dask, no NumPy.

>>> import streamsgd.serving
>>> served = streamsgd.serving.load("clicks.sgd")                                   # doctest: +SKIP
>>> served.predict({"site": "news", "price": 3.5}), served.predict_proba([...])      # doctest: +SKIP
"""

from __future__ import annotations

from streamsgd.serving.files import load
from streamsgd.serving.served import Served

__all__ = ["Served", "load"]
