"""The order conditions of Runge-Kutta methods: one for each rooted tree.

Butcher, Numerical Methods for Ordinary Differential Equations, sections 30 and 31.
"""

import functools
import itertools
from collections.abc import Iterator, Sequence

import numpy as np

Tree = tuple  # a rooted tree: the tuple of its root's subtrees


@functools.cache
def trees(order: int) -> tuple[Tree, ...]:
    """All rooted trees with `order` nodes."""
    if order == 1:
        return ((),)
    found = set()
    for sizes in _partitions(order - 1, order - 1):
        for subtrees in itertools.product(*(trees(size) for size in sizes)):
            found.add(tuple(sorted(subtrees)))
    return tuple(sorted(found))


def _partitions(total: int, largest: int) -> Iterator[tuple[int, ...]]:
    if total == 0:
        yield ()
    for first in range(min(total, largest), 0, -1):
        for rest in _partitions(total - first, first):
            yield (first, *rest)


def _size(tree: Tree) -> int:
    return 1 + sum(_size(subtree) for subtree in tree)


def _density(tree: Tree) -> int:
    """gamma(tree), Butcher section 30."""
    return _size(tree) * int(np.prod([_density(subtree) for subtree in tree]))


def _stage_weights(a: np.ndarray, tree: Tree) -> np.ndarray:
    """The elementary weight of `tree` at each stage."""
    factors = [a @ _stage_weights(a, subtree) for subtree in tree]
    return np.prod([np.ones(len(a)), *factors], axis=0)


def order_residual(
    a: Sequence[Sequence[float]], b: Sequence[float], order: int
) -> float:
    """The largest |b . Phi(tree) - 1 / gamma(tree)| over all trees up to `order`."""
    if order < 1:
        return 0.0
    stages = len(b)
    matrix = np.array([[*row, *[0.0] * (stages - len(row))] for row in a])
    return max(
        abs(np.dot(b, _stage_weights(matrix, tree)) - 1 / _density(tree))
        for size in range(1, order + 1)
        for tree in trees(size)
    )
