"""Which states to keep of a solve while the number of its steps is not known yet."""

import dataclasses
import math

from keras import ops

from keras_nanode import backend
from keras_nanode.solve import Legs, read, write


@dataclasses.dataclass(frozen=True)
class Squares:
    """The states 0, 1, 4, 9, ...: ceil(sqrt(n)) of n steps, however many there are.

    `limit` steps at most. The mark is the slot of the next state to stay.
    """

    limit: int
    mark = 0

    @property
    def most(self) -> int:
        return math.ceil(math.sqrt(self.limit))

    @property
    def slots(self) -> int:
        """The last leg is the longest: 2 s + 1 steps after s others."""
        return 3 * self.most - 2

    def keep(self, saved, mark, i, y):
        """State i joins `saved`; the new mark."""
        mark = mark + ops.cast(i > mark * mark, "int32")
        # Between two squares the slot of the second is written in vain, which is
        # cheaper than a branch.
        return write(saved, mark, y), mark

    def legs(self, count, mark) -> Legs:
        del mark
        return Legs(count, 1, 2, self.most, self.slots)


@dataclasses.dataclass(frozen=True)
class Doubling:
    """Every 1st, 2nd, 4th, ... state, so that there are `num` at most.

    When all are taken every other one is dropped, and the stride doubles. The mark is
    the stride.
    """

    limit: int
    num: int
    mark = 1

    @property
    def slots(self) -> int:
        return self.num + 2 ** math.ceil(math.log2(max(1, self.limit / self.num)))

    def keep(self, saved, mark, i, y):
        """State i joins `saved`; the new mark."""
        # Written first: XLA has no buffer of an unknown batch size to read from before.
        saved = write(saved, (i + mark - 1) // mark, y)
        full = i == self.num * mark
        stay = ops.where(full, ops.cast(self.num // 2 + 1, "int32"), 0)
        saved = backend.fori_loop(
            stay, lambda j, saved: write(saved, j, read(saved, 2 * j)), saved
        )
        return saved, ops.where(full, 2 * mark, mark)

    def legs(self, count, mark) -> Legs:
        return Legs(count, mark, 0, self.num + 1, self.slots)
