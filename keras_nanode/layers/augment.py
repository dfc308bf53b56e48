"""Channels of zeros, which give a flow more room."""

from typing import Any

import keras
from keras import ops

from keras_nanode import checks
from keras_nanode.layers.arguments import CheckedArguments


@keras.saving.register_keras_serializable("keras_nanode")
class Augment(CheckedArguments, keras.Layer):
    """Appends channels of zeros.

    A flow keeps the order of points on a line. No exact ODE in one dimension reaches
    h(x) = -x, whether it depends on time or not. With one more dimension it can turn.

    Args:
        channels: Positive integer, the number of channels to append.

    Input shape:
        `(batch, ..., n)`.

    Output shape:
        `(batch, ..., n + channels)`.

    Raises:
        ValueError: if `channels` is not a positive integer.

    Example:

    >>> import keras
    >>> from keras_nanode import layers
    >>> x = layers.Augment(2)(keras.ops.ones((1, 1)))
    >>> keras.ops.convert_to_numpy(x).tolist()
    [[1.0, 0.0, 0.0]]

    References:
        - [Dupont et al., 2019](https://arxiv.org/abs/1904.01681)
    """

    def __init__(self, channels: int, **kwargs: Any):
        super().__init__(**kwargs)
        self.channels = checks.integer("channels", channels)
        self.input_spec = keras.layers.InputSpec(min_ndim=1)
        self.supports_masking = True

    def call(self, inputs):
        padding = [(0, 0)] * (len(inputs.shape) - 1) + [(0, self.channels)]
        return ops.pad(inputs, padding)

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], input_shape[-1] + self.channels)

    def get_config(self):
        return {**super().get_config(), "channels": self.channels}
