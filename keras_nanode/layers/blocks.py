"""The paper's residual functions as plain layers."""

from collections.abc import Sequence
from typing import Any

import keras

from keras_nanode import checks
from keras_nanode.layers.arguments import (
    Activation,
    Constraint,
    Initializer,
    Regularizer,
)
from keras_nanode.layers.block import Block


@keras.saving.register_keras_serializable("keras_nanode")
class DenseBlock(Block):
    """x -> activation(W x + b), or with `hidden_units` a bottleneck of three maps.

    The bottleneck is pre-activated: normalization, activation and a dense map, three
    times. The maps have `hidden_units`, `hidden_units` and `units` outputs.

    Args:
        units: Positive integer, channels of the output; None for as many as the input.
        hidden_units: Positive integer, width of the bottleneck; None for no bottleneck.
        activation: Activation function or its name.
        normalization: None, `"group"` (8 groups, or the greatest common divisor of 8
            and the channels) or `"layer"`, before each activation and map.
        use_bias: Boolean.
        kernel_initializer, bias_initializer, kernel_regularizer, bias_regularizer,
            kernel_constraint, bias_constraint: As in `keras.layers.Dense`, for each
            map.

    Input shape:
        `(batch, ..., channels)`, of rank 2 at least.

    Output shape:
        `(batch, ..., units)`.

    Raises:
        ValueError: if a width is not a positive integer, if `normalization` is
            unknown, or (when built) if the input has no channels.

    Example:

    >>> import keras
    >>> from keras_nanode import layers
    >>> layers.DenseBlock(hidden_units=2)(keras.ops.ones((3, 5))).shape[1]
    5
    """

    def __init__(
        self,
        units: int | None = None,
        hidden_units: int | None = None,
        activation: Activation = "tanh",
        normalization: str | None = None,
        use_bias: bool = True,
        kernel_initializer: Initializer = "glorot_uniform",
        bias_initializer: Initializer = "zeros",
        kernel_regularizer: Regularizer = None,
        bias_regularizer: Regularizer = None,
        kernel_constraint: Constraint = None,
        bias_constraint: Constraint = None,
        **kwargs: Any,
    ):
        super().__init__(
            {"units": units, "hidden_units": hidden_units},
            activation=activation,
            normalization=normalization,
            use_bias=use_bias,
            kernel_initializer=kernel_initializer,
            bias_initializer=bias_initializer,
            kernel_regularizer=kernel_regularizer,
            bias_regularizer=bias_regularizer,
            kernel_constraint=kernel_constraint,
            bias_constraint=bias_constraint,
            **kwargs,
        )
        self.units = units
        self.hidden_units = hidden_units

    def _check_rank(self, input_shape):
        if len(input_shape) < 2:
            raise ValueError(
                f"The layer {self.name!r} takes inputs of shape (batch, ..., channels)."
                f" Received: input_shape={tuple(input_shape)}"
            )

    def _map(self, width, has_kernel, rank, **arguments):
        return keras.layers.Dense(width, **arguments)

    def get_config(self):
        own = {"units": self.units, "hidden_units": self.hidden_units}
        return {**super().get_config(), **own}


@keras.saving.register_keras_serializable("keras_nanode")
class ConvBlock(Block):
    """x -> activation(W * x + b), or with `hidden_filters` a bottleneck of three maps.

    The bottleneck is pre-activated: normalization, activation and a convolution, three
    times. The convolutions are 1x1 to `hidden_filters`, kxk, and 1x1 to `filters`
    (arXiv 2005.01906, section 3.1).

    Args:
        filters: Positive integer, channels of the output; None for as many as the
            input.
        kernel_size: Positive integer k, or one for each spatial axis.
        hidden_filters: Positive integer, width of the bottleneck; None for no
            bottleneck.
        activation: Activation function or its name.
        normalization: None, `"group"` (8 groups, or the greatest common divisor of 8
            and the channels) or `"layer"`, before each activation and map.
        use_bias: Boolean.
        kernel_initializer, bias_initializer, kernel_regularizer, bias_regularizer,
            kernel_constraint, bias_constraint: As in `keras.layers.Conv2D`, for each
            map.

    Input shape:
        `(batch, *spatial, channels)` with 1 to 3 spatial axes, channels last.

    Output shape:
        `(batch, *spatial, filters)`.

    Raises:
        ValueError: if a width is not a positive integer, if `normalization` is
            unknown, or (when built) if the input has another rank.

    Example:

    >>> import keras
    >>> from keras_nanode import layers
    >>> layers.ConvBlock(hidden_filters=2)(keras.ops.ones((3, 8, 8, 5))).shape[3]
    5
    """

    def __init__(
        self,
        filters: int | None = None,
        kernel_size: int | Sequence[int] = 3,
        hidden_filters: int | None = None,
        activation: Activation = "relu",
        normalization: str | None = None,
        use_bias: bool = True,
        kernel_initializer: Initializer = "glorot_uniform",
        bias_initializer: Initializer = "zeros",
        kernel_regularizer: Regularizer = None,
        bias_regularizer: Regularizer = None,
        kernel_constraint: Constraint = None,
        bias_constraint: Constraint = None,
        **kwargs: Any,
    ):
        super().__init__(
            {"filters": filters, "hidden_filters": hidden_filters},
            activation=activation,
            normalization=normalization,
            use_bias=use_bias,
            kernel_initializer=kernel_initializer,
            bias_initializer=bias_initializer,
            kernel_regularizer=kernel_regularizer,
            bias_regularizer=bias_regularizer,
            kernel_constraint=kernel_constraint,
            bias_constraint=bias_constraint,
            **kwargs,
        )
        self.filters = filters
        self.kernel_size = _kernel_size(kernel_size)
        self.hidden_filters = hidden_filters

    def _check_rank(self, input_shape):
        if len(input_shape) not in (3, 4, 5):
            raise ValueError(
                f"The layer {self.name!r} takes inputs of shape (batch, *spatial, "
                "channels) with 1, 2 or 3 spatial axes. For vectors use `DenseBlock` "
                f"or `DenseODE`. Received: input_shape={tuple(input_shape)}"
            )

    def _map(self, width, has_kernel, rank, **arguments):
        convolution = (
            keras.layers.Conv1D,
            keras.layers.Conv2D,
            keras.layers.Conv3D,
        )[rank - 1]
        return convolution(
            width,
            self.kernel_size if has_kernel else 1,
            padding="same",
            data_format="channels_last",
            **arguments,
        )

    def get_config(self):
        return {
            **super().get_config(),
            "filters": self.filters,
            "kernel_size": self.kernel_size,
            "hidden_filters": self.hidden_filters,
        }


def _kernel_size(value):
    """Checks an integer, or one for each of up to three axes."""
    sizes = value if isinstance(value, (tuple, list)) else (value,)
    expected = "a positive integer, or a tuple of one to three"
    if not 1 <= len(sizes) <= 3:
        raise checks.wrong("kernel_size", value, expected)
    sizes = tuple(checks.integer("kernel_size", size) for size in sizes)
    return sizes if isinstance(value, (tuple, list)) else sizes[0]
