"""The solver for stiff problems, from TensorFlow Probability."""

import dataclasses

import keras


@dataclasses.dataclass(frozen=True)
class BDF:
    """Backward differentiation formulas of order 1 to 5, with steps and orders chosen
    by the estimated error: `tensorflow_probability.math.ode.BDF`.

    This is not a one-step method. It only names what `stepping/bdf.py` adapts.

    Raises:
        ValueError: if Keras does not run on TensorFlow.

    References:
        - [Shampine and Reichelt, 1997](https://doi.org/10.1137/S1064827594276424)
    """

    name = "bdf"
    is_reversible = False
    estimates_error = True
    takes_fixed_steps = False
    has_own_gradient = True

    def __post_init__(self):
        backend = keras.backend.backend()
        if backend != "tensorflow":
            raise ValueError(
                "The solver 'bdf' is TensorFlow Probability's and needs Keras on "
                "TensorFlow. Set KERAS_BACKEND=tensorflow before Keras is imported, or "
                "use 'tsit5' or 'dopri5' with a large `Adaptive(max_steps=...)`. "
                f"Received: solver='bdf', backend={backend!r}"
            )
