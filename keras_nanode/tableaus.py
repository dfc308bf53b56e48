"""Explicit Runge-Kutta methods as data that checks itself.

A tableau of s stages advances dy/dt = f(t, y) by

    k_i = f(t + c_i h, y + h sum_j a_ij k_j),    y' = y + h sum_i b_i k_i

(Butcher, Numerical Methods for Ordinary Differential Equations, section 23).
"""

import dataclasses
import functools
import itertools

import keras
import numpy as np

Tree = tuple  # a rooted tree: the tuple of its root's subtrees


@keras.saving.register_keras_serializable("keras_nanode")
@dataclasses.dataclass(frozen=True)
class Tableau:
    """An explicit Runge-Kutta method.

    Args:
        name: String, the method's name.
        order: Positive integer. The tableau must fulfil every order condition up to
            it (one for each rooted tree with that many nodes at most).
        a: Stage i's coefficients, one row a stage; row i has i numbers.
        b: Weights of the stages, one a stage.

    Raises:
        ValueError: if the shapes do not fit or an order condition is violated.

    Example:

    >>> from keras_nanode import tableaus
    >>> ssp3 = tableaus.Tableau(
    ...     "ssp3", order=3, a=((), (1.0,), (0.25, 0.25)), b=(1 / 6, 1 / 6, 2 / 3)
    ... )
    >>> ssp3.c
    (0.0, 1.0, 0.5)

    References:
        - [Butcher, 2016](https://doi.org/10.1002/9781119121534)
    """

    name: str
    order: int
    a: tuple[tuple[float, ...], ...]
    b: tuple[float, ...]

    def __post_init__(self):
        # Lists arrive from a saved configuration.
        object.__setattr__(self, "a", tuple(tuple(row) for row in self.a))
        object.__setattr__(self, "b", tuple(self.b))
        if [len(row) for row in self.a] != list(range(len(self.b))):
            raise ValueError(
                f"The tableau {self.name!r} is not explicit: with {len(self.b)} "
                f"weights in `b`, `a` needs rows of 0 to {len(self.b) - 1} numbers. "
                f"Received: a={self.a}"
            )
        residual = order_residual(self.a, self.b, self.order)
        if residual > 1e-10:
            raise ValueError(
                f"The tableau {self.name!r} does not have order {self.order}: an "
                f"order condition is violated by {residual:.1e}. Correct `a` and `b`, "
                f"or state a lower order. Received: a={self.a}, b={self.b}"
            )

    @property
    def num_stages(self) -> int:
        return len(self.b)

    @property
    def c(self) -> tuple[float, ...]:
        """The stages' places in the step, as fractions of it."""
        return tuple(float(sum(row)) for row in self.a)

    def get_config(self) -> dict:
        return dataclasses.asdict(self)

    @classmethod
    def from_config(cls, config: dict) -> "Tableau":
        return cls(**config)


@functools.cache
def _trees(order: int) -> tuple[Tree, ...]:
    """All rooted trees with `order` nodes."""
    if order == 1:
        return ((),)
    found = set()
    for sizes in _partitions(order - 1, order - 1):
        for subtrees in itertools.product(*(_trees(size) for size in sizes)):
            found.add(tuple(sorted(subtrees)))
    return tuple(sorted(found))


def _partitions(total: int, largest: int):
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


def order_residual(a, b, order: int) -> float:
    """The largest |b . Phi(tree) - 1 / gamma(tree)| over all trees up to `order`."""
    stages = len(b)
    matrix = np.array([[*row, *[0.0] * (stages - len(row))] for row in a])
    return max(
        abs(np.dot(b, _stage_weights(matrix, tree)) - 1 / _density(tree))
        for size in range(1, order + 1)
        for tree in _trees(size)
    )


_METHODS = (
    Tableau("euler", 1, a=((),), b=(1.0,)),
    Tableau("midpoint", 2, a=((), (1 / 2,)), b=(0.0, 1.0)),
    Tableau("heun", 2, a=((), (1.0,)), b=(1 / 2, 1 / 2)),
    # Ralston 1962: the second-order method with the smallest bound on the error.
    Tableau("ralston", 2, a=((), (2 / 3,)), b=(1 / 4, 3 / 4)),
    # Kutta 1901.
    Tableau(
        "rk4",
        4,
        a=((), (1 / 2,), (0.0, 1 / 2), (0.0, 0.0, 1.0)),
        b=(1 / 6, 1 / 3, 1 / 3, 1 / 6),
    ),
)

ALL = {method.name: method for method in _METHODS}


def get(solver) -> Tableau:
    """The tableau for a name, or the tableau itself.

    Args:
        solver: One of the names in `ALL`, or a `Tableau`.

    Raises:
        ValueError: if there is no such solver.
    """
    if isinstance(solver, Tableau):
        return solver
    if isinstance(solver, dict):
        return keras.saving.deserialize_keras_object(solver)
    if solver not in ALL:
        raise ValueError(
            f"Unknown `solver`. Use one of {sorted(ALL)} or a "
            f"`keras_nanode.tableaus.Tableau`. Received: solver={solver!r}"
        )
    return ALL[solver]


def serialize(solver: Tableau):
    """What `get` reads back: the name if it is one of ours, else the numbers."""
    if ALL.get(solver.name) == solver:
        return solver.name
    return keras.saving.serialize_keras_object(solver)
