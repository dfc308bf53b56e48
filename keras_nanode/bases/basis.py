"""The interface of a basis."""

import abc
from collections.abc import Collection, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_nanode import checks, given_times


class Basis(abc.ABC):
    """A finite set of functions of time, z(t) = (z_1(t), ..., z_K(t)).

    Subclass it for a basis of your own: set `size`, write `__call__` and
    `get_config`, and register the class with
    `keras.saving.register_keras_serializable` so that models which use it can be saved.

    Attributes:
        size: K, the number of functions.
        domain: (t0, t1), the times for which the basis is meant.
        breakpoints: The increasing times inside the domain at which z or its slope
            jumps; () if there are none. A solver's step never sees both sides of a
            breakpoint: it belongs to the piece that contains its midpoint.
        piecewise_constant: Whether z is constant between breakpoints. If so, all stages
            of a step share one set of weights.
        unbounded: Whether z is defined outside the domain too. If not, an ODE whose
            `t_span` leaves the domain is refused.

    Example:

    >>> import keras
    >>> from keras_nanode import bases
    >>> @keras.saving.register_keras_serializable("my_package")
    ... class Decay(bases.Basis):
    ...     size = 2
    ...
    ...     def __call__(self, t):
    ...         return keras.ops.stack([keras.ops.ones_like(t), keras.ops.exp(-t)])
    ...
    ...     def get_config(self):
    ...         return {}
    >>> Decay()(keras.ops.convert_to_tensor(0.0)).shape[0]
    2
    """

    size: int
    domain: tuple[float, float] = (0.0, 1.0)
    breakpoints: tuple[float, ...] = ()
    piecewise_constant: bool = False
    unbounded: bool = False

    @abc.abstractmethod
    def __call__(self, t):
        """z(t) with shape (K,), floating and finite, for a scalar tensor t."""

    @abc.abstractmethod
    def get_config(self) -> dict:
        """The constructor arguments of an equal basis."""

    @classmethod
    def from_config(cls, config: dict) -> "Basis":
        return cls(**checks.config(cls, config))

    def __eq__(self, other):
        return type(self) is type(other) and self.get_config() == other.get_config()

    def __hash__(self):
        return hash((type(self), str(self.get_config())))

    def __repr__(self):
        arguments = ", ".join(f"{k}={v!r}" for k, v in self.get_config().items())
        return f"{type(self).__name__}({arguments})"

    def over(self, domain: Sequence[float]) -> "Basis":
        """The same basis, stretched to another domain, if its constructor takes one."""
        return type(self).from_config({**self.get_config(), "domain": domain})

    def values(self, t):
        """z at the times t: shape (n, K) for a tensor t of shape (n,)."""
        return ops.vectorized_map(self, t)

    def check_covers(self, name: str, times: Collection[float]) -> None:
        """Raises a ValueError if times leave the domain and z is not defined there."""
        check_pieces(self)
        first, last = float(min(times)), float(max(times))
        if not self.unbounded and (first < self.domain[0] or last > self.domain[1]):
            raise ValueError(
                f"The basis of the dynamics is not defined on all of `{name}`. "
                f"{_advice(self, (first, last))} Received: {name} from {first} to "
                f"{last}, basis={self!r}"
            )

    # A solver calls these three. A basis with only one nonzero function at a time
    # overrides them, which saves multiplications with zeros.

    def locate(self, t):
        """The input of `combine` for the times t, a tensor of shape (n,)."""
        return self.values(t)

    def combine(self, located, coefficients):
        """theta at n located times, (n, *w.shape), from coefficients (K, *w.shape)."""
        flat = ops.reshape(coefficients, (self.size, -1))
        # `ops.matmul` would turn float64 into float32 on JAX and PyTorch.
        theta = ops.cast(located, coefficients.dtype) @ flat
        return ops.reshape(theta, (located.shape[0], *coefficients.shape[1:]))

    def combine_transpose(self, located, cotangents):
        """The transpose of `combine`: cotangents (n, *w.shape) to (K, *w.shape)."""
        flat = ops.reshape(cotangents, (located.shape[0], -1))
        z = ops.cast(located, cotangents.dtype)
        return ops.reshape(ops.transpose(z) @ flat, (self.size, *cotangents.shape[1:]))


def _advice(basis: Basis, domain: tuple[float, float]) -> str:
    if "domain" in basis.get_config():
        return f"Give it `domain={domain}`: `{basis.over(domain)!r}`."
    return f"Give it the attribute `domain = {domain}`, or leave these times out."


# A larger number is a mistake, or an attack in a saved file: each piece takes memory,
# and an independent start takes a draw for each function.
MOST_FUNCTIONS = 2**12
# Each degree adds operations to the traced graph.
MOST_DEGREE = 100


def check_promises(basis: Basis) -> None:
    """Raises a ValueError if a basis breaks the interface that `Basis` documents."""
    try:
        _check_promises(basis)
    except ValueError as error:
        raise broken(basis, error) from None


