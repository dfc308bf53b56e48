"""A wrapper that gives any layer the time as one more channel."""

from typing import Any

import keras
from keras import ops

from keras_nanode import checks, given_times
from keras_nanode.fields.masks import passing_on, with_mask
from keras_nanode.layers.arguments import CheckedArguments
from keras_nanode.layers.nested import Nesting, symbolic_output
from keras_nanode.structures import as_scalar


@keras.saving.register_keras_serializable("keras_nanode")
class TimeAppended(CheckedArguments, Nesting, keras.Layer):
    """A layer applied to (x, t): the time joins the input as one more channel.

    The dynamics of the paper's AppNODE: f depends on time, its weights do not.

    Args:
        layer: The Keras layer, called with one more channel than the input. Inside an
            `ODE` it must return as many channels as the input has.

    Call arguments:
        inputs: A floating tensor.
        t: The time, a number or a scalar tensor.
        mask: A boolean tensor for `layer`, which Keras finds on the inputs.

    Input shape:
        `(batch, ..., channels)`.

    Output shape:
        `layer`'s for an input of shape `(batch, ..., channels + 1)`.

    Raises:
        ValueError: if `layer` is not a Keras layer.

    Example:

    >>> import keras
    >>> from keras_nanode import layers
    >>> layer = layers.TimeAppended(keras.layers.Dense(4))
    >>> layer(keras.ops.ones((2, 4)), t=0.5).shape[1]
    4
    >>> layer.count_params() == (4 + 1) * 4 + 4
    True

    References:
        - Time Dependence in Non-Autonomous Neural ODEs, arXiv 2005.01906, section 4
    """

    nested = "layer"

    def __init__(self, layer: keras.Layer, **kwargs: Any):
        super().__init__(autocast=False, **kwargs)
        self.layer = checks.layer("layer", layer)
        self.input_spec = keras.layers.InputSpec(min_ndim=1)
        self.supports_masking = layer.supports_masking

    def build(self, input_shape):
        self._symbolic_output(input_shape)

    def call(self, inputs, t, mask=None):
        x = with_mask(self.appended(inputs, t), mask)
        return passing_on(self.layer, mask)(x)

    def compute_mask(self, inputs, previous_mask=None):
        return self.layer.compute_mask(inputs, previous_mask)

    def appended(self, inputs, t):
        """The inputs with the time as their last channel."""
        x = ops.cast(inputs, self.compute_dtype)
        t = as_scalar(given_times.one_time("t", t), self.compute_dtype)
        return ops.concatenate([x, t * ops.ones_like(x[..., :1])], axis=-1)

    def compute_output_shape(self, input_shape):
        return self._symbolic_output(input_shape).shape

    def _symbolic_output(self, shape):
        shape = (*shape[:-1], shape[-1] + 1)
        x = keras.KerasTensor(shape, dtype=self.compute_dtype)
        return symbolic_output(self.layer, x)
