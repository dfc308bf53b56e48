"""A wrapper that makes a layer's weights learned functions of time."""

import functools
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_nanode import backend, bases, checks, given_times
from keras_nanode.bases import Basis
from keras_nanode.bases.basis import check_promises
from keras_nanode.bases.projection import Projection, in_place_of
from keras_nanode.copying.trainable import Flags, flags, set_flags
from keras_nanode.fields.dynamics import WeightsOverTime, needs_time
from keras_nanode.fields.masks import with_mask
from keras_nanode.fields.stateless import LayerFunction, value_of
from keras_nanode.fields.trial import try_out
from keras_nanode.layers.arguments import CheckedArguments
from keras_nanode.layers.nested import Held, Nesting, symbolic_output
from keras_nanode.layers.starts import STARTS, first_coefficients


@keras.saving.register_keras_serializable("keras_nanode")
class TimeVarying(CheckedArguments, Nesting, WeightsOverTime, keras.Layer):
    """A layer whose every trainable weight w becomes w(t) = sum_k z_k(t) alpha_k.

    Each weight of `layer` gives one variable of shape `(K, *w.shape)`, the coefficients
    alpha. The regularizer and the constraint of w apply to each alpha_k. Use it as the
    dynamics of an `ODE`, or alone with a time.

    Adam moves every coefficient by about the learning rate, and so w(t) by up to the
    rate times sum_k |z_k(t)|. This sum is 1 for buckets. It is larger for functions
    that all act at every time: the more of them, the lower the rate should be.

    Args:
        layer: The Keras layer, or whole model, whose weights are to vary. It is the
            pattern: its own weights set where the coefficients start, and are not part
            of this layer. If it is not built yet, it is built with this layer.
        basis: The functions of time z: a `keras_nanode.bases.Basis`, or one of the
            names in `keras_nanode.bases.ALL`.
        start: How the coefficients start. `"layer"`: at all times w(t) is the weight in
            `layer`, so `ODE(TimeVarying(layer, ...))` starts as `ODE(layer)`. That
            weight is a draw from its initializer, or what it has learned if `layer` was
            built and trained before. `"constant"`: the same, but drawn anew.
            `"independent"`: each alpha_k is a separate draw, scaled so that w(t) keeps
            the initializer's variance (at every t where sum_k z_k(t)^2 is constant, on
            average over the domain elsewhere). Weights whose initializer is not random
            start constant. A constant w(t) needs a basis that can combine to the
            function 1, as those of this library can. With another basis, w(t) is the
            weight times the combination that is nearest to 1 in the domain.

    Call arguments:
        inputs: What `layer` takes.
        t: The time, a number or a scalar tensor. It is cast to float32, or to float64
            if this layer's `variable_dtype` is float64, whatever the compute dtype.
        mask: A boolean tensor for `layer`; None for the one on the inputs, if any.

    Input shape:
        That of `layer`.

    Output shape:
        That of `layer`.

    Raises:
        ValueError: if `layer` is not a Keras layer, if `basis` or `start` is not one of
            these, if (when built) a basis of your own is not as `bases.Basis` says or
            has too many functions for `start`, or `layer` uses `keras.remat`, or if
            (when called) `layer` is not pure.

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

    def __init__(
        self,
        layer: keras.Layer,
        basis: str | Basis,
        start: str = "layer",
        **kwargs: Any,
    ):
        super().__init__(autocast=False, **kwargs)
        self._held = Held(checks.layer("layer", layer))
        if needs_time(layer):
            raise ValueError(
                "`layer` must need no time: TimeVarying makes its weights functions of "
                "time, and calls it without. Give the layer inside of this one, with a "
                "basis of all functions of time. "
                f"Received: {checks.shown('layer', layer)}"
            )
        self.basis = bases.get(basis)
        self.start = checks.one_of("start", start, STARTS)
        self.supports_masking = layer.supports_masking

    @property
    def layer(self):
        return self._held.layer

    def __dir__(self):
        # Keras saves the weights of each layer that is listed here. Those of the
        # pattern are not part of this layer.
        return [name for name in super().__dir__() if name != "layer"]

    def build(self, input_shape):
        with backend.eagerly():
            check_promises(self.basis)
        # If the pattern is only built here, its weights are newly drawn.
        self._held.is_given = self.layer.built
        self._pattern_output(input_shape)
        self._held.keep()
        x = keras.KerasTensor(input_shape, dtype=self.layer.compute_dtype)
        try_out(self.layer, self.layer, x, training=False)
        # Drawn only when asked for: Keras may build in a scope without values.
        draw = functools.cache(lambda: self._draw(input_shape))
        self.coefficients = [
            self.add_weight(
                name=_name(w, self.layer),
                shape=(self.basis.size, *w.shape),
                dtype=w.dtype,
                initializer=lambda shape, dtype, i=i: ops.cast(draw()[i], dtype),
                regularizer=w.regularizer and _Sliced(w.regularizer, ops.sum),
                constraint=w.constraint and _Sliced(w.constraint),
                autocast=False,
            )
            for i, w in enumerate(self._held.weights)
        ]
        self.constants = [
            self.add_weight(
                name=_name(w, self.layer),
                shape=w.shape,
                dtype=w.dtype,
                initializer=lambda shape, dtype, w=w: ops.copy(w.value),
                trainable=False,
                autocast=False,
            )
            for w in self._held.others
        ]

    def _pattern_output(self, input_shape):
        """The symbolic output of the pattern, which is built if necessary."""
        with backend.eagerly():
            x = keras.KerasTensor(input_shape, dtype=self.layer.compute_dtype)
            return symbolic_output(self.layer, x)

    def _draw(self, input_shape):
        with backend.eagerly():
            return first_coefficients(self._held, self.basis, self.start, input_shape)

    def function(self):
        """The layer as a pure function of one set of weights and the inputs."""
        if not self._held.has_same_variables:
            raise ValueError(
                f"The layer {self.layer.name!r} has other variables than when the "
                f"TimeVarying {self.name!r} around it was built, and would not compute "
                "with the weights w(t). `enable_lora` and `quantize` do so. Save the "
                "model and load it again: the file has the layer as it was. Or give "
                "TimeVarying a layer that no other model has. Received: variables "
                f"{[v.path for v in self.layer.variables]}"
            )
        state = zip(self._held.others, map(value_of, self.constants), strict=True)
        return LayerFunction(self.layer, self._held.weights, list(state))

    @property
    def flags_of_layer(self) -> Flags:
        """What of the layer was trainable when this was built, or else is now."""
        return self._held.flags or flags(self.layer)

    def copy_of_layer(self) -> keras.Layer:
        """A copy of the layer as it was when this was built, for these weights."""
        return self._held.copy()

    def rebased(self, basis: str | Basis) -> "TimeVarying":
        """A built copy over another basis, whose weights w(t) are the nearest there.

        Args:
            basis: The new basis, or its name. It is stretched to the domain of this
                layer's basis if its own is (0, 1).

        Returns:
            A layer with the coefficients that make the integral over the domain of
            the squared changes of w(t) as small as possible. If the new basis contains
            the old one, w(t) stays as it is.

        Raises:
            ValueError: if this layer is not built, or the basis has another domain.
        """
        self._check_built(f"basis={basis!r}")
        new = in_place_of(self.basis, bases.get(basis), self.basis.domain)
        copy = self.over(new)
        copy.build(self.get_build_config()["input_shape"])
        change = Projection.of(self.basis, new, self.variable_dtype)
        for after, before in zip(copy.coefficients, self.coefficients, strict=True):
            after.assign(change.of_weights(ops.convert_to_numpy(before)))
        for after, before in zip(copy.constants, self.constants, strict=True):
            after.assign(before)
        set_flags(copy, flags(self))
        return copy

    def over(self, basis: Basis) -> "TimeVarying":
        """A copy over another basis, with new weights."""
        own = {"name": self.name, "dtype": self.dtype_policy}
        copy = TimeVarying(self.copy_of_layer(), basis, self.start, **own)
        set_flags(copy, flags(self))
        return copy

    def weights_at(self, t):
        """The layer's weights at the times t.

        Args:
            t: A number, or a sequence of n times.

        Returns:
            A list of tensors, one for each trainable weight w of the layer, in the
            layer's order. Each has the shape of w if `t` is a number, else
            `(n, *w.shape)`.

        Raises:
            ValueError: if `t` is neither, or the layer is not built.
        """
        self._check_built(f"t={t!r}")
        expected = "a finite number or a sequence of them"
        given, t = t, given_times.times("t", t, expected)
        if len(t.shape) > 1:
            raise checks.wrong("t", given, expected)
        if isinstance(t, np.ndarray) and t.size:
            self.basis.check_covers("t", t.reshape(-1).tolist())
        t = ops.convert_to_tensor(t, self._time_dtype)
        located = self.basis.locate(ops.reshape(t, (-1,)))
        theta = [self.basis.combine(located, value_of(c)) for c in self.coefficients]
        return theta if len(t.shape) else [w[0] for w in theta]

    def _check_built(self, received):
        if not self.built:
            raise ValueError(
                f"The layer {self.name!r} has no weights before it is built. Call it "
                f"on an input first. Received: {received}"
            )

    @property
    def _time_dtype(self) -> str:
        return "float64" if self.variable_dtype == "float64" else "float32"

    def call(self, inputs, t, mask=None):
        t = ops.convert_to_tensor(given_times.one_time("t", t), self._time_dtype)
        theta = self.weights_at(ops.reshape(t, ()))
        return self.function()(theta, with_mask(inputs, mask))

    def compute_mask(self, inputs, previous_mask=None):
        return self.layer.compute_mask(inputs, previous_mask)

    def compute_output_shape(self, input_shape):
        return self._pattern_output(input_shape).shape

    def _nested_config(self):
        """The configuration from build time if the layer has changed since, because
        the coefficients belong to that version."""
        held = self._held
        if held.config is None or held.has_same_weights:
            return super()._nested_config()
        return held.config

    def get_config(self):
        return {
            **super().get_config(),
            "basis": keras.saving.serialize_keras_object(self.basis),
            "start": self.start,
        }


def _name(weight, layer):
    """The weight's path in its layer, as one name."""
    return weight.path.removeprefix(f"{layer.path}/").replace("/", "_")


class _Sliced:
    """A regularizer or constraint of w, applied to each of the slices alpha_k."""

    def __init__(self, function, reduce=lambda x: x):
        self.function = function
        self.reduce = reduce

    def __call__(self, coefficients):
        # One by one: some regularizers of Keras write in place, which the vectorized
        # map of PyTorch does not allow.
        slices = ops.unstack(ops.convert_to_tensor(coefficients))
        return self.reduce(ops.stack([self.function(w) for w in slices]))
