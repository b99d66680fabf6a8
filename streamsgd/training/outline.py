"""What is known of a job before its memory is planned: so that phases can say what they take, and whether they run at all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from streamsgd.kernels.models.machines import rows_apart, rows_of, width_of
from streamsgd.kernels.parts.traits import holds_factors

if TYPE_CHECKING:
    from streamsgd.features.encoding import Encoding
    from streamsgd.kernels.structs.block import Parts
    from streamsgd.settings.fields import Settings
    from streamsgd.stream.loader import Loader


@dataclass(frozen=True)
class Outline:
    """Settings, parts and sizes: nothing that `--memory` decides, for what follows from it decides bits."""

    settings: Settings
    parts: Parts
    encoding: Encoding
    n_rows: int
    """Of the data, as its footers say."""
    row_bytes: int
    """Of an encoded row."""
    epochs: int
    held: bool
    """Whether rows are held out."""
    thinned: bool
    """Whether rows are thinned by their class."""
    lanes: int = 1

    @classmethod
    def of(
        cls, settings: Settings, parts: Parts, recipe: Loader, epochs: int, *, thinned: bool = False, lanes: int = 1
    ) -> Self:
        """Return the outline of passes over what a recipe reads."""
        sizes = recipe.dataset.n_rows, recipe.row_bytes, epochs
        return cls(settings, parts, recipe.encoding, *sizes, held=bool(recipe.held), thinned=thinned, lanes=lanes)

    @property
    def n_coordinates(self) -> int:
        """Weights per output."""
        return self.encoding.n_coordinates

    @property
    def n_outputs(self) -> int:
        """Scores per row."""
        return int(getattr(self.parts.loss, "classes", 1))

    @property
    def width(self) -> int:
        """Parameters per coordinate: the columns of weights."""
        return width_of(self.parts.model, self.n_outputs)

    @property
    def shape(self) -> tuple[int, int]:
        """Of the weights of the model: a row per coordinate, and what belongs to none below."""
        return rows_of(self.parts.model, self.n_coordinates), self.width

    @property
    def n_weights(self) -> int:
        """Weights of the learner, intercepts included; where factors are memories of an optimizer, of the linear part."""
        if holds_factors(self.parts.optimizer):
            return rows_apart(self.parts.model, self.n_coordinates)
        return self.n_parameters

    @property
    def n_parameters(self) -> int:
        """Weights of the model, wherever the learner keeps them."""
        rows, width = self.shape
        return rows * width
