"""What scoring and evaluating need of a model: less than a `Model`, which stands above them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, Self

if TYPE_CHECKING:
    import numpy as np

    from streamsgd.features.encoding import Encoding
    from streamsgd.features.target import Target
    from streamsgd.kernels.structs.block import Block
    from streamsgd.model.posterior.draws import Draws
    from streamsgd.model.probability.score_map import ScoreMap
    from streamsgd.model.probability.sketch import ScoreSketch, Spread


class Predictor(Protocol):
    """Rows of a block in, scores and means out."""

    @property
    def loss(self) -> Any:
        """A loss of `kernels.parts.losses`, or a user's."""

    @property
    def structure(self) -> Any:
        """What makes a score of a row: a model of `kernels.models.machines`, as people name it."""

    @property
    def target(self) -> Target:
        """What is predicted."""

    @property
    def encoding(self) -> Encoding:
        """How columns become a block."""

    @property
    def weights(self) -> np.ndarray:
        """(n_coordinates, n_outputs), or as the structure has them."""

    @property
    def settings(self) -> dict[str, Any]:
        """Those of training that say what is skipped or missing, and which columns are ids."""

    @property
    def classes(self) -> tuple[Any, ...]:
        """Of the target; none of a number."""

    @property
    def covariance(self) -> np.ndarray | None:
        """Of the weights, if it is known."""

    @property
    def draws(self) -> Draws | None:
        """From the posterior of the weights, if there are any."""

    @property
    def conformal(self) -> ScoreSketch | None:
        """Scores of rows that it has not seen, if it was calibrated."""

    @property
    def spread(self) -> Spread | None:
        """What residuals are divided by, if they are."""

    @property
    def score_map(self) -> ScoreMap | None:
        """What makes log-odds of the scores of the weights, if they are none."""

    @property
    def n_outputs(self) -> int:
        """Scores per row."""

    @property
    def has_probabilities(self) -> bool:
        """Whether means are probabilities of classes."""

    def score_block(self, block: Block, start: int, stop: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return scores and means (n, n_outputs) and losses (n,) of rows start to stop."""

    def decide(self, means: np.ndarray) -> np.ndarray:
        """Return predictions (n,) from means in units of the target."""

    def in_target_units(self, values: np.ndarray) -> np.ndarray:
        """Return values of a block in units of the target."""

    def predict(self, data: Any) -> np.ndarray:
        """Return predictions (n,) of a table."""

    def to_bytes(self) -> bytes:
        """Return what a file of it holds, by which it is known again."""

    def with_own_weights(self) -> Self:
        """Return the same with weights in C order that may be written: what came by wire may be neither."""
