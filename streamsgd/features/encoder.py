"""An encoding made ready for the kernels: a loop over the encoders of the kinds of columns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from streamsgd.errors import DataError
from streamsgd.features.arrow import beyond_float32
from streamsgd.features.column import Destination, Scattered
from streamsgd.features.look.sentinels import nulled
from streamsgd.messages import counted
from streamsgd.settings.policies import policy_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from streamsgd.features.encoding import Encoding
    from streamsgd.kernels.structs.block import Block


class Encoder:
    """An encoding made ready for the kernels: decoded columns in, rows of a block out."""

    def __init__(self, encoding: Encoding) -> None:
        self.encoding, self.sources = encoding, encoding.sources
        used = [group for group in encoding.groups if group.configs or group.places.number == 0]
        self.kinds = tuple(group.kind.encoder(group.configs, group.places) for group in used)

    @property
    def dictionaries(self) -> frozenset[str]:
        """Columns to read as dictionaries, so that each distinct value is looked at once."""
        return frozenset(name for kind in self.kinds for name in kind.dictionaries)

    def scatter(
        self,
        columns: list[Any],
        dest: np.ndarray,
        block: Block,
        y: np.ndarray | None = None,
        weight: np.ndarray | None = None,
    ) -> Scattered:
        """Write rows to their places in a block.

        Parameters
        ----------
        columns
            One Arrow column of n_rows values per source.
        dest
            int32 (n_rows,): the row of the block for each row, -1 for a dropped one.
        block
            As of the encoding's layout.
        y, weight
            float64 (n_rows,), or None to leave targets 0 and weights 1.

        """
        named = dict(zip(self.sources, columns, strict=True))
        named = nulled(named, self.encoding.nulls) if self.encoding.nulls else named
        rows = Destination(dest, block, y, weight)
        return Scattered.joined([kind.scatter(named, rows) for kind in self.kinds])

    def check_infinite(
        self, infinite: np.ndarray, where: str, columns: Sequence[Any] = (), remedy: str = "pass --infinite missing"
    ) -> None:
        """Refuse infinite feature values by name.

        Raises
        ------
        DataError
            A kept row holds one.

        """
        if infinite.any():
            worst = int(np.flatnonzero(infinite)[0])
            name = [name for kind in self.kinds for name in kind.finite][worst]
            beyond = beyond_float32(columns[self.sources.index(name)]) if len(columns) else None
            rows = counted(int(infinite[worst]), "row")
            if beyond is None:
                raise DataError(f"{where}: feature {name!r} is infinite in {rows}; clean it, or take that as missing: {remedy}")
            raise DataError(
                f"{where}: feature {name!r} is beyond what float32 holds, as {beyond:g} is, in {rows}; clean it, "
                f"train with --precision float64, or take that as missing: {remedy}"
            )

    def check_missing(self, missing: np.ndarray, policies: Sequence[str], where: str) -> None:
        """Refuse missing numbers by name, of columns whose policy is `error`.

        Raises
        ------
        DataError
            A kept row lacks one.

        """
        if not missing.any():
            return
        names = [names for kind in self.kinds for names in kind.filled]
        for worst in np.flatnonzero(missing[: len(names)]).tolist():  # kinds of one's own, which come last, fill in themselves
            if policy_of("missing", policies, *names[worst]) == "error":
                rows = counted(int(missing[worst]), "row")
                raise DataError(
                    f"{where}: feature {names[worst][-1]!r} is missing in {rows}, which --missing error forbids in training "
                    "and after it; fill it in, or train with --missing mean, or another of its choices"
                )
