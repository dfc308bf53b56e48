"""Which states a solve keeps for its gradient.

Steps are divided into segments. The first state of each is kept, and the backward pass
recomputes the others of one segment at a time, the last segment first:

    step            0   1   2   3   4   5   6   7   8
    kept            x           x           x            each begins a segment
    recomputed          .   .       .   .       .   .    when its segment is due

`Segments` are fixed before a solve. The number of adaptive steps is not known: then
`Growing` or `Doubling` decide during the solve, and give the segments afterwards.
"""

import abc
import dataclasses
import math
from typing import Any, ClassVar

from keras import ops

from keras_nanode import backend
from keras_nanode.arrays import as_integer, where
from keras_nanode.structures import buffers, read, write
from keras_nanode.tree import Structure


@dataclasses.dataclass(frozen=True)
class Segments:
    """`count` steps, divided into segments.

    The first `equal + 1` segments have the same length. After them each is `growth`
    steps longer than the one before, but the last may be shorter.

    The kept states and the recomputed ones share one buffer. The backward pass visits
    segments last to first, so segment s may overwrite slots s and up: later segments
    are done.

    Args:
        count: The number of steps, an integer or a tensor.
        first_length: The length of the first segment, an integer or a tensor.
        growth: Integer.
        most: The largest number of segments.
        capacity: The number of slots in the buffer. It is an upper bound, over all
            segments, of a segment's length plus the number of segments before it.
        equal: Non-negative integer.
    """

    count: Any
    first_length: Any
    growth: int
    most: int
    capacity: int
    equal: int = 0

    @classmethod
    def split(cls, count: int, num: int) -> "Segments":
        """At most `num` segments, in as few slots as possible."""
        # Each is a step shorter than the one before, unless the last would be empty.
        if num * (num + 1) // 2 <= count:
            longest = -(-(count + num * (num - 1) // 2) // num)
            return cls(count, longest, -1, num, longest)
        length = -(-count // num)
        return cls(count, length, 0, num, num + length - 1)

    @classmethod
    def of_one_length(cls, count: Any, limit: Any, num: int | None) -> "Segments":
        """`num` equal segments of `count` steps, where `count` is a tensor.

        Without a `num`, there are ceil(sqrt(limit)) segments. `limit` is the largest
        `count`, itself a tensor if unknown.
        """
        if not isinstance(limit, int):
            root = _root(limit)
            num = num or ops.where(root > 1, root, 1)
        else:
            num = min(num or _root(limit), limit)
        length = -(-count // num)
        length = ops.where(length > 1, length, 1)
        return cls(count, length, 0, num, num + -(-limit // num))

    @property
    def each_step(self) -> bool:
        """Whether every state is kept."""
        known = isinstance(self.first_length, int)
        return known and self.first_length == 1 and self.growth == 0

    @property
    def longest(self) -> int | None:
        """The largest length of a segment, if it is known."""
        known = isinstance(self.first_length, int) and self.growth <= 0
        return self.first_length if known else None

    @property
    def number(self):
        """The number of segments."""
        if isinstance(self.count, int):
            return sum(self._first(s) < self.count for s in range(self.most))
        firsts = self._first(ops.arange(self.most, dtype="int32"))
        # On JAX, a sum of 32 bits may have 64.
        number = ops.sum(ops.cast(firsts < self.count, "int32"))
        return ops.cast(number, "int32")

    def segments(self, count: Any, mark: Any) -> "Segments":
        """Itself. `Rule` has the same method."""
        del count, mark
        return self

    def _first(self, s):
        later = _positive_part(s - self.equal)
        return s * self.first_length + self.growth * (later * (later - 1) // 2)

    def span(self, s: Any) -> tuple[Any, Any]:
        """The first step of segment s, and its number of steps."""
        first, later = self._first(s), _positive_part(s - self.equal)
        length, left = self.first_length + self.growth * later, self.count - first
        if isinstance(length, int) and isinstance(left, int):
            return first, min(length, left)
        return first, ops.minimum(length, left)


def _positive_part(x):
    return max(x, 0) if isinstance(x, int) else ops.where(x > 0, x, 0)


def _root(x):
    """ceil(sqrt(x)) of an integer or a tensor."""
    if isinstance(x, int):
        return math.ceil(math.sqrt(x))
    return ops.cast(ops.ceil(ops.cast(x, "float32") ** 0.5), "int32")


class Rule(abc.ABC):
    """Which states to keep if the number of steps is unknown.

    `limit` is the largest number of steps, a tensor if that is unknown. The state of
    the rule is one integer, `mark`. Its first value is `first_mark`.
    """

    limit: Any
    first_mark: int

    @property
    @abc.abstractmethod
    def capacity(self) -> Any:
        """As in `Segments`."""

    @abc.abstractmethod
    def keep(
        self, saved: Structure, mark: Any, i: Any, y: Structure
    ) -> tuple[Structure, Any]:
        """Writes the state before step i if it is kept. Gives buffers and new mark."""

    @abc.abstractmethod
    def segments(self, count: Any, mark: Any) -> Segments:
        """The segments that `count` steps were divided into."""

    def start(self, y: Structure) -> Structure:
        """The first buffers."""
        return buffers(self.capacity, y)


@dataclasses.dataclass(frozen=True)
class Growing(Rule):
    """Keeps the first states, and then one after 1, 4, 9, ... further steps.

    Up to `FIRST` steps, nothing is recomputed. At most FIRST + ceil(sqrt(n)) states are
    kept, for any number n of steps. The mark is the slot of the next state to keep.
    """

    limit: Any
    first_mark = 0
    FIRST: ClassVar = 16

    @property
    def most(self) -> Any:
        most = self.FIRST + _root(_positive_part(self.limit - self.FIRST))
        return where(self.limit < most, self.limit, most)

    @property
    def capacity(self) -> Any:
        # The last segment is the longest, and it comes after all others.
        before = self.most - 1
        return before + 2 * _positive_part(before - self.FIRST) + 1

    def keep(self, saved, mark, i, y):
        later = _positive_part(mark - self.FIRST)
        mark = mark + as_integer(i > mark + later * (later - 1))
        # A state that is not kept is written too, to the slot of the next one that is.
        # This is cheaper than a branch.
        return write(saved, mark, y), mark

    def segments(self, count, mark):
        del mark
        return Segments(count, 1, 2, self.most, self.capacity, self.FIRST)


@dataclasses.dataclass(frozen=True)
class Doubling(Rule):
    """Keeps every 1st, 2nd, 4th, ... state, at most `num` in all.

    When all slots are taken, every other state is dropped and the stride doubles. The
    mark is the stride.
    """

    limit: Any
    num: int
    first_mark = 1

    @property
    def capacity(self) -> Any:
        if isinstance(self.limit, int):
            return self.num + 2 ** math.ceil(math.log2(max(1, self.limit / self.num)))
        # More than twice the quotient is more than the power of 2 above it.
        return self.num + 2 * self.limit // self.num + 2

    def keep(self, saved, mark, i, y):
        # Write first: XLA cannot read from an unwritten buffer of unknown batch size.
        saved = write(saved, (i + mark - 1) // mark, y)
        full = i == self.num * mark
        stay = as_integer(where(full, self.num // 2 + 1, 0))
        saved = backend.fori_loop(
            stay, lambda j, saved: write(saved, j, read(saved, 2 * j)), saved
        )
        return saved, where(full, 2 * mark, mark)

    def segments(self, count, mark):
        return Segments(count, mark, 0, self.num + 1, self.capacity)
