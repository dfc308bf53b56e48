"""A change of basis: the coefficients over another basis of the nearest functions.

"Nearest" is in the least-squares sense over the domain of the new basis:
int |theta_new(t) - theta_old(t)|^2 dt is as small as it can be.
"""

import dataclasses
import functools

import numpy as np
from keras import ops

from keras_nanode import backend
from keras_nanode.bases.basis import Basis

# Of a piece between breakpoints; more of them if the functions need it.
_NODES = 12
_MOST_DOUBLINGS = 6
# How far two rules of integration may differ. The error falls much faster than it.
_AGREEMENT = 1e-5


@dataclasses.dataclass(frozen=True, eq=False)
class Projection:
    """From coefficients over one basis to coefficients over another.

    Attributes:
        old, new: The bases. `new` has the domain, on which `old` is defined too.
        rounding: How precise the coefficients are, relative to their size. Combinations
            of functions that are smaller than this are left out.
    """

    old: Basis
    new: Basis
    rounding: float = 1e-7

    @classmethod
    def of(cls, old: Basis, new: Basis, dtype: str) -> "Projection":
        """For coefficients of a dtype."""
        return cls(old, new, 1e-15 if dtype == "float64" else 1e-7)

    @functools.cached_property
    def matrix(self) -> np.ndarray:
        """The new coefficients for each old one, (K_new, K_old)."""
        if self.old == self.new:
            return np.eye(self.new.size)
        return _fitted(self._z[1], self._z[0], self.rounding)

    @functools.cached_property
    def _back(self) -> np.ndarray:
        """The matrix of the way back, (K_old, K_new)."""
        if self.old == self.new:
            return np.eye(self.new.size)
        return _fitted(self._z[0], self._z[1], self.rounding)

    @functools.cached_property
    def _z(self) -> tuple[np.ndarray, np.ndarray]:
        return _weighted(self.old, self.new)

    def of_weights(self, coefficients: np.ndarray) -> np.ndarray:
        """For coefficients, and for what is added to them: a step, a velocity."""
        return _times(self.matrix, coefficients)

    def of_gradients(self, gradients: np.ndarray) -> np.ndarray:
        """For means of gradients in the coefficients.

        The gradient in alpha_k is int z_k(t) g(t) dt with the gradient g in theta. This
        takes the g that is a combination of the old functions.
        """
        return _times(self._back.T, gradients)

    def of_squares(self, squares: np.ndarray) -> np.ndarray:
        """For means of squared gradients in the coefficients.

        Gradients in different old coefficients are taken as independent. What a new
        function has outside of the old ones counts with the mean over the old ones of
        squared gradient per squared size: no new coefficient is thought to be still.
        """
        if self.old == self.new:
            return np.array(squares)
        old, new = self._z
        inside = old @ self._back
        outside = np.maximum(np.sum(new**2 - inside**2, axis=0), 0.0)
        mean = np.sum(squares, axis=0) / np.sum(old**2)
        return _times(self._back.T**2, squares) + np.multiply.outer(outside, mean)

    def take(self, kind: str, arrays: list[np.ndarray]) -> np.ndarray:
        """The change of one array, by what it is.

        Args:
            kind: "weights", "gradients", "squares", or "step squares", which are those
                of what is added to weights.
            arrays: The array.
        """
        changes = {
            "weights": self.of_weights,
            "gradients": self.of_gradients,
            "squares": self.of_squares,
            "step squares": lambda x: _times(self.matrix**2, x),
        }
        (array,) = arrays
        return changes[kind](array)


def distance(old: Basis, new: Basis, before: np.ndarray, after: np.ndarray) -> float:
    """The distance of two functions of time over the domain of `new`, relative to the
    size of the first."""
    z_old, z_new = _weighted(old, new)
    theta, moved = _times(z_old, before), _times(z_new, after)
    size = np.linalg.norm(theta)
    far = np.linalg.norm(moved - theta)
    return float(far / size) if size else float(far > 0)


def in_place_of(old: Basis, new: Basis, domain: tuple[float, float]) -> Basis:
    """The new basis over the domain where the old one is used.

    It is stretched if its domain is (0, 1), which it has if none is given.

    Raises:
        ValueError: if it has another domain.
    """
    expected = tuple(domain)
    if tuple(new.domain) == expected:
        return new
    if tuple(new.domain) == (0.0, 1.0) and "domain" in new.get_config():
        return new.over(expected)
    raise ValueError(
        "A basis can take the place of another one only over the same times. Give it "
        f"`domain={expected}`, or leave its domain out. "
        f"Received: basis={new!r} with the domain {tuple(new.domain)}, in place of "
        f"{old!r}"
    )


def _weighted(old: Basis, new: Basis) -> tuple[np.ndarray, np.ndarray]:
    """Both bases at the nodes of a quadrature, times the roots of its weights."""
    t0, t1 = new.domain
    cuts = {t for b in (old, new) for t in (*b.breakpoints, *_knots(b)) if t0 < t < t1}
    edges = np.array([t0, *sorted(cuts), t1])
    if old.piecewise_constant and new.piecewise_constant:
        return _at_nodes(old, new, edges, 1)
    pieces = len(edges) - 1
    nodes = _NODES + -(-2 * (old.size + new.size) // pieces)
    z = _at_nodes(old, new, edges, nodes)
    for _ in range(_MOST_DOUBLINGS):
        nodes *= 2
        coarse, z = z, _at_nodes(old, new, edges, nodes)
        gram, finer = (both.T @ both for both in map(np.hstack, (coarse, z)))
        if np.abs(gram - finer).max() <= _AGREEMENT * np.abs(finer).max():
            break
    return z


def _at_nodes(old, new, edges, nodes):
    x, weights = np.polynomial.legendre.leggauss(nodes)
    widths = np.diff(edges)[:, None] / 2
    times = (edges[:-1, None] + widths * (1 + x)).reshape(-1)
    roots = np.sqrt(widths * weights).reshape(-1, 1)
    with backend.eagerly():
        t = ops.convert_to_tensor(times)  # float64, where the backend has it
        old, new = (ops.convert_to_numpy(b.values(t)) for b in (old, new))
    return roots * old.astype("float64"), roots * new.astype("float64")


def _knots(basis: Basis) -> tuple[float, ...]:
    """Where a derivative jumps that is no breakpoint."""
    return getattr(basis, "knots", ())


def _fitted(z, target, rounding):
    return np.linalg.lstsq(z, target, rcond=rounding)[0]


def _times(matrix, stacked):
    return np.tensordot(matrix, np.asarray(stacked, "float64"), axes=1)
