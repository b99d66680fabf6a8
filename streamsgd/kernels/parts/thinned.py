"""How rows are thinned where positives are rare: which of them are kept, by their class and features."""

from typing import NamedTuple

from streamsgd.kernels.parts.ranges import Positive


class Word(str):
    """A word in a spec, which is written without quotes."""

    __slots__ = ()
    __repr__ = str.__str__


class Everything(NamedTuple):
    """Every row is learned."""

    source = "no thinning"


class Targeted(NamedTuple):
    """All positives, and negatives with probability min(1, c p(x) |x| / mean |x|), p a pilot's, a tenth of it their mean.

    With `weights=ipw` rows that were kept are weighted by 1 / probability, instead of offsets.
    """

    c: Positive = 20.0
    weights: Word = Word("offset")

    source = "Wang, Zhang and Wang 2021, NeurIPS, arXiv 2110.13048"


class Uniform(NamedTuple):
    """All positives, and c negatives for each of them, whichever they are."""

    c: Positive = 20.0
    weights: Word = Word("offset")

    source = "King and Zeng 2001, Political Analysis 9"


class LocalCaseControl(NamedTuple):
    """Rows with probability min(1, c |y - p(x)|), p a pilot's; beyond 1 they weigh more. Right even if the model is not."""

    c: Positive = 1.0

    source = "Fithian and Hastie 2014, Annals of Statistics 42"