def check_pieces(basis: Basis) -> None:
    """The part of `check_promises` that is about `domain` and `breakpoints`."""
    try:
        _edges(basis)
    except ValueError as error:
        raise broken(basis, error) from None


def broken(basis: Basis, error: ValueError | str) -> ValueError:
    """The error of a basis that breaks the interface."""
    return ValueError(
        f"The class {type(basis).__name__} does not keep what `bases.Basis` promises: "
        f"{error}, {basis!r}"
    )


def _check_promises(basis: Basis) -> None:
    size = checks.integer("size", getattr(basis, "size", None), 1, MOST_FUNCTIONS)
    edges = _edges(basis)
    for t in (edges[0], edges[-1]):
        _value(basis, size, t)
    for piece in np.unique(np.linspace(0, len(edges) - 2, 4).astype(int)):
        # Away from the jumps, which rounding moves.
        start, end = edges[piece], edges[piece + 1]
        _check_piece(basis, size, start + (end - start) * np.array([1, 4, 7]) / 8)


def _edges(basis: Basis) -> np.ndarray:
    """The ends of the domain, and the breakpoints between them."""
    t0, t1 = check_domain(basis.domain)
    expected = f"increasing times inside of the domain {(t0, t1)}"
    inside = checks.array("breakpoints", basis.breakpoints, expected)
    edges = np.concatenate([[t0], inside.reshape(-1), [t1]])
    if inside.ndim != 1 or not np.all(np.diff(edges) > 0):
        raise checks.wrong("breakpoints", basis.breakpoints, expected)
    return edges


def _check_piece(basis: Basis, size: int, times: np.ndarray) -> None:
    """Checks z at times between two neighbouring breakpoints."""
    first, *others = (_value(basis, size, t) for t in times)
    if basis.piecewise_constant:
        for t, z in zip(times[1:], others, strict=True):
            if not np.allclose(z, first, rtol=1e-5, atol=1e-6):
                raise ValueError(
                    "With `piecewise_constant=True`, z must be constant between "
                    "`breakpoints`. Add those at which it jumps, or set it to False. "
                    f"Received: z({times[0]:g})={first}, z({t:g})={z}"
                )


def _value(basis: Basis, size: int, t: float) -> np.ndarray:
    """z(t), checked."""
    z = basis(ops.convert_to_tensor(np.float32(t)))
    shape = tuple(getattr(z, "shape", ()))
    if shape != (size,):
        raise ValueError(
            f"`__call__(t)` must give z(t) of shape {(size,)}. "
            f"Received: z({t:g}) of shape {shape}"
        )
    dtype = keras.backend.standardize_dtype(z.dtype)
    if not keras.backend.is_float_dtype(dtype):
        raise ValueError(
            "`__call__(t)` must give floating numbers. Cast them to the dtype of t, "
            f"with `keras.ops.cast(z, t.dtype)`. Received: z({t:g}) of dtype {dtype}"
        )
    values = ops.convert_to_numpy(ops.cast(z, "float32"))
    if not np.isfinite(values).all():
        raise not_finite(t, values)
    return values


def not_finite(t: float, z: np.ndarray) -> ValueError:
    return ValueError(
        "`__call__(t)` must be finite in the whole domain, with its ends. "
        f"Received: z({t:g})={z}"
    )


def check_domain(domain: Sequence[float]) -> tuple[float, float]:
    expected = "two finite times (t0, t1) with t0 < t1, whichever way the ODE runs"
    ends = checks.array("domain", domain, expected)
    if ends.shape != (2,) or not np.isfinite(ends).all() or not ends[0] < ends[1]:
        raise checks.wrong("domain", domain, expected)
    return float(ends[0]), float(ends[1])


class _Sealing(abc.ABCMeta):
    """Seals an instance when its constructor, and those of subclasses, are done."""

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        basis = super().__call__(*args, **kwargs)
        object.__setattr__(basis, "_is_sealed", True)
        return basis


class Broadcasting(Basis, metaclass=_Sealing):
    """A basis whose `__call__` takes times of any shape. It cannot be changed, since
    layers share it, and what is computed from its arguments would not follow."""

    _is_sealed = False

    def __setattr__(self, name, value):
        if self._is_sealed:
            raise AttributeError(
                f"`{name}` of a {type(self).__name__} cannot be changed after "
                "construction. Make a new basis, for example with "
                "`type(basis)(**{**basis.get_config(), ...})`. "
                f"Received: {name}={value!r}, basis={self!r}"
            )
        super().__setattr__(name, value)

    def values(self, t):
        return self(t)

    @staticmethod
    def as_times(t):
        """The times as a tensor, of any shape, if they are numbers or one already."""
        if ops.is_tensor(t):
            return t
        expected = "finite times, as numbers or a tensor"
        return ops.convert_to_tensor(given_times.times("t", t, expected))

    def fraction(self, t):
        """The position of t in the domain: 0 at its start, 1 at its end."""
        t0, t1 = self.domain
        return (t - t0) / (t1 - t0)
