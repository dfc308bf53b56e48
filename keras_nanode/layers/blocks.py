"""The paper's residual functions as plain layers that keep the shape of their input."""

import math

import keras
from keras import activations, constraints, initializers, regularizers

from keras_nanode import checks

_NORMALIZATIONS = (None, "group", "layer")


class _Block(keras.Layer):
    """One linear map, or three with a bottleneck; a subclass says what a map is."""

    # The configurations of maps that were quantized.
    _quantized: list[dict] | None = None
    maps: list[keras.Layer]

    def __init__(
        self,
        widths: dict,
        activation=None,
        normalization=None,
        use_bias=True,
        kernel_initializer="glorot_uniform",
        bias_initializer="zeros",
        kernel_regularizer=None,
        bias_regularizer=None,
        kernel_constraint=None,
        bias_constraint=None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        if normalization not in _NORMALIZATIONS:
            raise ValueError(
                f"Unknown `normalization`. Use one of {_NORMALIZATIONS}, which need no "
                f"state. Received: normalization={normalization!r}"
            )
        given = {name: width for name, width in widths.items() if width is not None}
        for name, width in given.items():
            checks.count(name, width)
        self._widths = tuple(widths.values())
        self.activation = activations.get(activation)
        self.normalization = normalization
        self.use_bias = use_bias
        self.kernel_initializer = initializers.get(kernel_initializer)
        self.bias_initializer = initializers.get(bias_initializer)
        self.kernel_regularizer = regularizers.get(kernel_regularizer)
        self.bias_regularizer = regularizers.get(bias_regularizer)
        self.kernel_constraint = constraints.get(kernel_constraint)
        self.bias_constraint = constraints.get(bias_constraint)

    def _map(self, width, spread, rank, **arguments) -> keras.Layer:
        """A linear map to `width` channels, over a neighbourhood if `spread`."""
        raise NotImplementedError

    def _check_rank(self, input_shape):
        raise NotImplementedError

    def build(self, input_shape):
        self._check_rank(input_shape)
        if input_shape[-1] is None:
            raise ValueError(
                f"The layer {self.name!r} needs to know the number of channels, the "
                f"last axis of its input. Received: input_shape={tuple(input_shape)}"
            )
        width, hidden = self._widths
        width = width or input_shape[-1]
        plan = [(width, True)]
        if hidden:
            plan = [(hidden, False), (hidden, True), (width, False)]
        self.norms, self.maps = [], []
        shape = tuple(input_shape)
        for channels, spread in plan:
            self.norms.append(self._norm(shape[-1]))
            linear = self._linear(channels, spread, len(shape) - 2)
            if self._quantized:
                linear = linear.from_config(self._quantized[len(self.maps)])
            self.maps.append(linear)
            self.norms[-1].build(shape)
            self.maps[-1].build(shape)
            shape = (*shape[:-1], channels)

    def _linear(self, channels, spread, rank):
        return self._map(
            channels,
            spread,
            rank,
            use_bias=self.use_bias,
            # An initializer draws the same numbers at each call: one for each map.
            kernel_initializer=self.kernel_initializer.clone(),
            bias_initializer=self.bias_initializer.clone(),
            kernel_regularizer=self.kernel_regularizer,
            bias_regularizer=self.bias_regularizer,
            kernel_constraint=self.kernel_constraint,
            bias_constraint=self.bias_constraint,
            dtype=self.dtype_policy,
        )

    def _norm(self, channels):
        if self.normalization == "group":
            groups = math.gcd(8, channels)
            return keras.layers.GroupNormalization(groups, dtype=self.dtype_policy)
        if self.normalization == "layer":
            return keras.layers.LayerNormalization(dtype=self.dtype_policy)
        return keras.layers.Identity(autocast=False)

    def call(self, inputs):
        if len(self.maps) == 1:
            return self.activation(self.maps[0](self.norms[0](inputs)))
        x = inputs
        for norm, linear in zip(self.norms, self.maps, strict=True):
            x = linear(self.activation(norm(x)))
        return x

    @property
    def linear_variables(self):
        """Those that, all multiplied by a number, multiply the outputs by it."""
        return self.maps[-1].variables if len(self.maps) > 1 else []

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], self._widths[0] or input_shape[-1])

    def _quantized_config(self) -> dict:
        """What `model.quantize` made of the maps, which it does not tell the block."""
        maps = getattr(self, "maps", ())
        policy = keras.dtype_policies.QuantizedDTypePolicy
        if any(isinstance(linear.dtype_policy, policy) for linear in maps):
            return {"quantized": [linear.get_config() for linear in maps]}
        return {"quantized": self._quantized} if self._quantized else {}

    @classmethod
    def from_config(cls, config):
        config = dict(config)
        quantized = config.pop("quantized", None)
        block = super().from_config(config)
        block._quantized = quantized
        return block

    def get_config(self):
        return {
            **super().get_config(),
            **self._quantized_config(),
            "activation": activations.serialize(self.activation),
            "normalization": self.normalization,
            "use_bias": self.use_bias,
            "kernel_initializer": initializers.serialize(self.kernel_initializer),
            "bias_initializer": initializers.serialize(self.bias_initializer),
            "kernel_regularizer": regularizers.serialize(self.kernel_regularizer),
            "bias_regularizer": regularizers.serialize(self.bias_regularizer),
            "kernel_constraint": constraints.serialize(self.kernel_constraint),
            "bias_constraint": constraints.serialize(self.bias_constraint),
        }


