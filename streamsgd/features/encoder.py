"""An encoding made ready for the kernels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from streamsgd.errors import DataError
from streamsgd.features.arrow import address, bitmap, float_address, has_nulls, is_double
from streamsgd.features.categories import CategoryEncoder
from streamsgd.features.hashing import name_seed
from streamsgd.features.numbers import number_values
from streamsgd.features.ragged import RaggedEncoder
from streamsgd.kernels.encode.categories import Codes, Crosses, scatter_slots
from streamsgd.kernels.encode.numbers import Columns, scatter
from streamsgd.kernels.structs.rows import OWN

if TYPE_CHECKING:
    from streamsgd.features.encoding import Encoding
    from streamsgd.kernels.structs.block import Block


@dataclass
class Scattered:
    """What writing rows into a block found."""

    missing: np.ndarray
    """int64 (n_numbers,): missing values among the rows kept."""
    infinite: np.ndarray
    """int64 (n_numbers + n_tails,): infinite ones, or rows that have one."""
    pools: list[np.ndarray]
    """Memory that rows point to: to be kept as long as they are."""


class Encoder:
    """An encoding made ready for the kernels: decoded columns in, rows of a block out."""

    def __init__(self, encoding: Encoding) -> None:
        columns, width = encoding.columns, encoding.width
        flags = {name: len(columns) + k for k, name in enumerate(encoding.indicators)}
        self.encoding, self.sources = encoding, encoding.sources
        self.place = np.array([*range(len(columns)), width, width + 1], np.int64)
        self.flag = np.array([*(flags.get(column.name, -1) for column in columns), -1, -1], np.int64)
        self.shift = np.array([*(column.shift for column in columns), 0.0, 0.0])
        self.scale = np.array([*(column.scale for column in columns), 1.0, 1.0])
        self.fill = np.array([*(column.fill for column in columns), 0.0, 1.0])
        space = encoding.hashed
        self.coders = [CategoryEncoder(category, None if category.own else space) for category in encoding.categories]
        self.tailers = [RaggedEncoder(tail, space) for tail in encoding.tails] if space else []
        self.crosses = self._crosses()

    def _crosses(self) -> Crosses:
        crosses, space = self.encoding.crosses, self.encoding.hashed
        number = {category.name: k for k, category in enumerate(self.encoding.categories)}
        most = max((len(cross.members) for cross in crosses), default=0)
        members = np.full((len(crosses), most), -1, np.int32)
        for k, cross in enumerate(crosses):
            members[k, : len(cross.members)] = [number[name] for name in cross.members]
        seeds = np.array([name_seed(cross.name) for cross in crosses], np.uint32)
        return Crosses(members, seeds, space.first if space else 0, space.mask if space else 0)

    @property
    def texts(self) -> frozenset[str]:
        """Columns to read as dictionaries, so that each distinct value is looked at once."""
        tails = (tail.name for tail in self.encoding.tails if tail.kind == "text")
        return frozenset([*tails, *(c.column for c in self.encoding.categories if not (c.edges or c.part))])

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
        missing, infinite = self._scatter_numbers(named, dest, block, y, weight)
        if self.encoding.categories:
            self._scatter_slots(named, dest, block)
        pools, infinite_rows = self._scatter_tails(named, dest, block)
        return Scattered(missing, np.concatenate([infinite, infinite_rows]), pools)

    def _scatter_numbers(
        self, named: dict[str, Any], dest: np.ndarray, block: Block, y: np.ndarray | None, weight: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray]:
        numbers = [number_values(column, named[column.column]) for column in self.encoding.columns]
        where = [float_address(column) for column in numbers]
        wide = [is_double(column) for column in numbers]
        own = [y is not None, weight is not None]
        chosen = np.array([True] * len(numbers) + own)
        # Contiguous copies, kept alive in `extra` until the kernel is done.
        extra = [np.ascontiguousarray(values, np.float64) for values in (y, weight) if values is not None]
        where += [values.ctypes.data for values in extra]
        bound = Columns(
            np.array(where, np.int64),
            np.array(wide + [True] * len(extra), np.bool_),
            self.place[chosen],
            self.flag[chosen],
            self.shift[chosen],
            self.scale[chosen],
            self.fill[chosen],
            np.array([has_nulls(named[column.column]) for column in self.encoding.columns] + [False] * len(extra), np.bool_),
        )
        missing, infinite = np.zeros(len(where), np.int64), np.zeros(len(where), np.int64)
        scatter(bound, dest, block.rows.values, missing, infinite)
        return missing[: len(numbers)], infinite[: len(numbers)]

    def _scatter_slots(self, named: dict[str, Any], dest: np.ndarray, block: Block) -> None:
        codes = [coder.codes(named[coder.column.column]) for coder in self.coders]
        arrays = [found if isinstance(found, np.ndarray) else found[0] for found in codes]
        tables = [None if isinstance(found, np.ndarray) else np.append(found[1], np.int32(0)) for found in codes]
        bits = [bitmap(array) for array in arrays]
        bound = Codes(
            np.array([address(array) for array in arrays], np.int64),
            np.array([where for where, _ in bits], np.int64),
            np.array([skip for _, skip in bits], np.int64),
            np.array([0 if table is None else address(table) for table in tables], np.int64),
            np.array([coder.null for coder in self.coders], np.int64),
        )
        scatter_slots(bound, self.crosses, dest, self.encoding.width + OWN, block.rows.ids)

    def _scatter_tails(self, named: dict[str, Any], dest: np.ndarray, block: Block) -> tuple[list[np.ndarray], np.ndarray]:
        kept = dest >= 0
        places, pools, infinite = dest[kept], [], np.zeros(len(self.tailers), np.int64)
        for k, tailer in enumerate(self.tailers):
            tails = tailer.tails(named[tailer.column.name])
            block.rows.tails[places, k, 0] = tails.addresses[kept]
            block.rows.tails[places, k, 1] = tails.counts[kept]
            infinite[k] = kept[tails.infinite].sum()
            pools.append(tails.pool)
        return pools, infinite

    def check_infinite(self, infinite: np.ndarray, where: str) -> None:
        """Refuse infinite feature values by name.

        Raises
        ------
        DataError
            A kept row holds one.

        """
        if infinite.any():
            worst = int(np.flatnonzero(infinite)[0])
            names = [column.column for column in self.encoding.columns] + [tail.name for tail in self.encoding.tails]
            name = names[worst]
            raise DataError(
                f"{where}: feature {name!r} is infinite in {int(infinite[worst]):,} rows; clean it, or leave it out with "
                f"--exclude '{name}', or take infinite values as missing with --infinite missing"
            )
