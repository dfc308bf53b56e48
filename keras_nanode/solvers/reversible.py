"""Reversible methods: the state before a step can be computed from the one after."""

import dataclasses
import functools

import keras

from keras_nanode import checks, tableaus, tree
from keras_nanode.solvers import runge_kutta
from keras_nanode.solvers.solver import Solver
from keras_nanode.structures import add, advance, weighted


class _Reversible(Solver):
    is_reversible = True

    def value(self, state):
        return state[0]

    def value_transpose(self, cotangent, a):
        return add(a[0], cotangent), *a[1:]


@dataclasses.dataclass(frozen=True, repr=False)
class ReversibleHeun(_Reversible):
    """Reversible Heun (Kidger et al. 2021, arXiv 2105.13493): order 2, one evaluation
    per step. The state is (y, u, g) with g = f(t, u)."""

    name = "reversible_heun"
    evaluations = 1
    tableau = tableaus.ALL["heun"]
    nodes = (0.0, 1.0)
    carries_slopes = True

    def start(self, f, y):
        return y, y, f(0, y)

    def step(self, f, h, state):
        y, u, g = state
        u = advance(weighted((2, y), (-1, u)), h, (1,), [g])
        g_end = f(1, u)
        return advance(y, h, (0.5, 0.5), [g, g_end]), u, g_end

    def step_back(self, f, h, state):
        y, u, g = state
        u = advance(weighted((2, y), (-1, u)), h, (-1,), [g])
        g_start = f(0, u)
        return advance(y, h, (-0.5, -0.5), [g_start, g]), u, g_start

    def cross_jump(self, f, before, state):
        y, u, _ = state
        return y, u, f(0, u)

    def uncross_jump(self, f, before, state):
        y, u, _ = state
        return y, u, before(0, u)


@dataclasses.dataclass(frozen=True, repr=False)
class AsynchronousLeapfrog(_Reversible):
    """ALF (Zhuang et al. 2021, MALI, arXiv 2102.04668): order 2, one evaluation per
    step. The state is (y, v), where v approximates y'."""

    name = "alf"
    evaluations = 1
    tableau = tableaus.ALL["midpoint"]
    nodes = (0.0, 0.5)
    carries_slopes = True

    def start(self, f, y):
        return y, f(0, y)

    def step(self, f, h, state):
        y, v = state
        middle = advance(y, h, (0.5,), [v])
        v = weighted((2, f(1, middle)), (-1, v))
        return advance(middle, h, (0.5,), [v]), v

    def step_back(self, f, h, state):
        y, v = state
        middle = advance(y, h, (-0.5,), [v])
        v = weighted((2, f(1, middle)), (-1, v))
        return advance(middle, h, (-0.5,), [v]), v

    def cross_jump(self, f, before, state):
        # v may differ from y' by an error of earlier steps. Keep that difference.
        y, v = state
        return y, weighted((1, v), (1, f(0, y)), (-1, before(0, y)))

    def uncross_jump(self, f, before, state):
        y, v = state
        return y, weighted((1, v), (-1, f(0, y)), (1, before(0, y)))


@keras.saving.register_keras_serializable("keras_nanode")
class Reversible(_Reversible):
    """Makes any explicit Runge-Kutta method reversible, at twice its evaluations.

    A second state z accompanies y. Each is advanced with slopes from the other:

        y' = coupling y + (1 - coupling) z + Psi_h(t, z),    z' = z - Psi_-h(t + h, y')

    where Psi_h is the increment in a step of the wrapped method, whose order is kept.

    Args:
        solver: The name of a Runge-Kutta method, or a `keras_nanode.tableaus.Tableau`.
        coupling: Number in (0, 1]. Below 1 it keeps y and z together, which makes the
            method more stable and its inverse less exact.

    Raises:
        ValueError: if `solver` is not a Runge-Kutta method or `coupling` is invalid.

    Example:

    >>> import keras
    >>> from keras_nanode import Reversible, layers
    >>> ode = layers.ODE(
    ...     keras.layers.Dense(3), Reversible("rk4"), steps=8, adjoint="reversible"
    ... )
    >>> ode(keras.ops.ones((2, 3))).shape[1]
    3

    References:
        - [McCallum and Foster, 2024](https://arxiv.org/abs/2410.11648)
    """

    def __init__(
        self, solver: str | tableaus.Tableau | Solver, coupling: float = 0.999
    ):
        wrapped = runge_kutta.find(solver)
        if wrapped is None:
            raise checks.wrong(
                "solver",
                solver,
                "a Runge-Kutta method to be made reversible, one of "
                f"{sorted(tableaus.ALL)} or a `keras_nanode.tableaus.Tableau`",
            )
        self.solver = wrapped
        self.coupling = checks.number(
            "coupling", coupling, "a number in (0, 1]", lambda c: 0 < c <= 1
        )
        self.tableau = wrapped.tableau

    @property
    def name(self):
        return f"reversible({self.solver.name})"

    @property
    def evaluations(self):
        return 2 * self.solver.evaluations

    @functools.cached_property
    def nodes(self):
        nodes = self.solver.nodes
        return tuple(sorted({*nodes, *map(_mirrored, nodes)}))

    def start(self, f, y):
        return y, y

    def step(self, f, h, state):
        y, z = state
        mixed = weighted((self.coupling, y), (1 - self.coupling, z))
        y = add(mixed, self._forwards(f, h, z))
        return y, weighted((1, z), (-1, self._backwards(f, h, y)))

    def step_back(self, f, h, state):
        y, z = state
        z = add(z, self._backwards(f, h, y))
        change = self._forwards(f, h, z)
        y = weighted((1, y), (self.coupling - 1, z), (-1, change))
        return tree.map_structure(lambda x: x / self.coupling, y), z

    def _forwards(self, f, h, y):
        """The increment of y in a step of the wrapped method."""
        node = [self.nodes.index(c) for c in self.solver.nodes]
        return self.solver.change(lambda i, y: f(node[i], y), h, y)

    def _backwards(self, f, h, y):
        """The increment of y in its step of length -h, from the end of this step."""
        node = [self.nodes.index(_mirrored(c)) for c in self.solver.nodes]
        return self.solver.change(lambda i, y: f(node[i], y), -h, y)

    def __eq__(self, other):
        return isinstance(other, Reversible) and (
            (self.solver, self.coupling) == (other.solver, other.coupling)
        )

    def __hash__(self):
        return hash((self.solver, self.coupling))

    def __repr__(self):
        wrapped = runge_kutta.serialize(self.solver)
        return f"Reversible({wrapped!r}, coupling={self.coupling})"

    def get_config(self) -> dict:
        return {"solver": runge_kutta.serialize(self.solver), "coupling": self.coupling}

    @classmethod
    def from_config(cls, config: dict) -> "Reversible":
        return cls(**checks.config(cls, config))


def _mirrored(node: float) -> float:
    # Round, so that 1 - 0.8 is 0.2.
    return round(1 - node, 15)
