"""Any layer with weights that are learned functions of time."""

import functools

import keras
import numpy as np
from keras import ops

from keras_nanode import backend, bases, checks
from keras_nanode.dynamics import WeightsOverTime
from keras_nanode.layers.arguments import CheckedArguments
from keras_nanode.layers.nested import Nesting, built_copy, copy_layer
from keras_nanode.pure import LayerFunction, value_of

_STARTS = ("constant", "independent")


@keras.saving.register_keras_serializable("keras_nanode")
class TimeVarying(CheckedArguments, Nesting, WeightsOverTime, keras.Layer):
    """A layer whose every trainable weight w becomes w(t) = sum_k z_k(t) alpha_k.

    Each weight of `layer` gives one variable of shape `(K, *w.shape)`, the coefficients
    alpha, with the regularizer and the constraint of w applied to each alpha_k. Used
    as the dynamics of an `ODE`, or alone with a time.

    Args:
        layer: The Keras layer, or whole model, whose weights shall vary. It serves as
            the pattern: its configuration is copied, and it is never built or called.
        basis: The functions of time z: a `keras_nanode.bases.Basis`, or one of the
            names in `keras_nanode.bases.ALL`.
        start: How the coefficients start. `"constant"`: w(t) is the same at all times,
            a draw from the weight's own initializer. `"independent"`: each alpha_k is a
            draw of its own, scaled so that w(t) keeps the initializer's variance (at
            every t where sum_k z_k(t)^2 is constant, on average over the domain
            elsewhere); weights whose initializer is not random start constant.

    Call arguments:
        inputs: What `layer` takes.
        t: The time, a number or a scalar tensor, never rounded to a lower precision.

    Input shape:
        That of `layer`.

    Output shape:
        That of `layer`.

    Raises:
        ValueError: if `basis` or `start` is not one of these.

    Example:

    >>> import keras
    >>> from keras_nanode import bases, layers
    >>> layer = layers.TimeVarying(keras.layers.Dense(3), bases.Bucket(5))
    >>> layer(keras.ops.ones((2, 4)), t=0.5).shape[1]
    3
    >>> layer.count_params() == 5 * (4 * 3 + 3)
    True

    References:
        - Time Dependence in Non-Autonomous Neural ODEs, arXiv 2005.01906, section 2.3
    """

    nested = "layer"

    def __init__(self, layer, basis, start="constant", **kwargs):
        super().__init__(autocast=False, **kwargs)
        if start not in _STARTS:
            raise ValueError(
                f"Unknown `start`. Use one of {_STARTS}. Received: start={start!r}"
            )
        # Past the tracking of Keras: the pattern's weights are no weights of this one.
        object.__setattr__(self, "layer", checks.layer("layer", layer))
        object.__setattr__(self, "_pattern", None)
        self.basis = bases.get(basis)
        self.start = start

    def build(self, input_shape):
        with backend.eagerly():
            pattern = built_copy(self.layer, input_shape)
        object.__setattr__(self, "_pattern", pattern)
        # Drawn only when asked for: Keras may build in a scope without values.
        draw = functools.cache(lambda: self._draw_coefficients(input_shape))
        self.coefficients = [
            self.add_weight(
                name=_name(w, pattern),
                shape=(self.basis.size, *w.shape),
                dtype=w.dtype,
                initializer=lambda shape, dtype, i=i: ops.cast(draw()[i], dtype),
                regularizer=w.regularizer and _Sliced(w.regularizer, ops.sum),
                constraint=w.constraint and _Sliced(w.constraint),
                autocast=False,
            )
            for i, w in enumerate(pattern.trainable_variables)
        ]
        self.constants = [
            self.add_weight(
                name=_name(w, pattern),
                shape=w.shape,
                dtype=w.dtype,
                initializer=lambda shape, dtype, w=w: ops.copy(w.value),
                trainable=False,
                autocast=False,
            )
            for w in pattern.non_trainable_variables
        ]

    def _draw_coefficients(self, input_shape):
        with backend.eagerly():
            z = _sample(self.basis)
            first = [ops.convert_to_numpy(w) for w in self._pattern.trainable_variables]
            # The combination of basis functions that is nearest to 1 at all times.
            ones = np.linalg.lstsq(z, np.ones(len(z)), rcond=None)[0]
            constant = [np.multiply.outer(ones, w) for w in first]
            if self.start == "constant":
                return constant
            copies = [
                built_copy(self.layer, input_shape, seed_offset=k)
                for k in range(self.basis.size)
            ]
            draws = [map(ops.convert_to_numpy, c.trainable_variables) for c in copies]
            scale = 1 / np.sqrt(np.mean(np.sum(z**2, axis=1)))
            stacked = [np.stack(slices) for slices in zip(*draws, strict=True)]
            return [
                scale * alpha if np.ptp(alpha, axis=0).any() else same
                for alpha, same in zip(stacked, constant, strict=True)
            ]

    def function(self):
        """The layer as a pure function of one set of weights and the inputs."""
        return LayerFunction(self._pattern, [value_of(c) for c in self.constants])

    def weights_at(self, t):
        """The layer's weights at the times t.

        Args:
            t: A number, or a sequence of n times.

        Returns:
            A list of tensors, one for each trainable weight w of the layer, in its
            order: of the shape of w for a number, else `(n, *w.shape)`.

        Raises:
            ValueError: if `t` is neither, or the layer is not built.
        """
        if not self.built:
            raise ValueError(
                f"The layer {self.name!r} has no weights before it is built. Call it "
                f"on an input first. Received: t={t!r}"
            )
        t = ops.convert_to_tensor(t, self._time_dtype)
        if len(t.shape) > 1:
            raise ValueError(
                "`t` must be a number or a sequence of times. "
                f"Received: t with shape {tuple(t.shape)}"
            )
        located = self.basis.locate(ops.reshape(t, (-1,)))
        theta = [self.basis.combine(located, value_of(c)) for c in self.coefficients]
        return theta if len(t.shape) else [w[0] for w in theta]

    @property
    def _time_dtype(self) -> str:
        return "float64" if self.variable_dtype == "float64" else "float32"

    def call(self, inputs, t):
        t = ops.convert_to_tensor(t, self._time_dtype)
        return self.function()(self.weights_at(ops.reshape(t, ())), inputs)

    def compute_output_shape(self, input_shape):
        layer = self._pattern or copy_layer(self.layer)
        return layer(keras.KerasTensor(input_shape, dtype=self.compute_dtype)).shape

    def get_config(self):
        return {
            **super().get_config(),
            "basis": keras.saving.serialize_keras_object(self.basis),
            "start": self.start,
        }


def _name(weight, layer):
    """The weight's path in its layer, as one name."""
    return weight.path.removeprefix(f"{layer.path}/").replace("/", "_")


def _sample(basis):
    """z at evenly spaced times of the domain, with shape (times, K)."""
    t0, t1 = basis.domain
    count = max(256, 4 * basis.size)
    times = t0 + (t1 - t0) * (np.arange(count) + 0.5) / count
    times = ops.convert_to_tensor(times, dtype="float32")
    return ops.convert_to_numpy(basis.values(times)).astype("float64")


class _Sliced:
    """A regularizer or constraint of w, applied to each of the slices alpha_k."""

    def __init__(self, function, reduce=lambda x: x):
        self.function = function
        self.reduce = reduce

    def __call__(self, coefficients):
        slices = ops.convert_to_tensor(coefficients)
        return self.reduce(ops.vectorized_map(self.function, slices))
