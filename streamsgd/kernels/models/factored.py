"""What `normalized` becomes where it learns a factorization machine row by row."""

from typing import Any, NamedTuple

from streamsgd.kernels.parts.optimizers import Normalized

LINE_NUMBERS = 16
"""float32 in a line of memory."""


class NormalizedFactors(NamedTuple):
    """What `normalized` becomes for a factorization machine: see `kernels.learn.factors`; factors stand among its memories."""

    learning_rate: float = 0.5
    k: int = 8

    merges_first = ("mean", "max", "mean", "mean")
    weighs_by = 0
    rate_scaling = "none"
    rule = "factors"
    source = "as of normalized; one rate for the factors of a value as in row-wise Adagrad (Naumov et al. 2019, DLRM)"

    @property
    def n_slots(self) -> int:
        """Numbers of a weight, so many that with it and a gradient they fill whole lines of 16 float32."""
        used = 2 + len(self.merges_first) + self.k
        return -(-used // LINE_NUMBERS) * LINE_NUMBERS - 2

    @property
    def merges(self) -> tuple[str, ...]:
        """How each memory of several lanes becomes one."""
        return self.merges_first + ("mean",) * (self.n_slots - len(self.merges_first))

    @property
    def named(self) -> Any:
        """What people call it."""
        cls: Any = Normalized
        return cls(self.learning_rate)

    def prepare(optimizer, step):
        return 0.0, 0.0
