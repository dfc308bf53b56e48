"""Tolerances, the length of the next step, and how a solve can end."""

import dataclasses
import enum
import math

import keras
from keras import ops, tree

from keras_nanode import checks
from keras_nanode.vector_field import Structure

# They are laid out beforehand: more would be a mistake, or an attack in a file.
MOST_STEPS = 10**7
_SAFETY, _SHRINK, _GROW = 0.9, 0.2, 10.0


class Status(enum.IntEnum):
    """How a solve ended; `message` says what to do about it."""

    SUCCESS = 0
    MAX_STEPS = 1
    UNDERFLOW = 2
    NON_FINITE = 3
    UNORDERED = 4

    @property
    def message(self) -> str:
        return _MESSAGES[self]


_MESSAGES = {
    Status.SUCCESS: "The last time was reached.",
    Status.MAX_STEPS: (
        "The largest number of steps was tried before the last time was reached. Raise "
        "`max_steps` or the tolerances of `Adaptive`; if the problem is stiff, an "
        "explicit solver needs steps that are too small for it."
    ),
    Status.UNDERFLOW: (
        "The step became too small for the precision of t without meeting the "
        "tolerances. Raise `rtol` and `atol`, compute in float64, or look for a "
        "singularity or a jump of the vector field there."
    ),
    Status.NON_FINITE: (
        "The state or its derivative is infinite or NaN, and smaller steps did not "
        "help. Look at the vector field there, and at the inputs and weights."
    ),
    Status.UNORDERED: (
        "The times are not finite, or neither all increasing nor all decreasing. Sort "
        "them, or look at where they come from."
    ),
}


@keras.saving.register_keras_serializable("keras_nanode")
@dataclasses.dataclass(frozen=True)
class Adaptive:
    """Steps whose lengths keep the estimated error of each within tolerances.

    A step is accepted if the root mean square of error / (atol + rtol max(|y|, |y'|))
    over the whole state is 1 at most. A PI controller chooses the next (Hairer, Norsett
    and Wanner, Solving Ordinary Differential Equations I, section II.4, and II, section
    IV.2). No step crosses an output time or a breakpoint of the weights' basis.

    Args:
        rtol: Non-negative number, tolerance relative to the state.
        atol: Non-negative number, absolute tolerance; not both may be 0.
        max_steps: Positive integer, how many steps are tried at most.

    Raises:
        ValueError: if an argument is not as described.

    Example:

    >>> import keras
    >>> from keras_nanode import Adaptive, layers
    >>> ode = layers.ODE(keras.layers.Dense(3), "tsit5", Adaptive(rtol=1e-3))
    >>> ode(keras.ops.ones((2, 3))).shape[1]
    3
    """

    rtol: float = 1e-4
    atol: float = 1e-6
    max_steps: int = 4096

    def __post_init__(self):
        for name in ("rtol", "atol"):
            value = checks.number(
                name,
                getattr(self, name),
                "a finite number of at least 0",
                lambda x: x >= 0,
            )
            # The float of a number of NumPy, too.
            object.__setattr__(self, name, value)
        if self.rtol == self.atol == 0:
            raise ValueError(
                "`rtol` and `atol` must not both be 0, since no step is without error. "
                "Received: rtol=0, atol=0"
            )
        checks.integer("max_steps", self.max_steps, most=MOST_STEPS)

    def get_config(self) -> dict:
        return dataclasses.asdict(self)

    @classmethod
    def from_config(cls, config: dict) -> "Adaptive":
        return cls(**config)

    def norm(self, x: Structure, *sizes: Structure):
        """The root mean square of x / (atol + rtol max(|sizes|)) over the structure.

        It is finite and not 0 wherever these ratios are, in any unit of x."""
        # In units of the larger tolerance, which small states do not take to 0.
        unit = max(self.rtol, self.atol)
        absolute, relative = self.atol / unit, self.rtol / unit

        def ratio(x, *sizes):
            size = abs(sizes[0])
            for other in sizes[1:]:
                size = ops.where(abs(other) > size, abs(other), size)
            allowed = absolute + (size if relative == 1 else relative * size)
            if absolute > 0:
                return x / allowed
            # Without error no tolerance is too small, not even 0.
            none = ops.where(x == 0, x, float("inf"))
            return ops.where(allowed > 0, x / ops.where(allowed > 0, allowed, 1), none)

        ratios = tree.flatten(tree.map_structure(ratio, x, *sizes))
        return _root_mean_square(ratios) / unit

    def factor(self, norm, previous, order: int):
        """By how much to change the step after an error of the given norm.

        A PI controller: `previous` is the norm of the last accepted step. Its exponents
        are those of Hairer's code DOPRI5 at every order, with which steps settle at
        0.4 of the tolerance.
        """
        # Away from 0, which has no logarithm.
        size = ops.where(norm > 1e-10, norm, 1e-10)
        previous = ops.where(previous > 1e-4, previous, 1e-4)
        grown = size ** (-0.85 / order) * previous ** (0.2 / order)
        factor = _SAFETY * ops.where(norm <= 1, grown, size ** (-1 / order))
        factor = ops.where(factor < _GROW, factor, _GROW)
        return ops.where((factor > _SHRINK) & ops.isfinite(norm), factor, _SHRINK)


def _root_mean_square(leaves: list):
    """Over all entries, none of whose squares is too large or too small."""
    dtypes = {keras.backend.standardize_dtype(leaf.dtype) for leaf in leaves}
    dtype = "float64" if "float64" in dtypes else leaves[0].dtype
    sizes = [ops.cast(_largest(leaf), dtype) for leaf in leaves]
    largest = ops.max(ops.stack(sizes)) if len(sizes) > 1 else sizes[0]
    scale = ops.where(largest > 0, largest, ops.ones_like(largest))
    squares = [ops.sum((leaf / ops.cast(scale, leaf.dtype)) ** 2) for leaf in leaves]
    total = sum(ops.cast(x, dtype) for x in squares)
    return largest * (total / _count(leaves, dtype)) ** 0.5


def _largest(leaf):
    # A number that is known saves an operation, which tiny states notice.
    known = None not in leaf.shape and math.prod(leaf.shape)
    return ops.max(abs(leaf)) if known else ops.max(abs(leaf), initial=0.0)


def _count(leaves: list, dtype):
    """How many entries there are; 1 of none, for an empty batch has no error."""
    if all(None not in leaf.shape for leaf in leaves):
        return max(sum(math.prod(leaf.shape) for leaf in leaves), 1)
    count = sum(ops.cast(ops.size(leaf), dtype) for leaf in leaves)
    return ops.where(count > 0, count, ops.ones_like(count))