@keras.saving.register_keras_serializable("keras_nanode")
class DenseBlock(_Block):
    """x -> activation(W x + b), or with `hidden_units` a bottleneck of three maps.

    The bottleneck is pre-activated: three times normalization, activation and a dense
    map, to `hidden_units`, `hidden_units` and `units`.

    Args:
        units: Positive integer, channels of the output; None for as many as the input.
        hidden_units: Positive integer, width of the bottleneck; None for none.
        activation: Activation function or its name.
        normalization: None, `"group"` (8 groups, or the greatest common divisor of 8
            and the channels) or `"layer"`, before each activation and map.
        use_bias: Boolean.
        kernel_initializer, bias_initializer, kernel_regularizer, bias_regularizer,
            kernel_constraint, bias_constraint: As `keras.layers.Dense` has them, for
            each map.

    Input shape:
        `(batch, ..., channels)`, of rank 2 at least.

    Output shape:
        `(batch, ..., units)`.

    Raises:
        ValueError: if a width is not a positive integer, `normalization` is
            unknown, or (when built) the input has no
            channels.

    Example:

    >>> import keras
    >>> from keras_nanode import layers
    >>> layers.DenseBlock(hidden_units=2)(keras.ops.ones((3, 5))).shape[1]
    5
    """

    def __init__(self, units=None, hidden_units=None, activation="tanh", **kwargs):
        widths = {"units": units, "hidden_units": hidden_units}
        super().__init__(widths, activation, **kwargs)
        self.units = units
        self.hidden_units = hidden_units

    def _check_rank(self, input_shape):
        if len(input_shape) < 2:
            raise ValueError(
                f"The layer {self.name!r} takes inputs of shape (batch, ..., channels)."
                f" Received: input_shape={tuple(input_shape)}"
            )

    def _map(self, width, spread, rank, **arguments):
        return keras.layers.Dense(width, **arguments)

    def get_config(self):
        own = {"units": self.units, "hidden_units": self.hidden_units}
        return {**super().get_config(), **own}


@keras.saving.register_keras_serializable("keras_nanode")
class ConvBlock(_Block):
    """x -> activation(W * x + b), or with `hidden_filters` a bottleneck of three maps.

    The bottleneck is pre-activated: three times normalization, activation and a
    convolution: 1x1 to `hidden_filters`, kxk, and 1x1 to `filters` (arXiv 2005.01906,
    section 3.1).

    Args:
        filters: Positive integer, channels of the output; None for as many as the
            input.
        kernel_size: Positive integer k, or one for each spatial axis.
        hidden_filters: Positive integer, width of the bottleneck; None for none.
        activation: Activation function or its name.
        normalization: None, `"group"` (8 groups, or the greatest common divisor of 8
            and the channels) or `"layer"`, before each activation and map.
        use_bias: Boolean.
        kernel_initializer, bias_initializer, kernel_regularizer, bias_regularizer,
            kernel_constraint, bias_constraint: As `keras.layers.Conv2D` has them, for
            each map.

    Input shape:
        `(batch, *spatial, channels)` with 1 to 3 spatial axes, channels last.

    Output shape:
        `(batch, *spatial, filters)`.

    Raises:
        ValueError: if a width is not a positive integer, `normalization` is
            unknown, or (when built) the input is of
            another rank.

    Example:

    >>> import keras
    >>> from keras_nanode import layers
    >>> layers.ConvBlock(hidden_filters=2)(keras.ops.ones((3, 8, 8, 5))).shape[3]
    5
    """

    def __init__(
        self,
        filters=None,
        kernel_size=3,
        hidden_filters=None,
        activation="relu",
        **kwargs,
    ):
        widths = {"filters": filters, "hidden_filters": hidden_filters}
        super().__init__(widths, activation, **kwargs)
        self.filters = filters
        self.kernel_size = kernel_size
        self.hidden_filters = hidden_filters

    def _check_rank(self, input_shape):
        if len(input_shape) not in (3, 4, 5):
            raise ValueError(
                f"The layer {self.name!r} takes inputs of shape (batch, *spatial, "
                "channels) with 1, 2 or 3 spatial axes. For vectors use `DenseBlock` "
                f"or `DenseODE`. Received: input_shape={tuple(input_shape)}"
            )

    def _map(self, width, spread, rank, **arguments):
        convolution = (
            keras.layers.Conv1D,
            keras.layers.Conv2D,
            keras.layers.Conv3D,
        )[rank - 1]
        return convolution(
            width,
            self.kernel_size if spread else 1,
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
